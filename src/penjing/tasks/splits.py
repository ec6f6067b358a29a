"""Splits: validation data set aside from the training data, if none was given."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader

from penjing.errors import InputError
from penjing.tasks.batches import Reading, equal, require_repeatable
from penjing.tasks.reading.indexed import Indexed
from penjing.tasks.reading.loaders import SameDraws, has_index, is_plain, labels_of, part_of
from penjing.tasks.targets import Targets, all_labels, labels_in, picked, samples_in
from penjing.tasks.task import Batches, Inputs, Task

WHOLE_BATCHES = 10
"""With at least this many batches in memory, whole batches are set aside."""
LEAST_OF_A_CLASS = 2  # samples per class on average; with fewer, labels aren't taken as classes
MOST_HELD = 200_000_000  # bytes of batches that may be kept in memory
BY_CLASS, AT_RANDOM = "stratified by class", "at random"
Aside = NDArray[np.bool_]


def with_validation(task: Task, share: float = 0.1, seed: int = 0) -> tuple[Task, str]:
    """The task with validation data, and a note if that was taken from the training data.

    A tenth of the training data is set aside, always the same for the same seed. The split is
    stratified by class if the labels are classes and can be had without reading the inputs.

    `Arrays`, `ImageFolder` and a `DataLoader` are split by index: nothing is kept in memory, and
    training stays shuffled and augmented. A list of batches is split too. The validation data is
    the same on each pass: it is neither shuffled nor augmented, and if the dataset itself is
    random, it is read with the same random numbers each time.

    Raises:
        InputError: the training data is too small, it can be read only in order, or a `DataLoader`
            has a custom sampler.
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


def _split(
    given: Batches, share: float, seed: int, what: str
) -> tuple[Batches, Batches, Aside, str]:
    """What is left of the data, and what is set aside; which samples that are, and how they were
    drawn."""
    if isinstance(given, Indexed):
        aside, how = _drawn(given.samples, labels_in(given.y), share, seed, what)
        left = given.subset(np.flatnonzero(~aside))
        return left, given.subset(np.flatnonzero(aside), shuffle=False, augment=None), aside, how
    if isinstance(given, DataLoader) and has_index(given):
        _require_plain(given, what)
        size, labels = len(given.dataset), labels_of(given.dataset)  # type: ignore[arg-type]
        aside, how = _drawn(size, labels, share, seed, what)
        rest = part_of(given, np.flatnonzero(~aside), what == "training")
        validation, how = _same_each_pass(given, np.flatnonzero(aside), how, what)
        return rest, validation, aside, how
    if isinstance(given, list | tuple):
        return _of_batches(given, share, seed, what)
    require_repeatable(given, what)
    kind = type(given.dataset if isinstance(given, DataLoader) else given).__name__
    raise InputError(
        f"the {what} data can be read only in order ({kind}), so penjing can't set validation data "
        "aside without keeping all of it in memory; give validation data, validation=..."
    )


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
    if not is_plain(loader):
        own = sampler if loader.batch_size is not None else loader.batch_sampler
        raise InputError(
            f"the {what} DataLoader has a custom sampler ({type(own).__name__}), so penjing "
            "can't set validation data aside; give validation data"
        )


def _same_each_pass(
    loader: DataLoader[Any], index: NDArray[np.intp], how: str, what: str
) -> tuple[Batches, str]:
    """Samples of a loader that are the same on each pass, and how they were drawn.

    Raises:
        InputError: its dataset is random in a way that can't be repeated, and it is large.
    """
    part = part_of(loader, index, training=False)
    if _gives_the_same(part):
        return part, how
    seeded = SameDraws(part)
    if _gives_the_same(seeded):
        return seeded, f"{how}; the dataset is random, so each pass has the same random numbers"
    inputs, _ = next(iter(Reading(part, "validation")))
    size = sum(leaf.numel() * leaf.element_size() for leaf in pytree.tree_leaves(inputs))
    if size * len(part) > MOST_HELD:
        raise InputError(
            f"the {what} data is random in a way that can't be repeated, so no validation data can "
            "be set aside from it; give validation data that is the same on each pass, "
            "validation=..."
        )
    note = "; the dataset is random, so they were read once and are kept in memory"
    return list(Reading(part, "validation")), how + note


def _gives_the_same(batches: Batches) -> bool:
    """Whether two passes begin with the same batch."""
    once, again = (next(iter(Reading(batches, "validation"))) for _ in range(2))
    return equal(once, again)


def _of_batches(
    given: Batches, share: float, seed: int, what: str
) -> tuple[Batches, Batches, Aside, str]:
    """Split the batches into two lists. If there are only a few, their samples are split."""
    held = list(Reading(given, what))
    if not held:
        raise InputError(f"the {what} data is empty; give at least one batch")
    owner = np.repeat(np.arange(len(held)), [samples_in(targets) for _, targets in held])
    if len(held) >= WHOLE_BATCHES:
        chosen, _ = _drawn(len(held), None, share, seed, what)
        train = [batch for batch, out in zip(held, chosen, strict=True) if not out]
        validation = [batch for batch, out in zip(held, chosen, strict=True) if out]
        return train, validation, chosen[owner], f"{AT_RANDOM} in whole batches"
    known = all_labels(targets for _, targets in held)
    aside, how = _drawn(len(owner), known, share, seed, what)
    parts = [np.asarray(aside[owner == number]) for number in range(len(held))]
    train = [_some(batch, ~part) for batch, part in zip(held, parts, strict=True) if not part.all()]
    validation = [_some(batch, part) for batch, part in zip(held, parts, strict=True) if part.any()]
    return train, validation, aside, how


def _some(batch: tuple[Inputs, Targets], which: Aside) -> tuple[Inputs, Targets]:
    index = torch.as_tensor(np.flatnonzero(which))
    inputs, targets = batch
    return pytree.tree_map(lambda leaf: leaf[index], inputs), picked(targets, index)
