"""Loaders: parts of a `DataLoader` by index, and samples drawn without reading all of the data."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from penjing.tasks.batches import Reading, reading
from penjing.tasks.reading.draws import go_on_from, same_draws, states
from penjing.tasks.reading.indexed import Indexed
from penjing.tasks.task import Batches, Inputs

DRAWN_AT_ONCE = 64
"""Samples in a batch of `Indexed` data that were drawn at random."""


def has_index(batches: Batches) -> bool:
    """Whether this is a `DataLoader` whose dataset gives any of its samples."""
    return isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset)


def is_plain(loader: DataLoader[Any]) -> bool:
    """Whether it reads each sample of its dataset once, in order or shuffled."""
    sampler: Any = loader.sampler
    whole = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    return whole and loader.batch_size is not None


def drawn_from(batches: Batches, samples: int, seed: int = 0) -> Batches | None:
    """Samples drawn at random, each pass the same; None if they can't be drawn without reading all
    of the data: it is neither `Indexed` nor a `DataLoader` that reads a whole dataset in order.

    >>> import penjing
    >>> from penjing.tasks.batches import number_of_samples
    >>> nine = penjing.Arrays(torch.zeros(9, 2), torch.zeros(9))
    >>> number_of_samples(drawn_from(nine, 4))
    4
    """
    if isinstance(batches, Reading):
        some = drawn_from(batches.batches, samples, seed)
        return None if some is None else reading(some, batches.name, batches.wanted)
    draw = np.random.default_rng(seed)
    if isinstance(batches, Indexed):
        index = draw.permutation(batches.samples)[:samples]
        return batches.subset(index, shuffle=False, augment=None, batch_size=DRAWN_AT_ONCE)
    if isinstance(batches, SameDraws):
        drawn = drawn_from(batches.loader, samples, seed)
        return SameDraws(drawn) if isinstance(drawn, DataLoader) else drawn
    if not isinstance(batches, DataLoader) or not has_index(batches) or not is_plain(batches):
        return None
    index = draw.permutation(len(batches.dataset))[:samples]  # type: ignore[arg-type]
    return part_of(batches, index, training=False)


def part_of(loader: DataLoader[Any], index: NDArray[np.intp], training: bool) -> DataLoader[Any]:
    """A loader of some of the samples, with the settings of the given loader.

    Args:
        training: whether it shuffles if the given one does, and leaves out a last batch of one.
    """
    assert loader.batch_size is not None
    size = loader.batch_size if training else max(1, min(loader.batch_size, len(index)))
    alone = len(index) > size and len(index) % size == 1
    return DataLoader(
        Subset(loader.dataset, index.tolist()),
        batch_size=size,
        shuffle=training and isinstance(loader.sampler, RandomSampler),
        drop_last=training and (loader.drop_last or (alone and size > 1)),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator if training else None,
        prefetch_factor=loader.prefetch_factor,
        persistent_workers=training and loader.persistent_workers,
    )


def labels_of(dataset: Dataset[Any]) -> Tensor | None:
    """All labels, if they can be had without reading the inputs."""
    if isinstance(dataset, Subset):
        whole = labels_of(dataset.dataset)
        return None if whole is None else whole[torch.as_tensor(dataset.indices)]
    if isinstance(dataset, TensorDataset):
        return dataset.tensors[-1] if len(dataset.tensors) == 2 else None
    for name in ("targets", "labels"):
        given = getattr(dataset, name, None)
        try:
            labels = torch.as_tensor(given) if isinstance(given, Sequence) else given
        except (TypeError, ValueError, RuntimeError):  # a list of something other than numbers
            continue
        labels = torch.as_tensor(labels) if isinstance(labels, np.ndarray) else labels
        if isinstance(labels, Tensor) and labels.dim() and len(labels) == len(dataset):  # type: ignore[arg-type]
            return labels
    return None


class SameDraws:
    """A `DataLoader` whose dataset is random, read with the same random numbers on each pass.

    So its batches are the same each time, and none needs to be kept. The random states of who reads
    it stay as they are. A dataset that has a random generator of its own isn't made the same.

    Args:
        loader: of a dataset that draws from torch, from NumPy's global state, or from Python's
            `random`. Its processes may not outlive a pass (`persistent_workers`).
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader
        self.samples = len(loader.dataset)  # type: ignore[arg-type]

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        with same_draws():
            walk, inside = iter(self.loader), states()
        while True:
            outside = states()
            go_on_from(inside)
            try:
                batch = next(walk)
            except StopIteration:
                return
            finally:
                inside = states()
                go_on_from(outside)
            yield batch
