"""Data: arrays, image folders and .npz files as batches; splits; checks before any long work."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from penjing.errors import InputError
from penjing.task import Batches, Inputs, Task, as_call

IMAGE_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


class Arrays:
    """Samples in memory, given out in batches; may be iterated again and again.

    Args:
        x: inputs, N x ...; an array or tensor, or a tuple or dict of them; uint8 is divided by 255.
        y: integer targets, N.
        batch_size: samples a batch; a last batch of one joins the batch before it.
        mean, std: one figure per channel of N x C x H x W inputs, applied batch by batch.
        augment: `"flip-crop"` (mirror, and shift by up to 4 pixels), `"crop"`, or None.
        shuffle: a new order at each pass. Order and augmentation are drawn from torch's own random
            state, as in a `DataLoader`.

    >>> batches = Arrays(np.zeros((5, 2), np.float32), np.arange(5), batch_size=2)
    >>> [len(targets) for _, targets in batches]
    [2, 3]
    """

    def __init__(
        self,
        x: Any,
        y: Any,
        *,
        batch_size: int = 128,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        augment: str | None = None,
        shuffle: bool = False,
    ) -> None:
        if augment not in (None, "crop", "flip-crop"):
            raise InputError(f"augment must be 'crop', 'flip-crop' or None; found {augment!r}")
        self.x = torch.utils._pytree.tree_map(torch.as_tensor, x)
        self.y = torch.as_tensor(y)
        lengths = {len(one) for one in torch.utils._pytree.tree_leaves(self.x)} | {len(self.y)}
        if len(lengths) != 1:
            raise InputError(f"inputs and targets differ in number: {sorted(lengths)}")
        self.batch_size, self.mean, self.std = batch_size, mean, std
        self.augment, self.shuffle = augment, shuffle

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.y)

    def subset(self, index: Any, **changes: Any) -> Arrays:
        """The samples at `index`, with any of the constructor's options changed."""
        where = torch.as_tensor(index)
        options = {
            name: getattr(self, name)
            for name in ("batch_size", "mean", "std", "augment", "shuffle")
        }
        x = torch.utils._pytree.tree_map(lambda one: one[where], self.x)
        return Arrays(x, self.y[where], **options | changes)

    def __len__(self) -> int:
        return max(1, self.samples // self.batch_size) if self.samples else 0

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        random = self.shuffle or self.augment
        draw = torch.Generator().manual_seed(int(torch.randint(2**31, ())) if random else 0)
        order = (
            torch.randperm(self.samples, generator=draw)
            if self.shuffle
            else torch.arange(self.samples)
        )
        starts = list(range(0, self.samples, self.batch_size))
        if len(starts) > 1 and self.samples - starts[-1] == 1:
            starts.pop()  # batch norm can't learn from one sample
        for start, end in zip(starts, [*starts[1:], self.samples], strict=True):
            where = order[start:end]
            x = torch.utils._pytree.tree_map(lambda one, w=where: self._ready(one[w], draw), self.x)
            yield x, self.y[where]

    def _ready(self, x: Tensor, draw: torch.Generator) -> Tensor:
        if x.dtype is torch.uint8:
            x = x.float() / 255
        if self.mean is not None and self.std is not None:
            shape = (1, -1, *[1] * (x.dim() - 2))
            x = (x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        if self.augment and x.dim() == 4:
            x = _shifted(x, draw, mirror=self.augment == "flip-crop")
        return x


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
    classes = sorted(one for one in root.glob("*") if one.is_dir())
    if not classes:
        raise InputError(f"{root} holds no class folders; wanted {root}/CLASS/IMAGE.png")
    images, labels = [], []
    for label, folder in enumerate(classes):
        for file in sorted(one for one in folder.iterdir() if one.suffix.lower() in IMAGE_ENDINGS):
            try:
                with Image.open(file) as image:
                    colour = image.convert("RGB")
                    scaled = colour.resize(size[::-1]) if size else colour
                    images.append(np.asarray(scaled).transpose(2, 0, 1))
            except (OSError, UnidentifiedImageError) as error:
                raise InputError(f"image {file} can't be read: {error}; remove it") from error
            labels.append(label)
    shapes = {one.shape for one in images}
    if len(shapes) != 1:
        raise InputError(f"{root} holds images of sizes {sorted(shapes)[:3]}; give size=(H, W)")
    return Arrays(np.stack(images), np.array(labels), **options)


def in_memory(batches: Batches, what: str) -> Arrays:
    """The samples of any iterable of batches, gathered."""
    if isinstance(batches, Arrays):
        return batches
    pairs = [(inputs, targets) for inputs, targets in batches]
    if not pairs:
        raise InputError(f"the {what} data is empty")
    pairs = [(tuple(x) if isinstance(x, list) else x, y) for x, y in pairs]
    x = torch.utils._pytree.tree_map(lambda *parts: torch.cat(parts), *(x for x, _ in pairs))
    return Arrays(x, torch.cat([y for _, y in pairs]), batch_size=len(pairs[0][1]))


def with_validation(task: Task, share: float = 0.1, seed: int = 0) -> tuple[Task, str]:
    """The task with validation data, and a note if it had to be cut from the training data.

    A tenth of each class is set aside, the same for the same seed; it is never augmented.
    """
    if task.validation is not None:
        return task, ""
    whole = in_memory(task.train, "training")
    draw = np.random.default_rng(seed)
    aside = np.zeros(whole.samples, bool)
    for label in np.unique(whole.y.numpy()):
        index = np.flatnonzero(whole.y.numpy() == label)
        aside[draw.permutation(index)[: max(1, round(share * len(index)))]] = True
    shuffle = True if not isinstance(task.train, Arrays) else whole.shuffle
    train = whole.subset(np.flatnonzero(~aside), shuffle=shuffle)
    validation = whole.subset(np.flatnonzero(aside), shuffle=False, augment=None)
    note = (
        f"no validation data was given: {aside.sum()} of {whole.samples} training samples were "
        "set aside, stratified by class"
    )
    return dataclasses.replace(task, train=train, validation=validation), note


def first(batches: Batches, samples: int) -> list[tuple[Inputs, Tensor]]:
    """Batches from the start until `samples` are reached; in-memory data is drawn across classes
    and not augmented."""
    if isinstance(batches, Arrays):
        index = np.random.default_rng(0).permutation(batches.samples)[:samples]
        return list(batches.subset(index, augment=None, shuffle=False, batch_size=64))
    found, seen = [], 0
    for inputs, targets in batches:
        found.append((inputs, targets))
        seen += len(targets)
        if seen >= samples:
            break
    return found


def calibration(task: Task, samples: int) -> Iterator[Inputs]:
    """Training inputs without their labels, batch by batch, until `samples` are reached.

    Raises:
        InputError: their shape isn't the example's, they hold NaN or infinite values, or there are
            fewer than two.
    """
    wanted = [tuple(one.shape[1:]) for one in torch.utils._pytree.tree_leaves(task.example)]
    seen = 0
    for inputs, targets in first(task.train, samples):
        check_batch("calibration", inputs, targets, wanted)
        seen += len(targets)
        yield inputs
    if seen < 2:
        raise InputError(
            f"the calibration data has {seen} sample(s); give 2 or more, 500 or so as a rule"
        )


def number_of_batches(batches: Batches) -> int:
    """How many batches one pass gives; counted where the data doesn't know its length."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return sum(1 for _ in batches)


def require_repeatable(batches: Batches, name: str) -> tuple[Inputs, Tensor]:
    """The first batch, once it is sure that the data isn't empty and can be iterated again.

    Raises:
        InputError: neither, or a generator, naming the split.
    """
    try:
        begun = iter(batches)
    except TypeError as error:
        raise InputError(f"the {name} data can't be iterated: {error}") from error
    if begun is batches:
        raise InputError(f"the {name} data is a generator, gone after one pass; give a list")
    first_batch = next(begun, None)
    if first_batch is None or len(first_batch[1]) == 0:
        raise InputError(f"the {name} data is empty; give at least one batch")
    return first_batch


def check(task: Task) -> None:
    """Look at the first batch of each split, and at all labels in memory, before any long work.

    Raises:
        InputError: the first thing found wrong, naming the split.
    """
    outputs = _outputs(task)
    wanted = [tuple(one.shape[1:]) for one in torch.utils._pytree.tree_leaves(task.example)]
    splits = {"training": task.train, "validation": task.validation, "test": task.test}
    for name, batches in splits.items():
        if batches is None:
            continue
        found = require_repeatable(batches, name)
        check_batch(name, found[0], found[1], wanted)
        labels = batches.y if isinstance(batches, Arrays) else found[1]
        if outputs and not labels.is_floating_point() and labels.dim() == 1:
            low, high = int(labels.min()), int(labels.max())
            if low < 0 or high >= outputs:
                raise InputError(
                    f"the {name} labels run from {low} to {high}, but the model has {outputs} "
                    f"outputs (0..{outputs - 1}); fix the labels or the model"
                )


def check_batch(name: str, inputs: Inputs, targets: Tensor, wanted: list[Any]) -> None:
    """Raise InputError unless the batch's samples have the `wanted` shapes and can be used."""
    for x, shape in zip(torch.utils._pytree.tree_leaves(inputs), wanted, strict=False):
        found = tuple(x.shape[1:])
        if found != shape:
            hint = "scale or crop the images"
            if len(shape) == 3 and found == (*shape[1:], shape[0]):
                hint = "these are NHWC; permute(0, 3, 1, 2) makes them NCHW"
            raise InputError(
                f"the {name} data has samples of shape {found}, the example has {shape}; {hint}"
            )
        if x.dtype is torch.uint8:
            raise InputError(f"the {name} data is uint8; divide by 255 and normalise")
        if x.is_floating_point() and not bool(torch.isfinite(x).all()):
            raise InputError(f"the {name} data holds NaN or infinite values in its first batch")
        if len(x) != len(targets):
            raise InputError(f"the {name} data has {len(x)} inputs but {len(targets)} targets")


def _outputs(task: Task) -> int:
    """How many scores the model gives for a sample; 0 if it gives no table of scores."""
    modes = {module: module.training for module in task.model.modules()}
    args, kwargs = as_call(task.example)
    try:
        task.model.eval()
        with torch.no_grad():
            outputs = task.model(*args, **kwargs)
    except Exception as error:
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(f"the model can't run its example inputs: {line[:300]}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    leaves = torch.utils._pytree.tree_leaves(outputs)
    if not leaves or not isinstance(leaves[0], Tensor):
        raise InputError(f"the model returns {type(outputs).__name__}; wanted tensors")
    return int(leaves[0].shape[1]) if leaves[0].dim() == 2 else 0
