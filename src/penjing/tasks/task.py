"""Task: all that a user brings. Model, example inputs, data, loss, metric."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Array
from penjing.errors import InputError

Inputs = Any
"""One tensor, a tuple of tensors (positional) or a dict of tensors (keywords); batch first."""
Batches = Iterable[tuple[Inputs, Tensor]]
"""Anything that can be iterated again and again into (inputs, targets)."""


@dataclass(frozen=True)
class Metric:
    """A figure of merit that is the mean of one score per sample; higher is better.

    Attributes:
        name: as printed, such as `"accuracy"`.
        scores: (outputs, targets), both NumPy, to an array of shape (N,).
    """

    name: str
    scores: Callable[[Any, Array], Array]


def scored(metric: Metric, outputs: Any, targets: Array) -> Array:
    """The metric's scores of a batch, once it is sure that they are such; shape (N,).

    Raises:
        InputError: it raises, or gives anything but one finite number per sample.
    """
    wanted = f"wanted one finite score per sample, shape ({len(targets)},)"
    try:
        given = metric.scores(outputs, targets)
        scores = np.asarray(given, dtype=np.float64)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"metric {metric.name!r} raised {type(error).__name__}: {str(error)[:200]}"
        ) from error
    if given is None:
        raise InputError(f"metric {metric.name!r} gave None; {wanted}")
    if scores.shape != (len(targets),):
        raise InputError(
            f"metric {metric.name!r} gave shape {scores.shape} for {len(targets)} samples; {wanted}"
        )
    if not np.isfinite(scores).all():
        raise InputError(f"metric {metric.name!r} gave NaN or infinite scores; {wanted}")
    return scores


def correct(outputs: Any, targets: Array) -> Array:
    """1.0 where the largest score of a row is the target's, else 0.0; shape (N,).

    Outputs are N x classes; of a tuple or dict the first entry counts.

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
    """Mean cross-entropy of the (first) output's logits."""
    if isinstance(outputs, dict):
        outputs = next(iter(outputs.values()))
    elif isinstance(outputs, tuple):
        outputs = outputs[0]
    return functional.cross_entropy(outputs, targets)


@dataclass(frozen=True, eq=False)
class Task:
    """What the user brings.

    Attributes:
        model: a trained `nn.Module`.
        example: inputs of one batch, two samples or more: a tensor, a tuple or a dict.
        train: batches to learn and calibrate from.
        test: batches looked at in the end alone, for the original and at most three candidates.
        validation: batches that the search looks at; None sets a tenth of `train` aside for it.
        loss: (outputs, targets) to a scalar tensor.
        metric: see `Metric`.
        name: as printed.
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


def as_call(inputs: Inputs) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The positional and keyword arguments that call a model with `inputs`.

    >>> as_call({"image": 1})
    ((), {'image': 1})
    """
    if isinstance(inputs, dict):
        return (), dict(inputs)
    if isinstance(inputs, list | tuple):
        return tuple(inputs), {}
    return (inputs,), {}


def batch_dims(inputs: Any, batch: Any) -> dict[int, dict[int, Any] | None]:
    """By the identity of each tensor, `{0: batch}` where it has one entry for each sample.

    Those are the tensors whose first dimension is as large as the first tensor's; the others (a
    step, the edges of a graph) belong to the batch as a whole.
    """
    leaves = torch.utils._pytree.tree_leaves(inputs)
    samples = leaves[0].shape[0]
    return {
        id(leaf): {0: batch} if leaf.dim() and leaf.shape[0] == samples else None for leaf in leaves
    }


def count(inputs: Inputs) -> int:
    """How many samples a batch's inputs hold."""
    first: Tensor = torch.utils._pytree.tree_leaves(inputs)[0]
    return int(first.shape[0])
