"""Train: fine-tune a network, distilled from the original, deterministic with a seed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import as_arrays
from penjing.errors import InputError
from penjing.network import Network
from penjing.task import Task, as_call

Progress = Callable[[str, float], None]


@dataclass(frozen=True)
class TuneOptions:
    """How to train.

    Attributes:
        epochs: passes over the training data; may be a fraction.
        seconds: stop after this long at the latest; the schedule still comes to its end.
        optimizer: `"sgd"` (Nesterov momentum 0.9) or `"adamw"`.
        lr: the peak of the one-cycle schedule.
        weight_decay: of weights with two dimensions or more.
        distill: share (0..1) of the teacher's soft targets in the loss; 0 is the plain loss.
        temperature: of the soft targets.
        patience: evaluations on the validation data without gain before training stops.
        device: `"auto"`, `"cpu"` or `"cuda"`; bfloat16 on CUDA.
    """

    epochs: float = 1.0
    seconds: float | None = None
    optimizer: str = "sgd"
    lr: float = 0.02
    weight_decay: float = 5e-4
    distill: float = 0.9
    temperature: float = 4.0
    patience: int = 3
    device: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        if self.optimizer not in ("sgd", "adamw"):
            raise InputError(f"optimizer must be sgd or adamw; found {self.optimizer!r}")
        if not (self.epochs > 0 and self.lr > 0 and 0 <= self.distill <= 1):
            raise InputError(
                "epochs and lr must be positive and distill in [0, 1]; found "
                f"{self.epochs}, {self.lr}, {self.distill}"
            )


def train(
    network: Network, task: Task, options: TuneOptions, progress: Progress | None = None
) -> Network:
    """A trained copy of `network`, in evaluation mode, with the weights that validated best.

    The loss is (1 - a) task.loss + a T^2 KL(teacher || student) at temperature T, the teacher
    being the task's original model.

    Source: Hinton, Vinyals, Dean, "Distilling the Knowledge in a Neural Network", 2015;
    L. N. Smith, "Super-Convergence", 2018 (one-cycle).

    Raises:
        InputError: the loss is not finite, CUDA is asked for and absent, or outputs can't be
            distilled.
    """
    device = _device(options.device)
    student = copy.deepcopy(network).to(device)
    with _seeded(options.seed), _frozen_teacher(task.model, device) as teacher:
        _run(student, teacher, task, options, device, progress)
    home = network.device
    return student.to(home).eval()


def _run(
    student: Network,
    teacher: nn.Module,
    task: Task,
    options: TuneOptions,
    device: torch.device,
    progress: Progress | None,
) -> None:
    per_epoch = sum(1 for _ in _lengths(task))
    steps = max(1, round(options.epochs * per_epoch))
    optimizer = _optimizer(student, options)
    best_score, best_state, stale = -math.inf, None, 0
    if task.validation is not None:  # so that training never ends worse than it began
        best_score, best_state = validate(student, task, device), _snapshot(student)
    check_every = max(1, min(per_epoch, steps))
    start, share, step = time.monotonic(), 0.0, 0
    student.train()
    while share < 1:
        for inputs, targets in task.train:
            for group in optimizer.param_groups:
                group["lr"] = options.lr * one_cycle(share)
            loss = _loss(student, teacher, task, options, _to(inputs, device), targets.to(device))
            if not torch.isfinite(loss):
                raise InputError(f"the loss became {loss.item()} at step {step}; lower lr")
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            _average_gradients(student)
            optimizer.step()
            step += 1
            spent = time.monotonic() - start
            share = max(step / steps, spent / options.seconds if options.seconds else 0.0)
            if progress is not None:
                progress(f"step {step}, loss {loss.item():.3f}", min(share, 1.0))
            if share >= 1:
                break
            if step % check_every == 0 and task.validation is not None:
                score = validate(student, task, device)
                if score > best_score:
                    best_score, best_state, stale = score, _snapshot(student), 0
                else:
                    stale += 1
                    share = 1.0 if stale >= options.patience else share
                student.train()
                if share >= 1:
                    break
    if best_state is not None and validate(student, task, device) < best_score:
        student.load_state_dict(best_state)


def one_cycle(share: float, warm_up: float = 0.2, end: float = 1e-3) -> float:
    """The learning rate at a share of the training, relative to its peak.

    >>> [round(one_cycle(s), 3) for s in (0.0, 0.2, 1.0)]
    [0.04, 1.0, 0.001]
    """
    if share < warm_up:
        return 0.04 + 0.96 * share / warm_up
    angle = math.pi * min((share - warm_up) / (1 - warm_up), 1.0)
    return end + (1 - end) * (1 + math.cos(angle)) / 2


def validate(network: Network, task: Task, device: torch.device | None = None) -> float:
    """Mean score of the task's metric on its validation data."""
    assert task.validation is not None
    where = device or network.device
    network.eval()
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in task.validation:
            args, kwargs = as_call(_to(inputs, where))
            outputs = as_arrays(network(*args, **kwargs))
            scores = task.metric.scores(outputs, as_arrays(targets))
            total, count = total + float(scores.sum()), count + len(scores)
    return total / max(count, 1)


