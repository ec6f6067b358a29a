"""Task: everything that the user brings. Model, example inputs, data, loss and metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.errors import InputError, in_one_line
from penjing.tasks.metrics import ACCURACY, Metric, first_of
from penjing.tasks.targets import Targets

Inputs = Any
"""One tensor, a tuple of tensors (positional) or a dict of tensors (keyword arguments). The batch
is the first dimension."""
Batches = Iterable[tuple[Inputs, Targets]]
"""Anything that yields pairs of (inputs, targets) and can be iterated more than once."""


def loss_of(task: Task, outputs: Any, targets: Targets) -> Tensor:
    """The task's loss of a batch.

    Raises:
        InputError: the loss, which is the user's code, raises.
    """
    try:
        return task.loss(outputs, targets)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"the task's loss raised {in_one_line(error)}") from error


def cross_entropy(outputs: Any, targets: Tensor) -> Tensor:
    """Mean cross-entropy of the logits. Of a tuple or dict, the first entry counts."""
    return functional.cross_entropy(first_of(outputs), targets)


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
        train: batches for training and calibration. Each is a pair (inputs, targets). Targets are a
            tensor, a tuple or a dict of tensors, or a list with something for each sample.
        test: batches that certify the result. They are read only at the end, for the original and
            at most four candidates.
        validation: batches by which the search compares candidates. None sets a tenth of `train`
            aside.
        loss: a function of (outputs, targets) that returns a scalar tensor.
        metric: what the accuracy budget is about, see `Metric`.
        name: the name that is printed.
        source: how to find this task again (`"file.py"`, `"package.module:name"`, `"digits"`).
        distill: a function of the outputs of a network and of the original model's that says how
            far they are apart, as a scalar tensor. Networks learn from the original by it. None
            compares class scores, and other outputs in units of their spread
            (`penjing.tune.distill.distance`).
    """

    model: nn.Module
    example: Inputs
    train: Batches
    test: Batches
    validation: Batches | None = None
    loss: Callable[[Any, Any], Tensor] = cross_entropy
    metric: Metric = ACCURACY
    name: str = "task"
    source: str | None = None
    distill: Callable[[Any, Any], Tensor] | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.model, nn.Module):
            raise InputError(
                f"the task's model is {_kind(self.model)}; wanted an nn.Module with trained weights"
            )
        if not isinstance(self.metric, Metric):
            raise InputError(
                f"the task's metric is {_kind(self.metric)}; wanted "
                "penjing.Metric(name, scores), with a name to print and a function of a batch's "
                "outputs and targets that returns one score for each sample; or "
                "penjing.Metric.of(metric) for one of torchmetrics"
            )
        if not callable(self.loss):
            raise InputError(
                f"the task's loss is {_kind(self.loss)}; wanted a function of outputs and targets"
            )
        if self.distill is not None and not callable(self.distill):
            raise InputError(
                f"the task's distill is {_kind(self.distill)}; wanted a function of the outputs of "
                "a network and of the original model's"
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
    """How many samples the inputs of a batch hold, by the first that has a first dimension."""
    leaves: list[Tensor] = torch.utils._pytree.tree_leaves(inputs)
    return next((len(leaf) for leaf in leaves if leaf.dim()), 0)
