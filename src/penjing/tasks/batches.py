"""Batches: what any iterable of batches is held to, each time it is read."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import InputError, PenjingError, first_line
from penjing.tasks.task import Batches, Inputs

RANGES_APART = 50.0
"""Times the example's largest number: what is beyond is another scale, not another sample."""
LEAST_TO_COMPARE = 32  # numbers in the example, before its range says something


@dataclass(frozen=True)
class Wanted:
    """What a batch has to be.

    Attributes:
        example: of the inputs; shapes, types and names are as here.
        classes: labels are below it; 0 where the targets are no classes.
    """

    example: Inputs
    classes: int = 0

    def check(self, name: str, inputs: Inputs, targets: Tensor, where: str) -> None:
        """Raise InputError unless the batch can be used; the line names the split and `where`."""
        mine, wanted = pytree.tree_leaves(inputs), pytree.tree_leaves(self.example)
        if _names(inputs) != _names(self.example) or len(mine) != len(wanted):
            raise InputError(
                f"the {name} data gives {_spelled(inputs)}, the example is {_spelled(self.example)}"
                "; give both the same form"
            )
        for x, like in zip(mine, wanted, strict=True):
            _check_samples(name, x, like, len(targets), where)
        if targets.is_floating_point() and not bool(torch.isfinite(targets).all()):
            raise InputError(f"the {name} targets hold NaN or infinite values in {where}")
        if self.classes:
            check_labels(name, targets, self.classes)


def _check_samples(name: str, x: Tensor, like: Tensor, targets: int, where: str) -> None:
    given, shape = tuple(x.shape[1:]), tuple(like.shape[1:])
    if given != shape:
        hint = "scale or crop the images"
        if len(shape) == 3 and given == (*shape[1:], shape[0]):
            hint = "these are NHWC; permute(0, 3, 1, 2) makes them NCHW"
        raise InputError(
            f"the {name} data has samples of shape {given}, the example has {shape}; {hint}"
        )
    if x.dtype is torch.uint8 and like.dtype is not torch.uint8:
        raise InputError(f"the {name} data is uint8; divide by 255 and normalise")
    if x.is_floating_point() != like.is_floating_point():
        raise InputError(f"the {name} data is {x.dtype}, the example is {like.dtype}; convert one")
    if x.dim() and like.dim() and len(x) != targets:
        raise InputError(f"the {name} data has {len(x)} inputs but {targets} targets")
    if not x.is_floating_point():
        return
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"the {name} data holds NaN or infinite values in {where}; remove them")


def check_range(name: str, inputs: Inputs, example: Inputs) -> None:
    """Raise InputError for numbers of 0..255 beside an example of 0..1, or the other way round.

    An example of few numbers, or of equal ones such as `torch.zeros`, says nothing.
    """
    pairs = zip(pytree.tree_leaves(inputs), pytree.tree_leaves(example), strict=True)
    for x, like in pairs:
        if not like.is_floating_point() or like.numel() < LEAST_TO_COMPARE or not x.numel():
            continue
        mine, wanted = float(x.abs().max()), float(like.abs().max())
        if not wanted or bool((like == like.flatten()[0]).all()):
            continue
        if mine > RANGES_APART * wanted or RANGES_APART * mine < wanted:
            raise InputError(
                f"the {name} data goes up to {mine:.3g}, the example to {wanted:.3g}; prepare both "
                "as for training (divide by 255, normalise)"
            )


def check_labels(name: str, labels: Tensor, classes: int) -> None:
    """Raise InputError for a label that is no class; only whole numbers, one a sample, are."""
    if labels.dim() != 1 or labels.is_floating_point() or not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"the {name} labels run from {low} to {high}, but the model has {classes} "
            f"outputs (0..{classes - 1}); fix the labels or the model"
        )


class Reading:
    """Any iterable of batches as pairs of tensors, each looked at as it is read.

    NumPy arrays become tensors, and real inputs get the example's type. Iterating raises
    InputError, naming the split and the batch, where the data itself raises (an image that can't
    be read, a worker that dies) or gives what can't be used.

    Args:
        batches: the user's.
        name: of the split.
        wanted: what each batch has to be; None looks at its form alone.
    """

    def __init__(self, batches: Batches, name: str, wanted: Wanted | None = None) -> None:
        self.batches, self.name, self.wanted = batches, name, wanted

    def __iter__(self) -> Iterator[tuple[Inputs, Tensor]]:
        for number, batch in enumerate(_each(self.batches, self.name), start=1):
            inputs, targets = _as_pair(batch, self.name)
            if self.wanted is not None:
                inputs = _of_type(inputs, self.wanted.example)
                where = "its first batch" if number == 1 else f"batch {number}"
                self.wanted.check(self.name, inputs, targets, where)
            yield inputs, targets


class SizedReading(Reading):
    """The same, of data that knows how many batches it gives."""

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def reading(batches: Batches, name: str, wanted: Wanted | None = None) -> Reading:
    """The batches, looked at as they are read; with a length if they know theirs."""
    if isinstance(batches, Reading) and wanted is None:
        return batches
    try:
        len(batches)  # type: ignore[arg-type]
    except TypeError:
        return Reading(batches, name, wanted)
    return SizedReading(batches, name, wanted)


