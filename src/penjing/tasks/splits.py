"""Splits: validation data set aside from the training data, if none was given."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import (
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    TensorDataset,
)

from penjing.errors import InputError
from penjing.tasks.batches import Reading, equal
from penjing.tasks.data import Arrays
from penjing.tasks.targets import Targets, labels_in, picked, samples_in
from penjing.tasks.task import Batches, Inputs, Task

WHOLE_BATCHES = 10
"""With at least this many batches in memory, whole batches are set aside."""
LEAST_OF_A_CLASS = 2  # samples per class on average; with fewer, labels aren't taken as classes
BY_CLASS, AT_RANDOM = "stratified by class", "at random"
Aside = NDArray[np.bool_]


def with_validation(task: Task, share: float = 0.1, seed: int = 0) -> tuple[Task, str]:
    """The task with validation data, and a note if that was taken from the training data.

    A tenth of the training data is set aside, always the same for the same seed. The split is
    stratified by class if the labels are classes and can be had without reading the inputs.

    A `DataLoader` and `Arrays` are split by index: nothing is kept in memory, and training stays
    shuffled and augmented. Of other data, the batches are kept in memory. The validation data is
    the same on each pass: it is neither shuffled nor augmented, and if the dataset itself is
    random, its batches are read once and kept in memory.

    Raises:
        InputError: the training data is too small, or a `DataLoader` has a custom sampler.
    """
    if task.validation is not None:
        return task, ""
    train, validation, aside, how = _split(task.train, share, seed, "training")
    note = (
        f"no validation data was given, so {aside.sum()} of {len(aside)} training samples were "
        f"set aside, {how}"
    )
    return dataclasses.replace(task, train=train, validation=validation), note


def with_test_as_validation(task: Task, seed: int = 0) -> tuple[Task, str]:
    """The task with half of its test data as validation data, and how that was drawn.

    The split is made as `with_validation` makes it; the training data stays as it is.

    Raises:
        InputError: the test data is too small, or a `DataLoader` has a custom sampler.
    """
    test, validation, aside, how = _split(task.test, 0.5, seed, "test")
    words = f"{aside.sum()} of {len(aside)} test samples, drawn {how},"
    return dataclasses.replace(task, test=test, validation=validation), words


def drawn_from(batches: Batches, samples: int, seed: int = 0) -> Batches | None:
    """Samples drawn at random, each pass the same; None if they can't be drawn without reading all
    of the data: it is neither `Arrays` nor a `DataLoader` that reads a whole dataset in order.

    >>> from penjing.tasks.batches import number_of_samples
    >>> number_of_samples(drawn_from(Arrays(torch.zeros(9, 2), torch.zeros(9)), 4))
    4
    """
    draw = np.random.default_rng(seed)
    if isinstance(batches, Arrays):
        index = draw.permutation(batches.samples)[:samples]
        return batches.subset(index, shuffle=False, augment=None)
    if isinstance(batches, DataLoader) and not isinstance(batches.dataset, IterableDataset):
        if not _is_plain(batches):
            return None
        index = draw.permutation(len(batches.dataset))[:samples]  # type: ignore[arg-type]
        return _loader(batches, index, training=False)
    return None


def _split(
    given: Batches, share: float, seed: int, what: str
) -> tuple[Batches, Batches, Aside, str]:
    """What is left of the data, and what is set aside; which samples that are, and how they were
    drawn."""
    training = what == "training"
    if isinstance(given, Arrays):
        aside, how = _drawn(given.samples, labels_in(given.y), share, seed, what)
        left = given.subset(np.flatnonzero(~aside))
        return left, given.subset(np.flatnonzero(aside), shuffle=False, augment=None), aside, how
    if isinstance(given, DataLoader) and not isinstance(given.dataset, IterableDataset):
        _require_plain(given, what)
        size, labels = len(given.dataset), _labels(given.dataset)  # type: ignore[arg-type]
        aside, how = _drawn(size, labels, share, seed, what)
        rest = _loader(given, np.flatnonzero(~aside), training)
        validation, how = _same_each_pass(_loader(given, np.flatnonzero(aside), False), how)
        return rest, validation, aside, how
    return _of_batches(given, share, seed, what)


def labels_of(batches: Batches) -> Tensor | None:
    """All labels of some batches, if the targets of each are labels; else None."""
    labels = [labels_in(targets) for _, targets in batches]
    return None if any(some is None for some in labels) else torch.cat(labels)  # type: ignore[arg-type]


def classes(labels: Tensor | None) -> NDArray[Any] | None:
    """The labels, if they can be classes: one integer per sample, with two samples per class or
    more on average. Else None.

    >>> classes(torch.tensor([0.5, 1.5])) is None, classes(torch.tensor([3, 3, 1, 1])) is None
    (True, False)
    """
    if labels is None or labels.dim() != 1 or labels.is_floating_point() or labels.is_complex():
        return None
    values = labels.cpu().numpy()
    return values if LEAST_OF_A_CLASS * len(np.unique(values)) <= len(values) else None


def _drawn(
    samples: int, labels: Tensor | None, share: float, seed: int, what: str
) -> tuple[Aside, str]:
    """Which samples are set aside, and how they were drawn."""
    draw = np.random.default_rng(seed)
    aside = np.zeros(samples, bool)
    known = classes(labels)
    if known is None:
        aside[draw.permutation(samples)[: max(1, round(share * samples))]] = True
    else:
        for label in np.unique(known):
            index = np.flatnonzero(known == label)
            least = 1 if len(index) > 1 else 0
            aside[draw.permutation(index)[: max(least, round(share * len(index)))]] = True
    if samples - aside.sum() < 2 or not aside.any():
        raise InputError(
            f"the {what} data has {samples} sample(s), too few to set some aside for "
            f"validation; give more {what} data, or give validation data"
        )
    return aside, AT_RANDOM if known is None else BY_CLASS


def _require_plain(loader: DataLoader[Any], what: str) -> None:
    """Raise InputError unless the loader reads its whole dataset, in order or shuffled."""
    sampler: Any = loader.sampler
    if not _is_plain(loader):
        own = sampler if loader.batch_size is not None else loader.batch_sampler
        raise InputError(
            f"the {what} DataLoader has a custom sampler ({type(own).__name__}), so penjing "
            "can't set validation data aside; give validation data"
        )


def _is_plain(loader: DataLoader[Any]) -> bool:
    """Whether it reads each sample of its dataset once, in order or shuffled."""
    sampler: Any = loader.sampler
    whole = isinstance(sampler, SequentialSampler) or (
        isinstance(sampler, RandomSampler)
        and not sampler.replacement
        and sampler.num_samples == len(loader.dataset)  # type: ignore[arg-type]
    )
    return whole and loader.batch_size is not None


def _labels(dataset: Dataset[Any]) -> Tensor | None:
    """All labels, if they can be had without reading the inputs."""
    if isinstance(dataset, Subset):
        whole = _labels(dataset.dataset)
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


def _loader(of: DataLoader[Any], index: NDArray[np.intp], training: bool) -> DataLoader[Any]:
    """A loader of some of the samples, with the settings of the given loader."""
    assert of.batch_size is not None
    alone = len(index) > of.batch_size and len(index) % of.batch_size == 1
    return DataLoader(
        Subset(of.dataset, index.tolist()),
        batch_size=of.batch_size,
        shuffle=training and isinstance(of.sampler, RandomSampler),
        drop_last=training and (of.drop_last or (alone and of.batch_size > 1)),
        num_workers=of.num_workers,
        collate_fn=of.collate_fn,
        pin_memory=of.pin_memory,
        timeout=of.timeout,
        worker_init_fn=of.worker_init_fn,
        multiprocessing_context=of.multiprocessing_context,
        generator=of.generator,
        prefetch_factor=of.prefetch_factor,
        persistent_workers=of.persistent_workers,
    )


def _same_each_pass(loader: DataLoader[Any], how: str) -> tuple[Batches, str]:
    """The loader, or its batches in memory if its dataset gives different ones on each pass."""
    once, again = (next(iter(Reading(loader, "validation"))) for _ in range(2))
    if equal(once, again):
        return loader, how
    note = "; the dataset is random, so they were read once and are kept in memory"
    return list(Reading(loader, "validation")), how + note


def _of_batches(
    given: Batches, share: float, seed: int, what: str
) -> tuple[Batches, Batches, Aside, str]:
    """Split the batches into two lists. If there are only a few, their samples are split."""
    held = list(Reading(given, what))
    if not held:
        raise InputError(f"the {what} data is empty; give at least one batch")
    owner = np.repeat(np.arange(len(held)), [samples_in(targets) for _, targets in held])
    once = "" if isinstance(given, list | tuple) else "; the data is now kept in memory"
    if len(held) >= WHOLE_BATCHES:
        chosen, _ = _drawn(len(held), None, share, seed, what)
        train = [batch for batch, out in zip(held, chosen, strict=True) if not out]
        validation = [batch for batch, out in zip(held, chosen, strict=True) if out]
        return train, validation, chosen[owner], f"{AT_RANDOM} in whole batches{once}"
    known = labels_of(held)
    aside, how = _drawn(len(owner), known, share, seed, what)
    parts = [np.asarray(aside[owner == number]) for number in range(len(held))]
    train = [_some(batch, ~part) for batch, part in zip(held, parts, strict=True) if not part.all()]
    validation = [_some(batch, part) for batch, part in zip(held, parts, strict=True) if part.any()]
    return train, validation, aside, how + once


def _some(batch: tuple[Inputs, Targets], which: Aside) -> tuple[Inputs, Targets]:
    index = torch.as_tensor(np.flatnonzero(which))
    inputs, targets = batch
    return pytree.tree_map(lambda leaf: leaf[index], inputs), picked(targets, index)
