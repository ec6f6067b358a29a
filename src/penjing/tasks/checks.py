"""Checks of the model and the data, before any long work."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from torch.utils.data import DataLoader, TensorDataset

from penjing.contract import Array, as_arrays
from penjing.errors import InputError, first_line
from penjing.tasks.batches import (
    Wanted,
    check_labels,
    check_range,
    equal,
    reading,
    require_repeatable,
)
from penjing.tasks.data import Arrays, drawn
from penjing.tasks.metrics import ACCURACY, scored
from penjing.tasks.outputs import require_tensors
from penjing.tasks.reading.images import ImageFolder, require_same_classes
from penjing.tasks.reading.indexed import Indexed
from penjing.tasks.splits import classes
from penjing.tasks.targets import all_labels, labels_in, samples_in, spelled, targets_as_arrays
from penjing.tasks.task import Batches, Task, as_call

SAMPLES_CHECKED = 512
"""Of data that isn't in memory. The rest is checked while it is read."""
AT_A_TIME = 4096  # samples of data in memory that are checked at once
FEW_SCORES = 32
"""With fewer samples, scores may be all alike by chance."""
Say = Callable[[str], object]
"""Shows people what is being done."""
SPLITS = {"train": "training", "validation": "validation", "test": "test"}


def check(task: Task, say: Say = lambda _: None) -> tuple[Task, tuple[str, ...]]:
    """Check the model and each split of the data before any long work.

    Of data in memory, every sample is checked; of image folders all labels and 512 images; of other
    data, the first 512 samples. The returned task checks the rest whenever it is read, and raises
    the same messages.

    Args:
        task: what the user gave.
        say: called often with a line for people.

    Returns:
        The task with its data as pairs of tensors, and notes for the user, one line each.

    Raises:
        InputError: describes the first problem and names the split.
    """
    notes: tuple[str, ...] = ()
    if any(module.training for module in task.model.modules()):
        notes = ("the model was in training mode; penjing uses it in evaluation mode",)
    wanted = Wanted(task.example, _classes(task))
    checked: dict[str, Batches] = {}
    labels: dict[str, Tensor | None] = {}
    require_same_classes({name: getattr(task, field) for field, name in SPLITS.items()})
    for field, name in SPLITS.items():
        batches = getattr(task, field)
        if batches is not None:
            integers = task.metric is ACCURACY and field == "train"  # others, see `require_scores`
            wanted = dataclasses.replace(wanted, integers=integers)
            judged = field != "train"
            checked[field], labels[name] = _checked(batches, name, wanted, judged, say)
    return dataclasses.replace(task, **checked), (*notes, *_missing(labels))  # type: ignore[arg-type]


def require_scores(task: Task, batches: Batches, loss: bool = False) -> None:
    """Try the metric on the first batch, and the loss too if it will be used.

    Raises:
        InputError: one of them raises or returns the wrong kind of value, or the metric is accuracy
            and the targets aren't classes.
    """
    inputs, targets = next(iter(reading(batches, "given")))
    outputs = _run(task.model, inputs, "the first batch")
    leaf = pytree.tree_leaves(outputs)[0]
    if task.metric is ACCURACY and (
        labels_in(targets) is None or leaf.dim() < 2 or leaf.shape[1] < 2
    ):
        is_text = isinstance(targets, list) and isinstance(targets[0], str)
        other = "pass another metric, metric=Metric(name, scores)"
        raise InputError(
            "accuracy needs one integer class per sample and at least two outputs; found "
            f"targets that are {spelled(targets)} and outputs of shape {list(leaf.shape)}; "
            f"{'number the classes from 0' if is_text else other}"
        )
    kept = scored(task.metric, as_arrays(outputs), targets_as_arrays(targets))
    task.metric.figure(kept)
    if not loss:
        return
    try:
        value = task.loss(outputs, targets)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"the loss raised {type(error).__name__}: {first_line(error)}; pass a loss that fits "
            "the task, loss=..."
        ) from error
    if not isinstance(value, Tensor) or value.numel() != 1 or not bool(torch.isfinite(value).all()):
        several = isinstance(value, Tensor) and value.numel() != 1
        what = f"a tensor of shape {list(value.shape)}" if several else value
        raise InputError(f"the loss returned {what}; it must return a tensor of one finite number")