def _each(batches: Batches, name: str) -> Iterator[Any]:
    """The batches; what the user's code raises becomes one line."""
    walk, number = None, 0
    while True:
        try:
            walk = iter(batches) if walk is None else walk
            batch = next(walk)
        except StopIteration:
            return
        except PenjingError:
            raise
        except (Exception, SystemExit) as error:
            where, why = f"at batch {number + 1}", _cause(error)
            if isinstance(error, ConnectionError | EOFError):
                _let_dying_workers_die()
            if isinstance(error, ConnectionError | EOFError) or why.startswith("DataLoader worker"):
                raise InputError(
                    f"a worker of the {name} data died {where} ({type(error).__name__}: {why}); "
                    "num_workers=0 shows why"
                ) from error
            raise InputError(
                f"the {name} data raised {type(error).__name__} {where}: {why}; repair it or leave "
                "it out"
            ) from error
        number += 1
        yield batch


def _let_dying_workers_die() -> None:
    """PyTorch raises when one of its workers ends, wherever the program is by then; let it be here.

    A worker's connection is lost a little before the worker ends.
    """
    children = multiprocessing.active_children()
    with contextlib.suppress(RuntimeError):
        multiprocessing.connection.wait([child.sentinel for child in children], timeout=1)
        for child in children:
            if multiprocessing.connection.wait([child.sentinel], timeout=0):
                child.join()


def _cause(error: BaseException) -> str:
    """What an error says in one line; of one that came out of a worker, its last line."""
    lines = str(error).splitlines()
    if len(lines) > 1 and "worker process" in lines[0]:
        return lines[-1][:300]
    return first_line(error)


def _as_pair(batch: Any, name: str) -> tuple[Inputs, Tensor]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        what = f"{len(batch)} things" if isinstance(batch, list | tuple) else type(batch).__name__
        raise InputError(
            f"the {name} data gives {what} a batch; wanted (inputs, targets): put several inputs "
            "in a tuple or dict of their own"
        )
    inputs, targets = batch
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    tensors = pytree.tree_map(lambda leaf: _as_tensor(leaf, f"{name} inputs"), inputs)
    labels = _as_tensor(targets, f"{name} targets")
    if isinstance(targets, np.ndarray) and targets.dtype.kind in "iu":
        labels = labels.long()  # as losses want classes
    if not labels.dim():
        raise InputError(f"the {name} targets are a single number; wanted one for each sample")
    return tensors, labels


def _as_tensor(value: Any, what: str) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.tensor(value)
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise InputError(f"the {what} hold {kind}; wanted tensors or NumPy arrays of numbers")


def _of_type(inputs: Inputs, example: Inputs) -> Inputs:
    """Real numbers in the example's type; NumPy's are float64 where nobody says otherwise."""
    kinds = [leaf.dtype for leaf in pytree.tree_leaves(example) if leaf.is_floating_point()]
    if not kinds:
        return inputs
    return pytree.tree_map(
        lambda leaf: leaf.to(kinds[0]) if leaf.is_floating_point() else leaf, inputs
    )


def _names(inputs: Inputs) -> list[str] | None:
    return sorted(inputs) if isinstance(inputs, dict) else None


def _spelled(inputs: Inputs) -> str:
    if isinstance(inputs, dict):
        return f"a dict of {', '.join(map(str, inputs))}"
    return f"{len(pytree.tree_leaves(inputs))} input(s)"


def equal(batch: Any, other: Any) -> bool:
    """Whether two batches hold the same numbers; NaN equals NaN."""
    pairs = zip(pytree.tree_leaves(batch), pytree.tree_leaves(other), strict=True)
    return all(
        mine.shape == its.shape and bool(((mine == its) | (mine.isnan() & its.isnan())).all())
        for mine, its in pairs
    )


def number_of_batches(batches: Batches) -> int:
    """How many batches one pass gives; counted where the data doesn't know its length."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return sum(1 for _ in batches)


def samples_told(batches: Batches) -> float:
    """How many samples one pass gives, as far as the data tells without being read; else infinite.

    >>> samples_told([])
    0.0
    """
    given = batches.batches if isinstance(batches, Reading) else batches
    if isinstance(given, list | tuple):
        return float(sum(len(targets) for _, targets in given))
    for holder in (given, getattr(given, "dataset", None)):
        samples = getattr(holder, "samples", None)
        if isinstance(samples, int):
            return float(samples)
    try:
        return float(len(given.dataset))  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return math.inf


def number_of_samples(batches: Batches) -> int:
    """How many samples one pass gives; counted where the data doesn't tell."""
    told = samples_told(batches)
    return int(told) if math.isfinite(told) else sum(len(targets) for _, targets in batches)


def refuse_generator(batches: Batches, name: str) -> None:
    """Raise InputError for data that is gone once it was read."""
    given = batches.batches if isinstance(batches, Reading) else batches
    if isinstance(given, Iterator):
        raise InputError(f"the {name} data is a generator, gone after one pass; give a list")


def require_repeatable(batches: Batches, name: str) -> tuple[Inputs, Tensor]:
    """The first batch, once it is sure that the data isn't empty and can be iterated again.

    Raises:
        InputError: neither, or a generator, naming the split; or it can't be read.
    """
    refuse_generator(batches, name)
    given = batches.batches if isinstance(batches, Reading) else batches
    if not hasattr(given, "__iter__") and not hasattr(given, "__getitem__"):
        raise InputError(
            f"the {name} data can't be iterated: it is a {type(given).__name__}; give batches"
        )
    held = batches if isinstance(batches, Reading) else Reading(batches, name)
    first_batch = next(iter(held), None)
    if first_batch is None or len(first_batch[1]) == 0:
        raise InputError(f"the {name} data is empty; give at least one batch")
    return first_batch
