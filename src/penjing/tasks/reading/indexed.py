"""Indexed: data whose samples can be read in any order, in batches of (inputs, targets)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from penjing.errors import InputError
from penjing.tasks.targets import Targets, picked, samples_in
from penjing.tasks.task import Inputs

NAMED = ("crop", "flip-crop")
"""The augmentations that need no function."""


class Indexed(ABC):
    """Samples that can be read in any order, served in batches. Can be iterated many times.

    Attributes:
        y: the targets of all samples, which are known without reading the inputs.
        batch_size: samples per batch. A last batch of one sample joins the batch before it.
        mean, std: one number per channel of (N, C, H, W) inputs, to normalize each batch with.
        augment: the augmentation.
        shuffle: whether each pass has a new order.
    """

    y: Targets
    batch_size: int
    mean: Sequence[float] | None
    std: Sequence[float] | None
    augment: str | Callable[[Any], Any] | None
    shuffle: bool

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return samples_in(self.y)

    @abstractmethod
    def subset(self, index: Any, **changes: Any) -> Self:
        """The samples at `index`. Keyword arguments change options of the constructor."""

    @abstractmethod
    def in_order(self) -> Self:
        """The same samples without shuffling or augmentation. The data isn't copied."""

    @abstractmethod
    def _batches(self, places: Sequence[Tensor], draw: torch.Generator) -> Iterator[Inputs]:
        """The inputs of each batch.

        Args:
            places: of each batch, which samples it holds.
            draw: what augmentations are drawn from.
        """

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
        places = [order[start:end] for start, end in zip(starts, ends, strict=True)]
        for where, inputs in zip(places, self._batches(places, draw), strict=True):
            yield inputs, picked(self.y, where)

    def _starts(self) -> range:
        """The position at which each batch starts."""
        starts = range(0, self.samples, self.batch_size)
        alone = len(starts) > 1 and self.samples - starts[-1] == 1
        return starts[:-1] if alone else starts  # batch normalization can't train on one sample

    def _ready(self, x: Tensor, draw: torch.Generator) -> Tensor:
        """A batch as the model takes it: numbers of float32, normalized, and shifted if wanted."""
        if x.dtype is torch.uint8:
            x = x.float() / 255
        elif x.dtype is torch.float64:
            x = x.float()
        if self.mean is not None and self.std is not None:
            shape = (1, -1, *[1] * (x.dim() - 2))
            x = (x - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        if self.augment in NAMED and x.dim() == 4:
            x = _shifted(x, draw, mirror=self.augment == "flip-crop")
        return x


def require_batch_size(batch_size: int) -> None:
    """Raise InputError for a batch of no samples."""
    if batch_size < 1:
        raise InputError(f"batch_size must be 1 or more; found {batch_size}")


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
