"""Data: arrays and .npz files as batches, and a few samples of any data."""

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
from penjing.tasks.reading.indexed import NAMED, Indexed, require_batch_size
from penjing.tasks.reading.loaders import drawn_from
from penjing.tasks.targets import Targets, as_targets, picked, samples_in
from penjing.tasks.task import Batches, Inputs, Task

NARROW = (torch.uint8, torch.int8, torch.int16, torch.int32)


@dataclass(eq=False, repr=False)
class Arrays(Indexed):
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
        if self.augment not in (None, *NAMED):
            raise InputError(f"augment must be 'crop', 'flip-crop' or None; found {self.augment!r}")
        require_batch_size(self.batch_size)
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

    def _batches(self, places: Sequence[Tensor], draw: torch.Generator) -> Iterator[Inputs]:
        for where in places:
            yield torch.utils._pytree.tree_map(
                lambda tensor, w=where: self._ready(tensor[w], draw), self.x
            )


def _targets(given: Any, samples: int) -> Targets:
    """Targets as they are served; lists of numbers are one tensor."""
    if isinstance(given, list | tuple):
        with contextlib.suppress(TypeError, ValueError, RuntimeError):  # not numbers alone
            given = torch.as_tensor(given)
    given = as_targets(given, samples, "targets")
    narrow = isinstance(given, Tensor) and given.dim() == 1 and given.dtype in NARROW
    return given.long() if narrow else given  # as losses want classes


OPTIONS = tuple(field.name for field in fields(Arrays) if field.kw_only)


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


def drawn(batches: Batches, samples: int) -> Iterator[tuple[Inputs, Tensor]]:
    """Batches of a few samples, read one after the other, until `samples` are reached.

    Where samples can be read in any order (see `penjing.tasks.reading.loaders.drawn_from`), random
    ones are drawn, each time the same, and no others are read. Of other data they are the first
    ones.
    """
    some, seen = drawn_from(batches, samples), 0
    for inputs, targets in reading(batches if some is None else some, "given"):
        yield inputs, targets
        seen += samples_in(targets)
        if seen >= samples:
            break


def first(batches: Batches, samples: int) -> list[tuple[Inputs, Tensor]]:
    """The batches of `drawn`, in memory."""
    return list(drawn(batches, samples))


def calibration(task: Task, samples: int) -> Iterator[Inputs]:
    """Training inputs for calibration, batch by batch, until `samples` are reached.

    They are read one batch after the other, see `drawn`.

    Raises:
        InputError: their shape isn't the example's, they contain NaN or infinite values, or there
            are fewer than two.
    """
    wanted, seen = Wanted(task.example), 0
    for number, (inputs, targets) in enumerate(drawn(task.train, samples), start=1):
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