def _loss(
    student: Network,
    teacher: nn.Module,
    task: Task,
    options: TuneOptions,
    inputs: Any,
    targets: Tensor,
) -> Tensor:
    args, kwargs = as_call(inputs)
    with torch.autocast(targets.device.type, torch.bfloat16, enabled=targets.is_cuda):
        outputs = student(*args, **kwargs)
        plain = task.loss(outputs, targets)
        if options.distill == 0:
            return plain
        with torch.no_grad():
            taught = teacher(*args, **kwargs)
        mine, theirs = (torch.utils._pytree.tree_leaves(one)[0] for one in (outputs, taught))
        if mine.dim() != 2:
            raise InputError(
                f"outputs of shape {tuple(mine.shape)} can't be distilled; wanted N x classes, or "
                "set distill=0"
            )
        soft = functional.kl_div(
            functional.log_softmax(mine.float() / options.temperature, 1),
            functional.log_softmax(theirs.float() / options.temperature, 1),
            log_target=True,
            reduction="batchmean",
        )
        return (1 - options.distill) * plain + options.distill * options.temperature**2 * soft


def _optimizer(network: Network, options: TuneOptions) -> torch.optim.Optimizer:
    wide = [one for one in network.parameters() if one.requires_grad and one.dim() > 1]
    narrow = [one for one in network.parameters() if one.requires_grad and one.dim() <= 1]
    groups = [
        {"params": wide, "weight_decay": options.weight_decay},
        {"params": narrow, "weight_decay": 0.0},
    ]
    if options.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=options.lr)
    return torch.optim.SGD(groups, lr=options.lr, momentum=0.9, nesterov=True)


def _average_gradients(network: Network) -> None:
    """Under `torchrun`, every process steps by the mean of all gradients."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    for parameter in network.parameters():
        if parameter.grad is not None:
            torch.distributed.all_reduce(parameter.grad)
            parameter.grad /= torch.distributed.get_world_size()


def _lengths(task: Task) -> Iterator[None]:
    """One item per training batch, without making the batches where their number is known."""
    try:
        number = len(task.train)  # type: ignore[arg-type]
    except TypeError:
        number = sum(1 for _ in task.train)
    if number == 0:
        raise InputError("the training data is empty; give at least one batch")
    return iter([None] * number)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device cuda was asked for, but there is none here; use cpu or auto")
    return torch.device(name)


def _to(inputs: Any, device: torch.device) -> Any:
    return torch.utils._pytree.tree_map(lambda one: one.to(device), inputs)


def _snapshot(network: Network) -> dict[str, Tensor]:
    return {name: one.detach().clone() for name, one in network.state_dict().items()}


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch for the time being and give the caller's random state back."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


@contextmanager
def _frozen_teacher(model: nn.Module, device: torch.device) -> Iterator[nn.Module]:
    """A copy of the original, in evaluation mode, on the device."""
    yield copy.deepcopy(model).to(device).eval()
