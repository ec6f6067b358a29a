"""Image folders: read as they are needed, the same on each pass, and lines for what can't be."""

from __future__ import annotations

import pickle
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torch import Tensor, nn
from torch._utils import ExceptionWrapper

from penjing.errors import InputError
from penjing.measure.scores import Means
from penjing.search.budget import Budget
from penjing.search.identity import identity
from penjing.search.preflight import prepare, require_better_than_chance
from penjing.tasks.batches import reading
from penjing.tasks.checks import check
from penjing.tasks.data import Arrays, calibration, first
from penjing.tasks.overlap import require_apart
from penjing.tasks.reading import images as module
from penjing.tasks.reading.images import ImageFolder
from penjing.tasks.splits import with_validation
from penjing.tasks.task import Task

CLASSES = ("bird", "cat", "dog")
EACH = 20


def _made(root: Path, seed: int = 0, classes: tuple[str, ...] = CLASSES, each: int = EACH) -> Path:
    draw = np.random.default_rng(seed)
    for name in classes:
        (root / name / "more").mkdir(parents=True)
        for number in range(each):
            pixels = draw.integers(0, 256, (10, 12, 3), dtype=np.uint8)
            place = root / name / ("more" if number % 2 else "") / f"{number}.png"
            Image.fromarray(pixels).save(place)
    return root


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return _made(tmp_path / "train")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded, as they are."""
    files: list[str] = []
    opened = module._opened

    def noted(file: str) -> Any:
        files.append(file)
        return opened(file)

    monkeypatch.setattr(module, "_opened", noted)
    return files


def _whole(batches: Any) -> tuple[Tensor, Tensor]:
    x, y = zip(*batches, strict=True)
    return torch.cat(x), torch.cat(y)


def _in_memory(images: ImageFolder, **options: Any) -> Arrays:
    """The same images, read by hand."""
    size = images.size
    assert isinstance(size, tuple)
    pixels = [
        np.asarray(Image.open(file).convert("RGB").resize(size[::-1])) for file in images.files
    ]
    return Arrays(np.stack(pixels).transpose(0, 3, 1, 2), images.y, **options)


def _task(train: Any, **changes: Any) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3)).eval()
    values = {"model": model, "example": torch.rand(2, 3, 8, 8), "train": train, "test": train}
    return Task(**values | changes)


@pytest.mark.parametrize("kept", [True, False])
def test_batches_are_those_of_the_same_arrays(
    folder: Path, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not kept:
        monkeypatch.setattr(module, "KEPT_BYTES", 0)
    options: dict[str, Any] = {
        "batch_size": 7, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.4), "shuffle": True,
        "augment": "flip-crop",
    }  # fmt: skip
    images = ImageFolder(folder, size=8, **options)
    arrays = _in_memory(images, **options)
    assert (images.samples, len(images)) == (arrays.samples, len(arrays)) == (60, 9)
    for seed in (1, 2):
        torch.manual_seed(seed)
        mine, my_labels = _whole(images)
        torch.manual_seed(seed)
        its, its_labels = _whole(arrays)
        assert torch.equal(mine, its)
        assert torch.equal(my_labels, its_labels)
    part = torch.arange(59, 0, -7)
    assert torch.equal(_whole(images.subset(part, shuffle=False, augment=None))[0],
                       _whole(arrays.subset(part, shuffle=False, augment=None))[0])  # fmt: skip


def test_classes_are_folders_in_order_and_hidden_ones_are_none(folder: Path) -> None:
    (folder / ".cache").mkdir()
    (folder / "cat" / "notes.txt").write_text("no image")
    images = ImageFolder(folder, size=8)
    assert images.classes == CLASSES
    assert images.y.tolist() == [0] * EACH + [1] * EACH + [2] * EACH
    assert [Path(name).parts[0] for name in images.names] == [CLASSES[label] for label in images.y]
    assert images.files == sorted(images.files)


def test_small_images_are_decoded_once_and_large_ones_each_time(
    folder: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    small = ImageFolder(folder, size=8)
    assert not decoded
    assert torch.equal(_whole(small)[0], _whole(small)[0])
    rest = small.subset(range(0, 60, 2), shuffle=True, augment="crop")
    list(rest)
    assert len(decoded) == 60
    decoded.clear()
    monkeypatch.setattr(module, "KEPT_BYTES", 60 * 3 * 8 * 8 - 1)
    large = ImageFolder(folder, size=8)
    list(large)
    list(large)
    assert len(decoded) == 120


def test_the_middle_is_cut_out_as_the_field_does(folder: Path) -> None:
    """Scaling the shorter side to 8 / 0.8 and cutting out 8 in the middle is the same region."""
    images = ImageFolder(folder, size=8, crop=0.8)
    image = Image.open(images.files[0])
    side = 0.8 * 10
    left, top = (12 - side) / 2, (10 - side) / 2
    wanted = image.resize((8, 8), box=(left, top, left + side, top + side))
    x, _ = next(iter(images))
    mine = (255 * x[0]).round().numpy().transpose(1, 2, 0)
    assert abs(mine - np.asarray(wanted, np.float32)).max() <= 1


def test_functions_take_the_place_of_scaling(folder: Path) -> None:
    def plain(image: Image.Image) -> Tensor:
        pixels = np.asarray(image.resize((8, 8)), np.float32).transpose(2, 0, 1)
        return torch.from_numpy(pixels) / 255

    def mirrored(image: Image.Image) -> Image.Image:
        return (
            ImageOps.mirror(image.resize((8, 8))) if torch.rand(()) < 0.5 else image.resize((8, 8))
        )

    given = ImageFolder(folder, transform=plain, augment=mirrored, shuffle=True)
    scaled = _whole(ImageFolder(folder, size=8))[0]
    assert torch.allclose(_whole(given.in_order())[0], scaled)
    torch.manual_seed(0)
    x, _ = _whole(given)
    torch.manual_seed(0)
    assert torch.equal(_whole(given)[0], x)
    assert not torch.equal(_whole(given)[0], x)
    both = {tuple(row) for row in torch.cat([scaled, scaled.flip(3)]).flatten(1).tolist()}
    assert {tuple(row) for row in x.flatten(1).tolist()} <= both
    task, _ = with_validation(_task(given))
    assert isinstance(task.validation, ImageFolder)
    assert torch.equal(_whole(task.validation)[0], _whole(task.validation)[0])


def test_other_processes_decode_the_same(folder: Path, decoded: list[str]) -> None:
    alone, helped = (
        ImageFolder(folder, size=8, augment="crop", batch_size=16, num_workers=number)
        for number in (0, 2)
    )
    torch.manual_seed(0)
    wanted = _whole(alone)[0]
    torch.manual_seed(0)
    assert torch.equal(_whole(helped)[0], wanted)
    assert len(decoded) == 60
    assert pickle.loads(pickle.dumps(helped._decoder())).names == helped.names


def test_a_tenth_is_set_aside_by_class_and_nothing_is_decoded(
    folder: Path, decoded: list[str]
) -> None:
    images = ImageFolder(folder, size=8, augment="crop", shuffle=True)
    task, note = with_validation(_task(images))
    assert note.endswith("6 of 60 training samples were set aside, stratified by class")
    assert not decoded
    train, validation = task.train, task.validation
    assert isinstance(train, ImageFolder)
    assert isinstance(validation, ImageFolder)
    assert (train.shuffle, train.augment) == (True, "crop")
    assert (validation.shuffle, validation.augment) == (False, None)
    assert sorted(train.names + validation.names) == images.names
    assert validation.y.bincount().tolist() == [2, 2, 2]


def test_checks_and_calibration_read_few_images_of_many(
    folder: Path, tmp_path: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "KEPT_BYTES", 0)
    monkeypatch.setattr("penjing.tasks.checks.SAMPLES_CHECKED", 8)
    train = ImageFolder(folder, size=8, batch_size=4)
    test = ImageFolder(_made(tmp_path / "test", seed=1), size=8, batch_size=4)
    said: list[str] = []
    task, _ = check(_task(train, test=test), said.append)
    assert len(decoded) == (4 + 8) + (2 * 4 + 8)
    assert said[-1] == "checking the test data: 8 samples"
    decoded.clear()
    assert require_apart(task) == ()
    assert not decoded
    inputs = list(calibration(task, 10))
    assert len(decoded) == 10
    assert sum(map(len, inputs)) == 10
    labels = torch.cat([y for _, y in first(task.train, 30)])
    assert set(labels.tolist()) == {0, 1, 2}  # though the files are in order of their classes


def test_labels_that_are_known_need_no_image(folder: Path, decoded: list[str]) -> None:
    images = reading(ImageFolder(folder, size=8), "validation")
    right = Means(np.ones(images.batches.samples))  # type: ignore[attr-defined]
    require_better_than_chance("accuracy", right, images)
    with pytest.raises(InputError, match=r"the most common class gives 33\.3%"):
        require_better_than_chance("accuracy", Means(np.arange(60) % 3 == 0), images)
    assert not decoded


def test_files_in_two_splits_are_refused_or_told(folder: Path, tmp_path: Path) -> None:
    train = ImageFolder(folder, size=8)
    other = _made(tmp_path / "other", seed=1)
    for number, copies in [(2, 6), (EACH, 60)]:
        for name in CLASSES:
            for place in range(number):
                source = folder / name / ("more" if place % 2 else "") / f"{place}.png"
                shutil.copy(source, other / name / f"copy{place}.png")
                (other / name / f"{place}.png").unlink(missing_ok=True)
        judge = ImageFolder(other, size=8)
        task = _task(train, test=judge)
        share = copies / judge.samples
        if share > 0.5:
            with pytest.raises(InputError, match="the test data is training data"):
                require_apart(task)
        else:
            assert require_apart(task) == (
                f"{share:.0%} of the test data is also in the training data",
            )
    with pytest.raises(InputError, match="the test data is training data: 100%"):
        require_apart(_task(train, test=ImageFolder(folder, size=8)))
    in_memory = _in_memory(train)
    with pytest.raises(InputError, match="the test data is training data: 100%"):
        require_apart(_task(reading(train, "training"), test=in_memory))


def test_the_whole_task_of_folders_is_taken(folder: Path, tmp_path: Path) -> None:
    test = ImageFolder(_made(tmp_path / "test", seed=1), size=8)
    task, _, notes = prepare(_task(ImageFolder(folder, size=8), test=test), Budget(1.0))
    assert [note for note in notes if "set aside" in note]
    x, _ = next(iter(task.train))
    assert (x.shape[1:], x.dtype) == ((3, 8, 8), torch.float32)


def test_a_fit_of_other_files_is_another_one(folder: Path) -> None:
    network: Any = nn.Sequential(nn.Linear(2, 2))
    network.graph = "the same"

    def hashed(**options: Any) -> str:
        return identity(_task(ImageFolder(folder, size=8, **options)), network)["training data"]

    before = hashed()
    assert hashed() == before
    assert len({before, hashed(shuffle=True), hashed(augment="crop"), hashed(crop=0.5)}) == 4
    (folder / "cat" / "0.png").rename(folder / "cat" / "99.png")
    assert hashed() != before


def _empty(root: Path) -> None:
    (root / "cat" / "0.png").write_bytes(b"")


def _cut_short(root: Path) -> None:
    file = root / "cat" / "0.png"
    file.write_bytes(file.read_bytes()[:-40])


def _larger(root: Path) -> None:
    Image.new("RGB", (20, 20)).save(root / "cat" / "0.png")


def _gone(root: Path) -> None:
    (root / "cat" / "0.png").unlink()


@pytest.mark.parametrize(
    ("damage", "line"),
    [
        (_empty, r"image .*cat/0\.png can't be read: UnidentifiedImageError: .*; replace it or re"),
        (
            _cut_short,
            r"image .*cat/0\.png can't be read: OSError: .*truncated.*; replace it or rem",
        ),
        (
            _gone,
            r"image .*cat/0\.png can't be read: FileNotFoundError: .*; replace it or remove it",
        ),
        (
            _larger,
            r"image .*cat/0\.png has \(height, width\) \(20, 20\), but .* has \(10, 12\); pas",
        ),
    ],
)
def test_a_damaged_image_is_one_line(
    folder: Path, damage: Callable[[Path], None], line: str
) -> None:
    images = ImageFolder(folder)
    damage(folder)
    with pytest.raises(InputError, match=line) as raised:
        list(reading(images, "training"))
    assert "\n" not in str(raised.value)


def test_a_damaged_image_in_another_process_is_the_same_line(folder: Path) -> None:
    """As a `DataLoader` raises what its processes have met: all of the traceback in one message."""
    _cut_short(folder)

    class Loader:
        def __iter__(self) -> Iterator[Any]:
            try:
                return iter(list(ImageFolder(folder)))
            except InputError:
                wrapped: Any = ExceptionWrapper
                wrapped(where="in DataLoader worker process 0").reraise()
                raise

    with pytest.raises(InputError, match=r"^image .*cat/0\.png can't be read: OSError: [^\n]*it$"):
        list(reading(Loader(), "training"))


def test_functions_that_fail_are_named_with_the_image(folder: Path) -> None:
    def broken(image: Image.Image) -> Any:
        raise ValueError("no such size")

    functions: list[tuple[Any, str]] = [
        (broken, r"broken raised ValueError: no such size for image .*bird/0\.png; it is called"),
        (np.asarray, r"asarray returned a ndarray of shape \(10, 12, 3\) for image .*; wanted"),
        (lambda image: None, r"<lambda> returned a NoneType for image .*bird/0\.png; wanted an"),
    ]
    for given, line in functions:
        with pytest.raises(InputError, match=line):
            list(ImageFolder(folder, transform=given))


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"augment": "flip"}, r"augment must be 'crop', 'flip-crop', a function .* found 'flip'"),
        ({"size": 0}, r"size must be \(height, width\) in pixels, or one number; found 0"),
        ({"size": (8, 8, 3)}, r"size must be .*; found \(8, 8, 3\)"),
        ({"size": 8, "crop": 1.5}, r"crop must be a share .* found crop=1.5 and size=8"),
        ({"crop": 0.9}, r"and needs a size; found crop=0.9 and size=None"),
        ({"transform": 3}, "transform must be a function of an image; found 3"),
        ({"transform": np.asarray, "size": 8}, "size and transform both scale the images"),
        ({"batch_size": 0}, "batch_size must be 1 or more; found 0"),
        ({"num_workers": -1}, "num_workers must be 0 or more; found -1"),
    ],
)
def test_options_out_of_range(folder: Path, options: dict[str, Any], line: str) -> None:
    with pytest.raises(InputError, match=line):
        ImageFolder(folder, **options)


def test_folders_that_hold_no_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere is no folder; wanted one folder per class"):
        ImageFolder(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no class folders; wanted one folder per class"):
        ImageFolder(tmp_path)
    (tmp_path / "cat").mkdir()
    with pytest.raises(InputError, match="hold no images; wanted one folder per class"):
        ImageFolder(tmp_path)


def test_two_splits_number_their_classes_alike(folder: Path, tmp_path: Path) -> None:
    train = ImageFolder(folder, size=8)
    two = ImageFolder(_made(tmp_path / "two", classes=("bird", "dog"), each=2), size=8)
    line = (
        r"the training data has a folder of the class 'cat', and the test data has none, so the "
        r"two number their classes differently; make an empty folder .*two/cat"
    )
    with pytest.raises(InputError, match=line):
        check(_task(train, test=two))
    (tmp_path / "two" / "cat").mkdir()
    task, _ = check(_task(train, test=ImageFolder(tmp_path / "two", size=8)))
    assert _whole(task.test)[1].tolist() == [0, 0, 2, 2]