def require_telling_scores(task: Task, batches: Batches, samples: int = 256) -> None:
    """Try whether the metric depends on the outputs at all.

    It reads no further than the first batch whose scores differ.

    Raises:
        InputError: it gives all of the first samples one and the same score, whether the outputs
            are the model's, their negatives or noise.
    """
    draw, seen, count = np.random.default_rng(0), set[float](), 0

    def noise(x: Array) -> Array:
        return draw.normal(size=x.shape).astype(x.dtype)

    for inputs, targets in reading(batches, "given"):
        outputs = as_arrays(_run(task.model, inputs, "the first samples"))
        if any(leaf.dtype.kind != "f" for leaf in pytree.tree_leaves(outputs)):
            return  # outputs such as class numbers can't be changed into others that mean something
        answers = targets_as_arrays(targets)
        for change in (np.asarray, np.negative, noise):
            try:
                kept = scored(task.metric, pytree.tree_map(change, outputs), answers)
                scores = [task.metric.figure(kept)] if task.metric.over else list(kept)
            except InputError:  # it takes no such outputs, and so it looks at them
                return
            seen.update(float(score) for score in scores if np.isfinite(score))
        count += samples_in(targets)
        if len(seen) > 1 or count >= samples:
            break
    if len(seen) != 1 or count < FEW_SCORES:
        return
    raise InputError(
        f"the metric gives every sample the score {seen.pop():g}, whatever the outputs are, so it "
        "can't tell what a file loses; give a metric that compares outputs with targets, "
        "metric=Metric(name, scores)"
    )


def _checked(
    batches: Batches, name: str, wanted: Wanted, judged: bool, say: Say
) -> tuple[Batches, Tensor | None]:
    """The batches as they are read from now on, and all labels if they are known."""
    if judged and isinstance(batches, Indexed):
        batches = batches.in_order()
    held: Batches = batches if isinstance(batches, Arrays) else reading(batches, name, wanted)
    once = require_repeatable(held, name)
    if isinstance(batches, Indexed) and wanted.classes:
        labels = labels_in(batches.y)
        if labels is not None:
            check_labels(name, labels, wanted.classes)  # all at once, for a better message
    wanted.check(name, *once, "its first batch")
    check_range(name, once[0], wanted.example)
    if judged and not isinstance(held, Arrays):
        _require_same_each_pass(held, once, name)
    if isinstance(held, Arrays):
        for leaf in pytree.tree_leaves([held.x, *([] if isinstance(held.y, list) else [held.y])]):
            _check_finite(leaf, name)
        return held, labels_in(held.y)
    loaded = getattr(batches, "dataset", None)
    if isinstance(batches, DataLoader) and isinstance(loaded, TensorDataset):
        for tensor in loaded.tensors:
            _check_finite(tensor, name)
    if isinstance(batches, ImageFolder):
        _read(held if batches.is_small else drawn(held, SAMPLES_CHECKED), name, True, say)
        return held, batches.y
    return held, _read(held, name, isinstance(batches, list | tuple), say)


def _read(held: Batches, name: str, whole: bool, say: Say) -> Tensor | None:
    """Read the whole split if it is in memory, else its first samples, and so check them.

    Returns:
        The labels, if every sample was read.
    """
    read, seen = [], 0
    for _, targets in held:
        read.append(targets)
        seen += samples_in(targets)
        say(f"checking the {name} data: {seen:,} samples")
        if seen >= SAMPLES_CHECKED and not whole:
            return None
    return all_labels(read)


