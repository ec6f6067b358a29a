"""Batches: any iterable of batches, checked each time it is read."""

from __future__ import annotations

import contextlib
import math
import multiprocessing
import multiprocessing.connection
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import InputError, PenjingError, first_line
from penjing.tasks.targets import Targets, as_targets, as_tensor, labels_in, samples_in, spelled
from penjing.tasks.task import Batches, Inputs, count

RANGES_APART = 50.0
"""If the largest values of the data and of the example differ by more than this factor, they were
preprocessed differently."""
LEAST_TO_COMPARE = 32  # numbers that the example must have for its range to mean anything


@dataclass(frozen=True)
class Wanted:
    """What each batch must look like.

    Attributes:
        example: inputs that have the right shapes, types and names.
        classes: the number of classes, which labels must be below. 0 if the targets aren't classes.
        integers: whether the targets must be classes, because the metric is accuracy.
    """

    example: Inputs
    classes: int = 0
    integers: bool = False

    def check(self, name: str, inputs: Inputs, targets: Targets, where: str) -> None:
        """Raise InputError if the batch can't be used; the message names the split and `where`."""
        mine, wanted = pytree.tree_leaves(inputs), pytree.tree_leaves(self.example)
        if _names(inputs) != _names(self.example) or len(mine) != len(wanted):
            raise InputError(
                f"each batch of the {name} data has {_spelled(inputs)}, but the example has "
                f"{_spelled(self.example)}; give both the same structure"
            )
        for x, like in zip(mine, wanted, strict=True):
            _check_samples(name, x, like, samples_in(targets), where)
        if not _are_finite(targets):
            raise InputError(
                f"the {name} targets contain NaN or infinite values in {where}; remove them"
            )
        labels = labels_in(targets)
        if self.classes and self.integers and _is_of_another_kind(targets):
            raise InputError(
                f"the {name} labels are {spelled(targets)}, but the model has {self.classes} "
                f"outputs, for classes 0 to {self.classes - 1}; give integers (torch.int64)"
            )
        if self.classes and labels is not None:
            check_labels(name, labels, self.classes)


def _check_samples(name: str, x: Tensor, like: Tensor, targets: int, where: str) -> None:
    given, shape = tuple(x.shape[1:]), tuple(like.shape[1:])
    if given != shape:
        hint = "resize or crop them to match"
        if len(shape) == 3 and given == (*shape[1:], shape[0]):
            hint = "they are NHWC, so convert them to NCHW with permute(0, 3, 1, 2)"
        raise InputError(
            f"samples of the {name} data have shape {given}, but the example has {shape}; {hint}"
        )
    if x.dtype is torch.uint8 and like.dtype is not torch.uint8:
        raise InputError(
            f"the {name} data is torch.uint8, but the example is {like.dtype}; divide by 255 and "
            "normalize as in training"
        )
    if x.is_floating_point() != like.is_floating_point():
        raise InputError(
            f"the {name} data is {x.dtype}, but the example is {like.dtype}; convert one of them"
        )
    if x.dim() and like.dim() and len(x) != targets:
        raise InputError(
            f"the {name} data has {len(x)} inputs but {targets} targets in {where}; give one "
            "target per sample"
        )
    if not x.is_floating_point():
        return
    if not bool(torch.isfinite(x).all()):
        raise InputError(f"the {name} data contains NaN or infinite values in {where}; remove them")


def _is_of_another_kind(targets: Targets) -> bool:
    """Whether these are one number for each sample, but no integers, or text."""
    if isinstance(targets, list):
        return isinstance(targets[0], str)
    one_each = isinstance(targets, Tensor) and targets.dim() == 1
    return one_each and labels_in(targets) is None


def _are_finite(targets: Targets) -> bool:
    leaves = (leaf for leaf in pytree.tree_leaves(targets) if isinstance(leaf, Tensor | float))
    floats = (leaf for leaf in map(torch.as_tensor, leaves) if leaf.is_floating_point())
    return all(bool(torch.isfinite(leaf).all()) for leaf in floats)


def check_range(name: str, inputs: Inputs, example: Inputs) -> None:
    """Raise InputError if the data is in 0..255 and the example in 0..1, or the other way round.

    An example with few numbers, or with equal ones such as `torch.zeros`, isn't compared.
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
                f"values of the {name} data reach {mine:.3g}, those of the example {wanted:.3g}; "
                "preprocess both as in training (divide by 255, normalize)"
            )


def check_labels(name: str, labels: Tensor, classes: int) -> None:
    """Raise InputError if a label, one integer per sample, isn't a class."""
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise InputError(
            f"the {name} labels range from {low} to {high}, but the model has {classes} outputs, "
            f"for classes 0 to {classes - 1}; fix the labels or the model"
        )


