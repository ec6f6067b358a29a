"""Data: arrays, image folders and .npz files as batches, and the first samples of any data."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import InputError
from penjing.tasks.batches import Wanted, reading
from penjing.tasks.targets import Targets, as_targets, picked, samples_in
from penjing.tasks.task import Batches, Inputs, Task

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(eq=False, repr=False)
class Arrays:
    """Samples in memory, served in batches of (inputs, targets). Can be iterated many times.

    Args:
        x: inputs of shape (N, ...): an array or tensor, or a tuple or dict of them. uint8 is
            divided by 255, and float64 is converted to float32.
        y: targets of shape (N, ...): integer classes, or whatever the loss takes. Also a tuple or a
            dict of them, or a list with something for each sample, see `penjing.tasks.targets`.
        batch_size: samples per batch. A last batch of one sample joins the batch before it.
        mean, std: one number per channel of (N, C, H, W) inputs, to normalize each batch with.
        augment: `"flip-crop"` (flip horizontally and shift by up to 4 pixels), `"crop"` (shift
            only), or None.
        shuffle: whether each pass has a new order. Order and augmentation are drawn from torch's
            global random state, as in a `DataLoader`.

    Raises:
        InputError: an option is out of range, or `x` and `y` differ in length.

    >>> batches = Arrays(np.zeros((5, 2), np.float32), np.arange(5), batch_size=2)
    >>> len(batches), [len(targets) for _, targets in batches]
    (2, [2, 3])
    """

    x: Any
    y: Any
    _: KW_ONLY
    batch_size: int = 128
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None
    augment: str | None = None
    shuffle: bool = False

    def __post_init__(self) -> None:
        if self.augment not in (None, "crop", "flip-crop"):
            raise InputError(f"augment must be 'crop', 'flip-crop' or None; found {self.augment!r}")
        if self.batch_size < 1:
            raise InputError(f"batch_size must be 1 or more; found {self.batch_size}")
        self.x = torch.utils._pytree.tree_map(torch.as_tensor, self.x)
        both = torch.utils._pytree.tree_leaves(self.x)
        self.y = _targets(self.y, len(both[0]) if both and both[0].dim() else 0)
        both = [*both, *([] if isinstance(self.y, list) else pytree.tree_leaves(self.y))]
        if not all(tensor.dim() for tensor in both):
            raise InputError(
                "inputs and targets must have the samples as their first dimension; found a single "
                "number"
            )
        lengths = {len(tensor) for tensor in both} | {samples_in(self.y)}
        if len(lengths) != 1:
            raise InputError(
                f"inputs and targets differ in length: found {sorted(lengths)}; give one target "
                "per sample"
            )

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return samples_in(self.y)

    def subset(self, index: Any, **changes: Any) -> Arrays:
        """The samples at `index`. Keyword arguments change options of the constructor."""
        where = torch.as_tensor(index)
        x = torch.utils._pytree.tree_map(lambda tensor: tensor[where], self.x)
        options = {name: getattr(self, name) for name in OPTIONS}
        return Arrays(x, picked(self.y, where), **options | changes)

    def in_order(self) -> Arrays:
        """The same samples without shuffling or augmentation. The data isn't copied."""
        still = copy.copy(self)
        still.shuffle, still.augment = False, None
        return still

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[tuple[Inputs, Targets]]:
        random = self.shuffle or self.augment
        draw = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if random else 0)
        order = (
            torch.randperm(self.samples, generator=draw)
            if self.shuffle
            else torch.arange(self.samples)
        )
        starts = self._starts()
        ends = (*starts[1:], self.samples) if starts else ()
        for start, end in zip(starts, ends, strict=True):
            where = order[start:end]
            x = torch.utils._pytree.tree_map(
                lambda tensor, w=where: self._ready(tensor[w], draw), self.x
            )
            yield x, picked(self.y, where)

    def _starts(self) -> range:
        """The position at which each batch starts."""
        starts = range(0, self.samples, self.batch_size)
        alone = len(starts) > 1 and self.samples - starts[-1] == 1
        return starts[:-1] if alone else starts  # batch normalization can't train on one sample

    def _ready(self, x: Tensor, draw: torch.Generator) -> Tensor:
        if x.dtype is torch.uint8:
            x = x.float() / 255
        elif x.dtype is torch.float64:
            x = x.float()
        if self.mean is not None and self.std is not None:
            shape = (1, -1, *[1] * (x.dim() - 2))
            x = (x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        if self.augment and x.dim() == 4:
            x = _shifted(x, draw, mirror=self.augment == "flip-crop")
        return x


def _targets(given: Any, samples: int) -> Targets:
    """Targets as they are served; lists of numbers are one tensor."""
    if isinstance(given, list | tuple):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # not numbers alone
            given = torch.as_tensor(given)
    given = as_targets(given, samples, "targets")
    narrow = isinstance(given, Tensor) and given.dim() == 1 and given.dtype in NARROW
    return given.long() if narrow else given  # as losses want classes


OPTIONS = tuple(field.name for field in fields(Arrays) if field.kw_only)


def _shifted(x: Tensor, draw: torch.Generator, mirror: bool, by: int = 4) -> Tensor:
    """Shift each image by up to `by` pixels, pad with zeros, and flip half of them if `mirror`."""
    n, _, height, width = x.shape
    top = torch.randint(0, 2 * by + 1, (n, 1), generator=draw)
    left = torch.randint(0, 2 * by + 1, (n, 1), generator=draw)
    columns = torch.arange(width).expand(n, -1)
    if mirror:
        flip = torch.rand(n, 1, generator=draw) < 0.5
        columns = torch.where(flip, width - 1 - columns, columns)
    rows, columns = top + torch.arange(height), left + columns
    padded = torch.nn.functional.pad(x, (by, by, by, by)).permute(0, 2, 3, 1)
    sample = torch.arange(n)[:, None, None]
    return padded[sample, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def npz(path: Path | str, x: str = "x", y: str = "y", **options: Any) -> Arrays:
    """Read inputs and targets from an .npz file.

    >>> import penjing, tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     np.savez(f"{folder}/train.npz", x=np.zeros((5, 3)), y=np.arange(5))
    ...     penjing.npz(f"{folder}/train.npz", batch_size=4).samples
    5

    Args:
        path: the file.
        x: the name of the array that holds the inputs.
        y: the name of the array that holds the targets.
        options: the options of `Arrays`, such as `batch_size`.

    Raises:
        InputError: the file or an array doesn't exist, or an array holds Python objects, which
            penjing never unpickles.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {x, y} - set(file.files)
            if missing:
                raise InputError(
                    f"{path} has no array named {missing.pop()!r}; it has {', '.join(file.files)}"
                )
            return Arrays(file[x], file[y], **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as .npz: {error}") from error


def image_folder(path: Path | str, size: tuple[int, int] | None = None, **options: Any) -> Arrays:
    """Read images from one folder per class, as uint8 of shape (N, 3, H, W).

    The classes are numbered in the order of their folders' names.

    >>> import penjing, tempfile
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("cat", "dog"):
    ...         Path(folder, name).mkdir()
    ...         Image.new("RGB", (8, 6)).save(f"{folder}/{name}/0.png")
    ...     images = penjing.image_folder(folder)
    >>> images.x.shape, images.y
    (torch.Size([2, 3, 6, 8]), tensor([0, 1]))

    Args:
        path: the folder that holds the folders of classes.
        size: (height, width) to which every image is scaled. None expects images of one size.
        options: the options of `Arrays`, such as `batch_size`.

    Raises:
        InputError: there are no classes or images, an image can't be read, or the sizes differ.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(path)
    classes = sorted(entry for entry in root.glob("*") if entry.is_dir())
    if not classes:
        raise InputError(
            f"{root} has no class folders; wanted one folder per class: {root}/CLASS/IMAGE.png"
        )
    images, labels = [], []
    for label, folder in enumerate(classes):
        files = [file for file in folder.iterdir() if file.suffix.lower() in IMAGE_ENDINGS]
        for file in sorted(files):
            try:
                with Image.open(file) as image:
                    colour = image.convert("RGB")
                    scaled = colour.resize(size[::-1]) if size else colour
                    images.append(np.asarray(scaled).transpose(2, 0, 1))
            except (OSError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                raise InputError(
                    f"image {file} can't be read: {error}; replace it or remove it"
                ) from error
            labels.append(label)
    shapes = {image.shape for image in images}
    if not images:
        raise InputError(
            f"the class folders in {root} hold no images; wanted {root}/CLASS/IMAGE.png"
        )
    if len(shapes) != 1:
        sizes = ", ".join(str(shape[1:]) for shape in sorted(shapes)[:3])
        raise InputError(
            f"the images in {root} differ in (height, width): found {sizes}; pass "
            "size=(height, width) to scale them"
        )
    return Arrays(np.stack(images), np.array(labels), **options)


def first(batches: Batches, samples: int) -> list[tuple[Inputs, Targets]]:
    """Batches that hold the first samples, until `samples` are reached.

    Of data in memory, random samples are drawn instead, without augmentation.
    """
    if isinstance(batches, Arrays):
        index = np.random.default_rng(0).permutation(batches.samples)[:samples]
        return list(batches.subset(index, augment=None, shuffle=False, batch_size=64))
    taken, seen = [], 0
    for inputs, targets in reading(batches, "given"):
        taken.append((inputs, targets))
        seen += samples_in(targets)
        if seen >= samples:
            break
    return taken


def calibration(task: Task, samples: int) -> Iterator[Inputs]:
    """Training inputs for calibration, batch by batch, until `samples` are reached.

    Raises:
        InputError: their shape isn't the example's, they contain NaN or infinite values, or there
            are fewer than two.
    """
    wanted, seen = Wanted(task.example), 0
    for number, (inputs, targets) in enumerate(first(task.train, samples), start=1):
        where = "its first batch" if number == 1 else f"batch {number}"
        wanted.check("calibration", inputs, targets, where)
        seen += samples_in(targets)
        yield inputs
    if seen < 2:
        raise InputError(
            f"the calibration data has {seen} sample(s); give at least 2 (about 500 are usual)"
        )


def cut(inputs: Any, samples: int) -> Any:
    """The first samples of a batch's inputs, in the same structure."""
    return torch.utils._pytree.tree_map(lambda x: x[:samples], inputs)
