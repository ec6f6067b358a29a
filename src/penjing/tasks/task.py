"""Task: everything that the user brings. Model, example inputs, data, loss and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Array
from penjing.errors import InputError, in_one_line

Inputs = Any
"""One tensor, a tuple of tensors (positional) or a dict of tensors (keyword arguments). The batch
is the first dimension."""
Batches = Iterable[tuple[Inputs, Tensor]]
"""Anything that yields pairs of (inputs, targets) and can be iterated more than once."""


@dataclass(frozen=True)
class Metric:
    """What the accuracy budget is about: the mean of one score per sample. Higher is better.

    >>> import penjing
    >>> within_one = penjing.Metric("within one", lambda y, t: (abs(y[:, 0] - t) <= 1) * 1.0)
    >>> within_one.scores(np.array([[3.2], [7.0]]), np.array([3, 5]))
    array([1., 0.])

    Attributes:
        name: the name that is printed, such as `"accuracy"`.
        scores: a function of the outputs and targets of a batch of N samples, both as NumPy arrays.
            It returns an array of N scores.
    """

    name: str
    scores: Callable[[Any, Array], Array]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not callable(self.scores):
            raise InputError(
                f"a metric needs a name and a function; found {self.name!r} and {self.scores!r}"
            )


def scored(metric: Metric, outputs: Any, targets: Array) -> Array:
    """Score a batch with the metric, and check the scores; shape (N,).

    Raises:
        InputError: the metric raises, or returns anything but one finite number per sample.
    """
    wanted = f"it must return one finite score per sample, an array of shape ({len(targets)},)"
    try:
        given = metric.scores(outputs, targets)
        scores = np.asarray(given, dtype=np.float64)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"metric {metric.name!r} raised {type(error).__name__}: {str(error)[:200]}; it is "
            "called with the outputs and targets of a batch, as NumPy arrays"
        ) from error
    if given is None:
        raise InputError(f"metric {metric.name!r} returned None; {wanted}")
    if scores.shape != (len(targets),):
        raise InputError(
            f"metric {metric.name!r} returned shape {scores.shape} for {len(targets)} samples; "
            f"{wanted}"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"metric {metric.name!r} returned NaN or infinite scores; {wanted}")
    return scores


def loss_of(task: Task, outputs: Any, targets: Tensor) -> Tensor:
    """The task's loss of a batch.

    Raises:
        InputError: the loss, which is the user's code, raises.
    """
    try:
        return task.loss(outputs, targets)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"the task's loss raised {in_one_line(error)}") from error


def correct(outputs: Any, targets: Array) -> Array:
    """Score each sample with 1.0 if the target's class has the largest output, else 0.0.

    The outputs have shape (N, classes). Of a tuple or dict, the first entry counts. The result has
    shape (N,).

    >>> correct(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    array([1., 0.])
    """
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))
    elif isinstance(outputs, tuple):
        outputs = outputs[0]
    finite = np.isfinite(outputs).all(axis=1)
    scores: Array = ((outputs.argmax(axis=1) == targets) & finite).astype(np.float64)
    return scores


ACCURACY = Metric("accuracy", correct)


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the logits. Of a tuple or dict, the first entry counts."""
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))
    elif isinstance(outputs, tuple):
        outputs = outputs[0]
    return functional.cross_entropy(outputs, targets)


@dataclass(frozen=True, eq=False)
class Task:
    """A trained model and its data: everything that penjing needs to compress the model.

    >>> import penjing
    >>> x, y = torch.randn(60, 4), torch.arange(60) % 3
    >>> train, test = penjing.Arrays(x[:40], y[:40]), penjing.Arrays(x[40:], y[40:])
    >>> task = penjing.Task(nn.Linear(4, 3), example=x[:2], train=train, test=test, name="demo")
    >>> task.metric.name
    'accuracy'

    Attributes:
        model: a trained `nn.Module`.
        example: inputs for one batch of at least two samples: a tensor, a tuple or a dict.
        train: batches for training and calibration. Each is a pair (inputs, targets).
        test: batches that certify the result. They are read only at the end, for the original and
            at most three candidates.
        validation: batches by which the search compares candidates. None sets a tenth of `train`
            aside.
        loss: a function of (outputs, targets) that returns a scalar tensor.
        metric: what the accuracy budget is about, see `Metric`.
        name: the name that is printed.
        source: how to find this task again (`"file.py"`, `"package.module:name"`, `"digits"`).
    """

    model: nn.Module
    example: Inputs
    train: Batches
    test: Batches
    validation: Batches | None = None
    loss: Callable[[Any, Tensor], Tensor] = cross_entropy
    metric: Metric = ACCURACY
    name: str = "task"
    source: str | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise InputError(
                f"the task's model is {_kind(self.model)}; wanted an nn.Module with trained weights"
            )
        if not isinstance(self.metric, Metric):
            raise InputError(
                f"the task's metric is {_kind(self.metric)}; wanted "
                "penjing.Metric(name, scores), with a name to print and a function of a batch's "
                "outputs and targets that returns one score for each sample"
            )
        if not callable(self.loss):
            raise InputError(
                f"the task's loss is {_kind(self.loss)}; wanted a function of outputs and targets"
            )


def _kind(value: object) -> str:
    """What a value is, in a few words."""
    name = type(value).__name__
    return f"a {name}" if not isinstance(value, type) else f"the class {value.__name__}"


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments with which to call a model on `inputs`.

    >>> as_call({"image": 1})
    ((), {'image': 1})
    """
    if isinstance(inputs, dict):
        return (), dict(inputs)
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    return (inputs,), {}


def batch_dims(inputs: Any, batch: Any) -> dict[int, dict[int, Any] | None]:
    """Map the identity of each tensor to `{0: batch}` if it has one entry per sample, else to None.

    A tensor has one entry per sample if its first dimension is as large as that of the first
    tensor. The others, such as a time step or the edges of a graph, belong to the whole batch.
    """
    leaves = torch.utils._pytree.tree_leaves(inputs)
    samples = leaves[0].shape[0]
    return {
        id(leaf): {0: batch} if leaf.dim() and leaf.shape[0] == samples else None for leaf in leaves
    }


def count(inputs: Inputs) -> int:
    """How many samples the inputs of a batch hold."""
    first: Tensor = torch.utils._pytree.tree_leaves(inputs)[0]
    return int(first.shape[0])