class Reading:
    """Any iterable of batches, as pairs of tensors that are checked as they are read.

    NumPy arrays become tensors, and floating-point inputs get the example's type. Iterating raises
    InputError if the data itself raises (an image can't be read, a DataLoader worker dies) or if a
    batch can't be used. The message names the split and the batch.

    Args:
        batches: the user's batches.
        name: the name of the split.
        wanted: what each batch must look like. None checks only that it is a pair of tensors.
    """

    def __init__(self, batches: Batches, name: str, wanted: Wanted | None = None) -> None:
        self.batches, self.name, self.wanted = batches, name, wanted
        self._counted: tuple[int, int] | None = None

    def count(self, say: Callable[[str], object] = lambda _: None) -> tuple[int, int]:
        """How many batches and samples one pass gives, by reading them all the first time.

        Args:
            say: called after each batch with a line for people.
        """
        if self._counted is None:
            number = samples = 0
            for inputs, _ in self:
                number, samples = number + 1, samples + count(inputs)
                say(f"counting the {self.name} data, which has no length: {samples:,} samples")
            self._counted = number, samples
        return self._counted

    def __iter__(self) -> Iterator[tuple[Inputs, Targets]]:
        for number, batch in enumerate(_each(self.batches, self.name), start=1):
            inputs, targets = _as_pair(batch, self.name)
            if self.wanted is not None:
                inputs = _of_type(inputs, self.wanted.example)
                where = "its first batch" if number == 1 else f"batch {number}"
                self.wanted.check(self.name, inputs, targets, where)
            yield inputs, targets


class SizedReading(Reading):
    """A `Reading` of data that knows its number of batches."""

    def __len__(self) -> int:
        return len(self.batches)  # type: ignore[arg-type]


def reading(batches: Batches, name: str, wanted: Wanted | None = None) -> Reading:
    """The batches, checked as they are read. The result has a length if the batches have one."""
    if isinstance(batches, Reading) and wanted is None:
        return batches
    try:
        len(batches)  # type: ignore[arg-type]
    except TypeError:
        return Reading(batches, name, wanted)
    return SizedReading(batches, name, wanted)


def _each(batches: Batches, name: str) -> Iterator[Any]:
    """The batches. An exception that the user's code raises becomes an InputError of one line."""
    walk, number = None, 0
    while True:
        try:
            try:
                walk = iter(batches) if walk is None else walk
                batch = next(walk)
            except (ConnectionError, EOFError):
                _let_dying_workers_die()
                raise
        except StopIteration:
            return
        except PenjingError as error:
            if str(error) == _cause(error):
                raise
            raise type(error)(_cause(error).partition(": ")[2]) from error  # of a worker
        except (Exception, SystemExit) as error:
            where, why = f"at batch {number + 1}", _cause(error)
            if isinstance(error, ConnectionError | EOFError) or why.startswith("DataLoader worker"):
                raise InputError(
                    f"a DataLoader worker for the {name} data died {where} "
                    f"({type(error).__name__}: {why}); set num_workers=0 to see the error"
                ) from error
            raise InputError(
                f"reading the {name} data raised {type(error).__name__} {where}: {why}; repair "
                "that sample or leave it out"
            ) from error
        number += 1
        yield batch


def _let_dying_workers_die() -> None:
    """Wait for DataLoader workers that are about to end.

    A worker's connection breaks a moment before the worker ends. When it ends, PyTorch raises a
    RuntimeError wherever the program is by then. Waiting makes it happen here, or on the way here,
    where the caller takes it for what it is.
    """
    children = multiprocessing.active_children()
    with contextlib.suppress(RuntimeError):
        multiprocessing.connection.wait([child.sentinel for child in children], timeout=1)
        for child in children:
            if multiprocessing.connection.wait([child.sentinel], timeout=0):
                child.join()


def _cause(error: BaseException) -> str:
    """An error's message in one line. Of an error from a DataLoader worker, its last line."""
    lines = str(error).splitlines()
    if len(lines) > 1 and "worker process" in lines[0]:
        return lines[-1][:300]
    return first_line(error)