def _check_finite(tensor: Tensor, name: str) -> None:
    if not tensor.is_floating_point():
        return
    for start in range(0, len(tensor), AT_A_TIME):
        some = tensor[start : start + AT_A_TIME]
        if bool(torch.isfinite(some.sum())):  # then all are finite; the sum is fast to compute
            continue
        fine = torch.isfinite(some.reshape(len(some), -1)).all(1)
        if not bool(fine.all()):  # else only the sum overflowed
            sample = start + int((~fine).nonzero()[0])
            raise InputError(
                f"the {name} data contains NaN or infinite values in sample {sample}; remove them"
            )


def _require_same_each_pass(held: Batches, once: Any, name: str) -> None:
    """Require the same samples in the same order on each pass, so that files can be compared."""
    if not equal(once, next(iter(held))):
        raise InputError(
            f"the {name} data gives different samples on each pass; turn off shuffling "
            "(shuffle=False) and augmentation"
        )


def _missing(labels: dict[str, Tensor | None]) -> tuple[str, ...]:
    """One note for each split that lacks classes of the training data."""
    trained = classes(labels["training"])
    if trained is None:
        return ()
    lines = []
    for name, targets in labels.items():
        held = classes(targets)
        absent = sorted(set(trained.tolist()) - set(held.tolist())) if held is not None else []
        if absent:
            some = ", ".join(map(str, absent[:5])) + (", ..." if len(absent) > 5 else "")
            lines.append(
                f"the {name} data has no samples of {len(absent)} of the training data's classes "
                f"({some}), so a loss of accuracy on them goes unnoticed"
            )
    return tuple(lines)


def _classes(task: Task) -> int:
    """How many classes the model scores, or 0 if its output isn't of shape (N, classes).

    Raises:
        InputError: the model can't be used as it is.
    """
    _require_plain(task.model)
    outputs = _run(task.model, task.example, "its example inputs")
    require_tensors(outputs)
    leaves = pytree.tree_leaves(outputs)
    again = pytree.tree_leaves(_run(task.model, task.example, "its example inputs"))
    for leaf, repeated in zip(leaves, again, strict=True):
        alike = leaf.shape == repeated.shape
        if not (alike and bool(leaf.isclose(repeated, 1e-3, 1e-4, equal_nan=True).all())):
            raise InputError(
                "the model gives different outputs for the same inputs, so something in it is "
                "random even in evaluation mode; remove the randomness"
            )
    two = leaves[0].dim() == 2 and leaves[0].shape[1] > 1
    return int(leaves[0].shape[1]) if two else 0


def _require_plain(model: nn.Module) -> None:
    """Raise InputError for a model that wraps another, or whose weights can't be compressed."""
    inner = {"DataParallel": "module", "DistributedDataParallel": "module"}
    inner["OptimizedModule"] = "_orig_mod"
    kind = type(model).__name__
    if kind in inner:
        raise InputError(f"the model is wrapped in {kind}; pass model.{inner[kind]} instead")
    weights = dict(model.named_parameters())
    if not weights:
        raise InputError(
            f"the model {kind} has no parameters, so there is nothing to compress; pass the module "
            "that has the weights"
        )
    for name, tensor in weights.items():
        if tensor.is_meta:
            raise InputError(f"weight {name} is on the meta device; load the weights first")
        if tensor.is_floating_point() and tensor.dtype is not torch.float32:
            raise InputError(
                f"weight {name} is {tensor.dtype}, wanted torch.float32; convert it with "
                "model.float(), and give a float32 example"
            )
    tables = [table for table in weights.values() if table.dim() > 1]
    if tables and all(
        bool((table == table.flatten()[0]).all()) for table in tables if table.numel()
    ):
        raise InputError(
            f"all weights of {kind} are constant (all numbers in {next(iter(weights))} are "
            "equal); load the checkpoint"
        )


def _run(model: nn.Module, inputs: Any, what: str) -> Any:
    """Run the model in evaluation mode, and restore the mode of each module afterwards."""
    modes = {module: module.training for module in model.modules()}
    args, kwargs = as_call(inputs)
    try:
        model.eval()
        with torch.no_grad():
            return model(*args, **kwargs)
    except (Exception, SystemExit) as error:
        raise InputError(f"the model fails on {what}: {first_line(error)}") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
