"""Conditions: what passes require of a task and a network, and what they provide for later ones."""

from __future__ import annotations

import copy
from collections.abc import Callable
from enum import Enum

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.contract import LeftAlone
from penjing.errors import InputError, in_one_line
from penjing.network import Network
from penjing.network.graph.qparams import qparams_in, weight_qparams
from penjing.tasks.batches import Wanted, refuse_generator
from penjing.tasks.data import calibration, first
from penjing.tasks.task import Inputs, Task, as_call

SAMPLES = 64  # of the batch by which a loss is tried


class Condition(Enum):
    """What may hold of a task (the first three) or of a network; the value says so in words."""

    CALIBRATION = "training samples of the example's form"
    LABELS = "a label for each training sample"
    GRADIENTS = "a loss with gradients"
    FLOAT = "weights and values that aren't rounded"
    REMOVED = "removed channels"  # by the edit `shrink`
    SOLVED = "layers solved by least squares"
    TRAINED = "trained weights"
    ROUNDED = "weights on grids of integers"
    ROUNDED_VALUES = "values on grids of integers"
    CORRECTED = "biases without the mean error of rounding"
    REFINED = "weights rounded so that errors make up for each other"
    LEARNED = "learned rounding"


OF_NETWORK: dict[Condition, tuple[Callable[[Network], bool], str]] = {
    Condition.FLOAT: (lambda network: not any(qparams_in(network)), "it is quantized already"),
    Condition.REMOVED: (lambda network: _is_cut(network), "nothing is cut"),
    Condition.ROUNDED: (
        lambda network: bool(weight_qparams(network)),
        "no weight is rounded; Quantize first",
    ),
}
"""What of a network can be seen by looking: how, and what is said of one of which it doesn't hold.
"""


def lacking(network: Network, required: frozenset[Condition]) -> LeftAlone | None:
    """Why there is nothing to do for a pass that requires this; None if there may be something."""
    for condition, (holds, words) in OF_NETWORK.items():
        if condition in required and not holds(network):
            return LeftAlone("the network", words)
    return None


def require_of_task(
    name: str, required: frozenset[Condition], network: Network, task: Task
) -> None:
    """Check by the first samples that a task brings what the pass `name` requires.

    torch's random state is left as it was.

    Raises:
        InputError: it doesn't; the line says what is wrong with its data or its loss.
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
    inputs, targets = pytree.tree_map(
        lambda leaf: leaf.to(network.device), _first_batch(name, task)
    )
    args, kwargs = as_call(inputs)
    student = copy.deepcopy(network).eval() if network.training else network
    with torch.enable_grad():
        outputs = student(*args, **kwargs)
        try:
            loss = task.loss(outputs, targets)
        except Exception as error:  # the user's own
            raise InputError(
                f"{name} needs the task's loss, which raised {in_one_line(error)} on the first "
                "training batch; it takes (outputs, targets)"
            ) from error
    if isinstance(loss, Tensor) and loss.numel() == 1 and loss.requires_grad:
        return
    given = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
    if isinstance(loss, Tensor) and not loss.requires_grad:
        given += " without gradients"
    raise InputError(
        f"{name} needs a loss with gradients; the task's gave {given[:200]} for the first training "
        "batch; wanted one number, computed from the outputs by torch"
    )


def _first_batch(name: str, task: Task) -> tuple[Inputs, Tensor]:
    batches = first(task.train, SAMPLES)
    if not batches:
        raise InputError(f"{name} needs training data, and there is none; give at least one batch")
    return batches[0]


OF_TASK: dict[Condition, Callable[[str, Network, Task], None]] = {
    Condition.CALIBRATION: _require_calibration,
    Condition.LABELS: _require_labels,
    Condition.GRADIENTS: _require_gradients,
}
"""How a task is checked for each, by (the pass's name, the network, the task)."""


def _is_cut(network: Network) -> bool:
    edits = (edit for plan in network.history for edit in plan.edits)
    return any(edit["edit"] == "shrink" for edit in edits)