def _as_pair(batch: Any, name: str) -> tuple[Inputs, Targets]:
    if not isinstance(batch, list | tuple) or len(batch) != 2:
        what = f"{len(batch)} values" if isinstance(batch, list | tuple) else type(batch).__name__
        raise InputError(
            f"each batch of the {name} data must be a pair (inputs, targets); found {what}; put "
            "several inputs into one tuple or dict"
        )
    inputs, targets = batch
    inputs = tuple(inputs) if isinstance(inputs, list) else inputs
    tensors = pytree.tree_map(lambda leaf: as_tensor(leaf, f"{name} inputs"), inputs)
    answers = as_targets(targets, count(tensors), f"{name} targets")
    whole = [] if isinstance(answers, list) else pytree.tree_leaves(answers)
    if not isinstance(answers, list) and not whole:
        raise InputError(
            f"the targets in a batch of the {name} data are empty; give one per sample"
        )
    if not all(leaf.dim() for leaf in whole):
        raise InputError(
            f"the targets in a batch of the {name} data are a single number; give one target per "
            "sample"
        )
    if len({len(leaf) for leaf in whole}) > 1:
        raise InputError(
            f"the targets in a batch of the {name} data differ in length: "
            f"{', '.join(str(len(leaf)) for leaf in whole)}; give one target per sample"
        )
    return tensors, answers


def _of_type(inputs: Inputs, example: Inputs) -> Inputs:
    """The inputs, with floating-point ones in the example's type (NumPy defaults to float64)."""
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
        return f"a dict with the keys {', '.join(map(str, inputs))}"
    return f"{len(pytree.tree_leaves(inputs))} input(s)"


def equal(batch: Any, other: Any) -> bool:
    """Whether two batches hold the same numbers. NaN counts as equal to NaN."""
    leaves, others = pytree.tree_leaves(batch), pytree.tree_leaves(other)
    pairs = zip(leaves, others, strict=False)
    return len(leaves) == len(others) and all(
        _is_equal(mine, its) if isinstance(mine, Tensor) else mine == its for mine, its in pairs
    )


def _is_equal(mine: Tensor, its: Tensor) -> bool:
    return mine.shape == its.shape and bool(((mine == its) | (mine.isnan() & its.isnan())).all())


def number_of_batches(batches: Batches) -> int:
    """How many batches one pass gives. They are counted if the data doesn't know its length."""
    try:
        return len(batches)  # type: ignore[arg-type]
    except TypeError:
        return _counted(batches)[0]


def samples_told(batches: Batches) -> float:
    """How many samples one pass gives, or infinity if that can't be known without reading the data.

    >>> samples_told([])
    0.0
    """
    given = batches.batches if isinstance(batches, Reading) else batches
    if isinstance(given, list | tuple):
        return float(sum(samples_in(targets) for _, targets in given))
    for holder in (given, getattr(given, "dataset", None)):
        samples = getattr(holder, "samples", None)
        if isinstance(samples, int):
            return float(samples)
    try:
        return float(len(given.dataset))  # type: ignore[attr-defined]
    except (AttributeError, TypeError):
        return math.inf


def number_of_samples(batches: Batches) -> int:
    """How many samples one pass gives. They are counted if the data doesn't know."""
    told = samples_told(batches)
    return int(told) if math.isfinite(told) else _counted(batches)[1]


def _counted(batches: Batches) -> tuple[int, int]:
    held = batches if isinstance(batches, Reading) else Reading(batches, "given")
    return held.count()


def refuse_generator(batches: Batches, name: str) -> None:
    """Raise InputError for data that can be read only once."""
    given = batches.batches if isinstance(batches, Reading) else batches
    if isinstance(given, Iterator):
        raise InputError(
            f"the {name} data is a generator, which can be read only once; give a list of batches "
            "or a DataLoader"
        )


def require_repeatable(batches: Batches, name: str) -> tuple[Inputs, Targets]:
    """Check that the data isn't empty and can be read more than once, and return the first batch.

    Raises:
        InputError: the data is empty, can be read only once, or can't be read at all. The message
            names the split.
    """
    refuse_generator(batches, name)
    given = batches.batches if isinstance(batches, Reading) else batches
    if not hasattr(given, "__iter__") and not hasattr(given, "__getitem__"):
        raise InputError(
            f"the {name} data is of type {type(given).__name__}, which can't be iterated; give "
            "batches of (inputs, targets)"
        )
    held = batches if isinstance(batches, Reading) else Reading(batches, name)
    first_batch = next(iter(held), None)
    if first_batch is None or samples_in(first_batch[1]) == 0:
        raise InputError(f"the {name} data is empty; give at least one batch")
    return first_batch
