"""Judged: the loss and the scores of answers to the same samples."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.contract import as_arrays
from penjing.errors import InputError
from penjing.measure.scores import Scores, judged
from penjing.tasks.metrics import scored
from penjing.tasks.targets import Targets, samples_in, targets_as_arrays
from penjing.tasks.task import Task, loss_of


@dataclass(frozen=True)
class Judged:
    """What a network or a file answers on samples.

    Attributes:
        scores: what the task's metric says.
        loss: the mean of the task's loss.
    """

    scores: Scores
    loss: float


def judge_answers(task: Task, answers: Iterable[tuple[Any, Targets]]) -> Judged:
    """The loss and the scores of answers.

    Args:
        task: what judges them.
        answers: the outputs, as tensors or arrays, and the targets, batch by batch.

    Raises:
        InputError: the metric or the loss can't take them, or the loss isn't finite.
    """
    parts, losses, count = [], [], 0
    for outputs, targets in answers:
        parts.append(scored(task.metric, as_arrays(outputs), targets_as_arrays(targets)))
        samples = samples_in(targets)
        loss = loss_of(task, pytree.tree_map(_as_tensor, outputs), targets)
        losses.append(float(loss) * samples)
        count += samples
    total = math.fsum(losses) / count
    if not math.isfinite(total):
        raise InputError("its outputs or its loss are NaN or infinite")
    return Judged(judged(task.metric, parts), total)


def _as_tensor(value: Any) -> Tensor:
    return value if isinstance(value, Tensor) else torch.as_tensor(value)
