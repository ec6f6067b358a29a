"""Distill: the losses with which a small network learns from a large one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree

from penjing.errors import InputError, in_one_line
from penjing.tasks.targets import are_classes

Distance = Callable[[Any, Any], Tensor]


def distance(
    outputs: Any, taught: Any, temperature: float, targets: Any, own: Distance | None = None
) -> Tensor:
    """How far the outputs of a network are from those of its teacher.

    If targets are classes, the first output holds their scores, and `soft_loss` compares them. All
    other outputs, such as boxes, maps and forecasts, are compared by smooth L1, each in units of
    its own spread, so that none outweighs the others.

    Args:
        outputs, taught: of the network and of the teacher, in the same structure.
        temperature: see `soft_loss`.
        targets: of the batch.
        own: the task's own function of outputs and taught, if it has one.

    Returns:
        A scalar.

    Raises:
        InputError: the outputs differ in structure or shape, or can't be compared.

    Source: R. Girshick, "Fast R-CNN", 2015 (smooth L1).

    >>> values = torch.tensor([[1.0], [3.0]])
    >>> distance(values, values, 4.0, values).item()
    0.0
    """
    if own is not None:
        return _own(own, outputs, taught)
    mine, theirs = pytree.tree_leaves(outputs), pytree.tree_leaves(taught)
    if [leaf.shape for leaf in mine] != [leaf.shape for leaf in theirs]:
        raise InputError(
            f"the outputs have the shapes {_shapes(mine)}, but those of the original model have "
            f"{_shapes(theirs)}; distillation needs equal shapes, or set distill=0"
        )
    parts = []
    if are_classes(targets):
        parts.append(soft_loss(mine[0], theirs[0], temperature))
        mine, theirs = mine[1:], theirs[1:]
    parts += [
        _smooth(output, wanted)
        for output, wanted in zip(mine, theirs, strict=True)
        if output.is_floating_point()
    ]
    if not parts:
        raise InputError("no output is a real number, so none can be distilled; set distill=0")
    return torch.stack(parts).mean()


def _own(own: Distance, outputs: Any, taught: Any) -> Tensor:
    try:
        value = own(outputs, taught)
    except Exception as error:  # the user's code may raise anything
        raise InputError(f"the task's distill raised {in_one_line(error)}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        what = f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else repr(value)
        raise InputError(f"the task's distill returned {what}; it must return one number")
    return value


def _smooth(output: Tensor, wanted: Tensor) -> Tensor:
    spread = wanted.float().std(correction=0).clamp_min(1e-6)
    return functional.smooth_l1_loss(output.float() / spread, wanted.float() / spread)


def _shapes(leaves: list[Tensor]) -> str:
    return ", ".join(str(tuple(leaf.shape)) for leaf in leaves)


def soft_loss(outputs: Any, taught: Any, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) between softmax distributions at the temperature T.

    Args:
        outputs, taught: the outputs of the student and of the teacher: class scores (N, C) or
            (N, C, positions..). Of a tuple or a dict, the first entry counts.
        temperature: T, above 0; a higher temperature gives softer targets.

    Returns:
        The mean over samples and positions, a scalar.

    Raises:
        InputError: the outputs aren't scores of at least two classes, or their shapes differ.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.

    >>> scores = torch.tensor([[2.0, 0.0]])
    >>> soft_loss(scores, scores, 4.0).item()
    0.0
    """
    mine, theirs = (pytree.tree_leaves(tree)[0] for tree in (outputs, taught))
    if mine.shape != theirs.shape:
        raise InputError(
            f"the outputs have the shape {tuple(mine.shape)}, but those of the original model have "
            f"{tuple(theirs.shape)}; distillation needs equal shapes, or set distill=0"
        )
    if mine.dim() < 2 or mine.shape[1] < 2:
        raise InputError(
            f"outputs of shape {tuple(mine.shape)} can't be distilled; distillation needs (N, "
            "classes) with at least two classes, or set distill=0"
        )
    log_p = functional.log_softmax(theirs.float() / temperature, 1)
    log_q = functional.log_softmax(mine.float() / temperature, 1)
    divergence = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
    return temperature**2 * divergence.mean()
