"""Distill: the loss that lets a small network learn from a large one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from penjing.errors import InputError


def soft_loss(outputs: Any, taught: Any, temperature: float) -> Tensor:
    """T^2 KL(teacher || student) of the first output's scores, both softened by T.

    Args:
        outputs, taught: the student's and the teacher's outputs; of a tuple or dict the first
            entry counts. Scores are N x classes, or N x classes x positions.
        temperature: T; larger is softer.

    Returns:
        The mean over samples (and positions), a scalar.

    Raises:
        InputError: the outputs aren't scores of two classes or more, or the widths differ.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015.

    >>> scores = torch.tensor([[2.0, 0.0]])
    >>> soft_loss(scores, scores, 4.0).item()
    0.0
    """
    mine, theirs = (torch.utils._pytree.tree_leaves(tree)[0] for tree in (outputs, taught))
    if mine.shape != theirs.shape:
        raise InputError(
            f"the student gives outputs of shape {tuple(mine.shape)}, its teacher "
            f"{tuple(theirs.shape)}; they must be alike, or set distill=0"
        )
    if mine.dim() < 2 or mine.shape[1] < 2:
        raise InputError(
            f"outputs of shape {tuple(mine.shape)} can't be distilled; wanted N x classes with two "
            "classes or more, or set distill=0"
        )
    log_p = functional.log_softmax(theirs.float() / temperature, 1)
    log_q = functional.log_softmax(mine.float() / temperature, 1)
    divergence = functional.kl_div(log_q, log_p, log_target=True, reduction="none").sum(1)
    return temperature**2 * divergence.mean()
