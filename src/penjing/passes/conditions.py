"""Conditions: what passes require of a task and a network, and provide to later passes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor

from penjing.contract import LeftAlone
from penjing.errors import InputError, in_one_line
from penjing.network import Network
from penjing.network.edits.table import EDITS
from penjing.network.graph.qparams import qparams_in, weight_qparams
from penjing.tasks.batches import Wanted, refuse_generator
from penjing.tasks.data import calibration, first
from penjing.tasks.targets import Targets, moved
from penjing.tasks.task import Inputs, Task, as_call

SAMPLES = 64  # in the batch on which a loss is tried


class Condition(Enum):
    """A condition that a task (the first three) or a network can meet, described by its value."""

    CALIBRATION = "training samples shaped like the example"
    LABELS = "a label for each training sample"
    GRADIENTS = "a loss with gradients"
    FLOAT = "no quantized weights or activations"
    REDUCED = "a reduced structure"
    SOLVED = "layers solved by least squares"
    TRAINED = "trained weights"
    SHARED = "weights that share few values"
    ROUNDED = "quantized weights"
    ROUNDED_VALUES = "quantized activations"
    CORRECTED = "biases corrected for the mean rounding error"
    REFINED = "weights whose rounding errors compensate each other"
    LEARNED = "learned rounding"


OF_NETWORK: dict[Condition, tuple[Callable[[Network], bool], str]] = {
    Condition.FLOAT: (
        lambda network: not any(qparams_in(network)),
        "the weights or activations are quantized already",
    ),
    Condition.REDUCED: (lambda network: _is_reduced(network), "nothing has been removed yet"),
    Condition.ROUNDED: (
        lambda network: bool(weight_qparams(network)),
        "no weight is quantized; apply Quantize first",
    ),
}
"""The conditions that can be read off a network: how to check each, and the message if it fails."""


def lacking(network: Network, required: frozenset[Condition]) -> LeftAlone | None:
    """Why a pass with these requirements has nothing to do; None if it may have something."""
    for condition, (holds, words) in OF_NETWORK.items():
        if condition in required and not holds(network):
            return LeftAlone("the network", words)
    return None


def require_of_task(
    name: str, required: frozenset[Condition], network: Network, task: Task
) -> None:
    """Check, on the first samples of a task, that it meets the requirements of the pass `name`.

    The check leaves torch's random state unchanged.

    Raises:
        InputError: a requirement isn't met; the message says what is wrong with the data or the
            loss.
    """
    if required.isdisjoint(OF_TASK):
        return
    refuse_generator(task.train, "training")
    with torch.random.fork_rng():
        for condition, check in OF_TASK.items():
            if condition in required:
                check(name, network, task)


def _require_calibration(name: str, network: Network, task: Task) -> None:
    for _ in calibration(task, 2):
        pass


def _require_labels(name: str, network: Network, task: Task) -> None:
    inputs, targets = _first_batch(name, task)
    Wanted(task.example).check("training", inputs, targets, "its first batch")


def _require_gradients(name: str, network: Network, task: Task) -> None:
    inputs, targets = moved(_first_batch(name, task), network.device)
    args, kwargs = as_call(inputs)
    student = copy.deepcopy(network).eval() if network.training else network
    with torch.enable_grad():
        outputs = student(*args, **kwargs)
        try:
            loss = task.loss(outputs, targets)
        except Exception as error:  # raised by the user's code
            raise InputError(
                f"{name} needs the task's loss, which raised {in_one_line(error)} on the first "
                "training batch; a loss takes (outputs, targets)"
            ) from error
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad:
        return
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    if isinstance(loss, Tensor) and not loss.requires_grad:
        given += " without gradients"
    raise InputError(
        f"{name} needs a loss with gradients; the task's loss returned {given[:200]} for the first "
        "training batch; return one number that torch computes from the outputs"
    )


def _first_batch(name: str, task: Task) -> tuple[Inputs, Targets]:
    batches = first(task.train, SAMPLES)
    if not batches:
        raise InputError(f"{name} needs training data, but there is none; give at least one batch")
    return batches[0]


OF_TASK: dict[Condition, Callable[[str, Network, Task], None]] = {
    Condition.CALIBRATION: _require_calibration,
    Condition.LABELS: _require_labels,
    Condition.GRADIENTS: _require_gradients,
}
"""How to check a task for each condition: (name of the pass, network, task)."""


def _is_reduced(network: Network) -> bool:
    edits = (edit for plan in network.history for edit in plan.edits)
    return any(EDITS[edit["edit"]].reduces for edit in edits)
