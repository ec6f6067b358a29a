"""Distill: the loss with which a small network learns from a large one."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from penjing.errors import InputError


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
    mine, theirs = (torch.utils._pytree.tree_leaves(tree)[0] for tree in (outputs, taught))
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
