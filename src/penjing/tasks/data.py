"""Data: arrays, image folders and .npz files as batches; and the first samples of any data."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.errors import InputError
from penjing.tasks.batches import Wanted, reading
from penjing.tasks.task import Batches, Inputs, Task

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")
NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(eq=False, repr=False)
class Arrays:
    """Samples in memory, given out in batches; may be iterated again and again.

    Args:
        x: inputs, N x ...; an array or tensor, or a tuple or dict of them; uint8 is divided by 255,
            float64 is given out as float32.
        y: targets: classes (integers, N), or whatever the loss takes, N x ...
        batch_size: samples a batch; a last batch of one joins the batch before it.
        mean, std: one figure per channel of N x C x H x W inputs, applied batch by batch.
        augment: `"flip-crop"` (mirror, and shift by up to 4 pixels), `"crop"`, or None.
        shuffle: a new order at each pass. Order and augmentation are drawn from torch's own random
            state, as in a `DataLoader`.

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
        self.y = torch.as_tensor(self.y)
        if self.y.dim() == 1 and self.y.dtype in NARROW:
            self.y = self.y.long()  # as losses want classes
        both = [*torch.utils._pytree.tree_leaves(self.x), self.y]
        if not all(tensor.dim() for tensor in both):
            raise InputError("inputs and targets must have the samples first; one is a number")
        lengths = {len(tensor) for tensor in both}
        if len(lengths) != 1:
            raise InputError(f"inputs and targets differ in number: {sorted(lengths)}")

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.y)

    def subset(self, index: Any, **changes: Any) -> Arrays:
        """The samples at `index`, with any of the constructor's options changed."""
        where = torch.as_tensor(index)
        x = torch.utils._pytree.tree_map(lambda tensor: tensor[where], self.x)
        options = {name: getattr(self, name) for name in OPTIONS}
        return Arrays(x, self.y[where], **options | changes)

    def in_order(self) -> Arrays:
        """The same samples, neither shuffled nor augmented; nothing is copied."""
        still = copy.copy(self)
        still.shuffle, still.augment = False, None
        return still

    def __len__(self) -> int:
        return len(self._starts())

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
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
            yield x, self.y[where]

    def _starts(self) -> range:
        """Where each batch starts."""
        starts = range(0, self.samples, self.batch_size)
        alone = len(starts) > 1 and self.samples - starts[-1] == 1
        return starts[:-1] if alone else starts  # batch norm can't learn from one sample

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


OPTIONS = tuple(field.name for field in fields(Arrays) if field.kw_only)


def _shifted(x: Tensor, draw: torch.Generator, mirror: bool, by: int = 4) -> Tensor:
    """Each image moved by up to `by` pixels each way, zeros coming in, and perhaps mirrored."""
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
    """The arrays named `x` and `y` of an .npz file; `options` as for `Arrays`.

    Raises:
        InputError: no such file or array, or an array of Python objects (never unpickled).
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            missing = {x, y} - set(file.files)
            if missing:
                raise InputError(f"{path} has no array {missing.pop()!r}; there are {file.files}")
            return Arrays(file[x], file[y], **options)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} can't be read as .npz: {error}") from error


def image_folder(path: Path | str, size: tuple[int, int] | None = None, **options: Any) -> Arrays:
    """Images in one folder per class, classes in the order of their names, as uint8 N x 3 x H x W.

    Args:
        size: (height, width) to scale every image to; None wants them all alike.
        options: as for `Arrays`.

    Raises:
        InputError: no classes, an image that can't be read, or sizes that differ.
    """
    from PIL import Image, UnidentifiedImageError

    root = Path(path)
    classes = sorted(entry for entry in root.glob("*") if entry.is_dir())
    if not classes:
        raise InputError(f"{root} holds no class folders; wanted {root}/CLASS/IMAGE.png")
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
                raise InputError(f"image {file} can't be read: {error}; remove it") from error
            labels.append(label)
    shapes = {image.shape for image in images}
    if not images:
        raise InputError(f"the class folders of {root} hold no images; wanted CLASS/IMAGE.png")
    if len(shapes) != 1:
        raise InputError(f"{root} holds images of sizes {sorted(shapes)[:3]}; give size=(H, W)")
    return Arrays(np.stack(images), np.array(labels), **options)


def first(batches: Batches, samples: int) -> list[tuple[Inputs, Tensor]]:
    """Batches from the start until `samples` are reached; in-memory data is drawn across classes
    and not augmented."""
    if isinstance(batches, Arrays):
        index = np.random.default_rng(0).permutation(batches.samples)[:samples]
        return list(batches.subset(index, augment=None, shuffle=False, batch_size=64))
    taken, seen = [], 0
    for inputs, targets in reading(batches, "given"):
        taken.append((inputs, targets))
        seen += len(targets)
        if seen >= samples:
            break
    return taken


def calibration(task: Task, samples: int) -> Iterator[Inputs]:
    """Training inputs without their labels, batch by batch, until `samples` are reached.

    Raises:
        InputError: their shape isn't the example's, they hold NaN or infinite values, or there are
            fewer than two.
    """
    wanted, seen = Wanted(task.example), 0
    for number, (inputs, targets) in enumerate(first(task.train, samples), start=1):
        where = "its first batch" if number == 1 else f"batch {number}"
        wanted.check("calibration", inputs, targets, where)
        seen += len(targets)
        yield inputs
    if seen < 2:
        raise InputError(
            f"the calibration data has {seen} sample(s); give 2 or more, 500 or so as a rule"
        )


def cut(inputs: Any, samples: int) -> Any:
    """The first so many samples of a batch's inputs, in the same structure."""
    return torch.utils._pytree.tree_map(lambda x: x[:samples], inputs)
