"""Train: fine-tune a network with distillation from the original, reproducibly with a seed."""

from __future__ import annotations

import copy
import itertools
import math
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from penjing.arith.binary import SIGN
from penjing.contract import as_arrays
from penjing.errors import InputError, require_positive
from penjing.network import Network, capture
from penjing.network.edits.fold import fold_batch_norm
from penjing.network.graph.qparams import value_qparams
from penjing.targets import this_machine
from penjing.tasks.batches import number_of_batches, require_repeatable
from penjing.tasks.metrics import joined, scored
from penjing.tasks.targets import Targets, moved, samples_in, targets_as_arrays
from penjing.tasks.task import Batches, Task, as_call, loss_of
from penjing.tune import exchange, orders, replicas
from penjing.tune.distill import distance
from penjing.tune.holding import Holding
from penjing.tune.optimizer import one_cycle, optimizer_for, set_rate
from penjing.tune.options import TuneOptions

Progress = Callable[[str, float], None]
Clock = Callable[[], float]


class Trained(NamedTuple):
    """A network after its training, and for how many epochs it was trained."""

    network: Network
    epochs: float


def train(
    network: Network,
    task: Task,
    options: TuneOptions,
    progress: Progress | None = None,
    clock: Clock = time.monotonic,
    seconds: float | None = None,
) -> Trained:
    """Train a copy of a network; the result is in evaluation mode, with the epochs that it got.

    The loss is (1 - d) task.loss + d distance(student, teacher); the teacher is the task's original
    model, and `penjing.tune.distill.distance` compares the two. The learning rate follows one
    cycle. With validation data, the function returns the weights of the epoch that validated best,
    the start included, so training never ends worse on that data than it began. If `torchrun` has
    started several processes and the caller has made a process group, all of them train one
    network. Training a quantized network also learns its scales (quantization-aware training),
    always in float32. Weights that `Sparsify` has set to zero stay zero, and those to which `Share`
    has given one value keep one value.

    Args:
        network: the network, which stays unchanged.
        task: its data, loss and metric.
        options: how to train.
        progress: called after each step with a line of text and the share that is done.
        clock: returns seconds since some moment.
        seconds: end the training after so many seconds of that clock, with the learning rate at the
            end of its cycle; None for no limit.

    Raises:
        InputError: the loss or the weights become NaN or infinite, CUDA is asked for and absent,
            the data can't be iterated twice, the outputs can't be distilled, or `seconds` isn't
            positive.

    Source: G. Hinton, O. Vinyals, J. Dean, "Distilling the Knowledge in a Neural Network", 2015;
    L. N. Smith, N. Topin, "Super-Convergence", 2017 (one cycle).
    """
    if seconds is not None:
        require_positive("seconds", seconds)
    device = device_of(options)
    order = orders.send("train", network, task, replace(options, device=device.type), seconds)
    with _seeded(options.seed), exchange.ending_together():
        network = network if order is None else order.network(task)
        require_repeatable(task.train, "training")
        if task.validation is not None:
            require_repeatable(task.validation, "validation")
        training = _prepared(network, task, options, device)
        training.progress, training.clock, training.seconds = progress, clock, seconds
        training.run()
    student = _in_layout(training.student.to(network.device), torch.contiguous_format).eval()
    return Trained(student, training.epochs)


def step_seconds(
    network: Network,
    task: Task,
    options: TuneOptions,
    clock: Clock = time.monotonic,
    steps: int = 4,
    seconds: float = 5.0,
) -> float:
    """The seconds that a training step takes, data loading included.

    The result is the median of a few real steps on a copy, without the first one.

    Args:
        network: the network, which stays unchanged.
        task: its data and loss.
        options: how to train.
        clock: returns seconds since some moment.
        steps: the number of steps to measure.
        seconds: start no further step after this time.

    Raises:
        InputError: as for `train`.
    """
    device, took = device_of(options), []
    order = orders.send("time a few steps", network, task, replace(options, device=device.type))
    with _seeded(options.seed), exchange.ending_together():
        network = network if order is None else order.network(task)
        require_repeatable(task.train, "training")
        training = _prepared(network, task, options, device)
        training.student.train()
        optimizer = optimizer_for(training.student, options)
        set_rate(optimizer, 0.04 * options.lr)
        begin = clock()
        for share in itertools.islice(training.shares(), 1 + steps):
            training._step(share, optimizer)
            took.append(clock() - begin)
            begin = clock()
            if exchange.agree(sum(took)) > seconds:
                break
    return statistics.median(took[1:] or took)


def steps_of_an_epoch(task: Task, options: TuneOptions) -> int:
    """How many steps a pass over the training data takes, 1 or more.

    Args:
        task: its data.
        options: how many batches each process takes in a step.
    """
    together = exchange.size() * options.accumulate
    return max(1, math.ceil(number_of_batches(task.train) / together))


def _prepared(
    network: Network, task: Task, options: TuneOptions, device: torch.device
) -> _Training:
    student = _in_layout(copy.deepcopy(network).to(device), torch.channels_last)
    teacher = None
    if options.distill:
        teacher = capture(task.model, task.example).to(device)
        fold_batch_norm(teacher)  # it isn't trained, and takes a fifth less time so
        teacher.compile_graph()
        teacher = _in_layout(teacher, torch.channels_last)
    mixed = _is_mixed(options.precision, device) and not _rounds_values(student)
    return _Training(student, teacher, task, options, device, mixed)


def validate(network: Network, task: Task) -> float:
    """The task's metric on the validation data; negative if a lower one is better.

    Each process judges its share of the batches.
    """
    assert task.validation is not None
    network.eval()
    parts = []
    mine = itertools.islice(task.validation, exchange.rank(), None, exchange.size())
    with torch.no_grad():
        for inputs, targets in mine:
            args, kwargs = as_call(_on(inputs, network.device))
            outputs = as_arrays(_wide(network(*args, **kwargs)))
            parts.append(scored(task.metric, outputs, targets_as_arrays(targets)))
    figure = task.metric.figure(joined(exchange.merged(parts)))
    return figure if task.metric.higher else -figure


@dataclass
class _Best:
    """The weights that validated best, and the number of epochs since then."""

    score: float = -math.inf
    state: dict[str, Tensor] = field(default_factory=dict)
    this_run: float = -math.inf
    stale: int = 0

    def see(self, score: float, network: Network) -> None:
        self.stale = 0 if score > self.this_run else self.stale + 1
        self.this_run = max(self.this_run, score)
        if score > self.score:
            self.score = score
            self.state = {
                key: tensor.detach().clone() for key, tensor in network.state_dict().items()
            }


@dataclass
class _Training:
    """One training, from the first step to the best weights."""

    student: Network
    teacher: Network | None
    task: Task
    options: TuneOptions
    device: torch.device
    mixed: bool
    progress: Progress | None = None
    clock: Clock = time.monotonic
    seconds: float | None = None
    step: int = 0

    def __post_init__(self) -> None:
        self.holding = Holding(self.student)

    @property
    def epochs(self) -> float:
        """For how many epochs it was trained so far."""
        return self.step / steps_of_an_epoch(self.task, self.options)

    @cached_property
    def model(self) -> nn.Module:
        """The student, whose gradients are those of all processes."""
        return replicas.replicated(self.student, self.task)

    def shares(self) -> Iterator[list[replicas.Part]]:
        """By step of a pass over the data, what this process computes."""
        return replicas.shares(_without_single_ones(self.task.train), self.options.accumulate)

    def run(self) -> None:
        """Train until the steps or the time are used up, and take the best weights."""
        options = self.options
        steps = max(1, round(options.epochs * steps_of_an_epoch(self.task, options)))
        optimizer = optimizer_for(self.student, options)
        best, begin = _Best(), self.clock()
        if self.task.validation is not None:
            best.see(self._score(), self.student)
            best.this_run = -math.inf  # the score at the start doesn't count for patience
        for _ in self._epochs(optimizer, steps, begin):
            if self.task.validation is not None:
                best.see(self._score(), self.student)
                if best.stale >= options.patience:
                    break
        if best.state:
            self.student.load_state_dict(best.state)
        replicas.share_buffers(self.student)
        _require_finite(self.student)

    def _epochs(self, optimizer: torch.optim.Optimizer, steps: int, begin: float) -> Iterator[None]:
        """Train until the steps or the time are used up; yields after each pass over the data."""
        share = 0.0
        for epoch in itertools.count(self.options.seed):
            if share >= 1:
                break
            torch.manual_seed(epoch)  # so that all processes shuffle alike
            self.student.train()
            before = self.step
            for mine in self.shares():
                set_rate(optimizer, self.options.lr * one_cycle(share))
                loss = self._step(mine, optimizer)
                spent = (self.clock() - begin) / self.seconds if self.seconds else 0.0
                share = exchange.agree(min(1.0, max(self.step / steps, spent)))
                if self.progress is not None:
                    self.progress(f"step {self.step}, loss {loss:.3f}", share)
                if share >= 1:
                    break
            if self.step == before:
                raise InputError("the training data has no batches")
            yield

    def _score(self) -> float:
        replicas.share_buffers(self.student)
        with self._autocast():
            return exchange.agree(validate(self.student, self.task))

    def _step(self, parts: list[replicas.Part], optimizer: torch.optim.Optimizer) -> float:
        """Take a step, and return the mean loss of its samples."""
        optimizer.zero_grad(set_to_none=True)
        value = 0.0
        for place, part in enumerate(parts, 1):
            with replicas.exchanging_gradients(self.model, last=place == len(parts)):
                inputs, targets = _on(part.inputs, self.device), moved(part.targets, self.device)
                loss = part.weight * self._loss(inputs, targets)
                value += loss.item()
                if not math.isfinite(value):
                    raise InputError(f"the loss became {value} at step {self.step}; lower lr")
                if place == len(parts):
                    value = exchange.mean(value)
                with exchange.while_torch_exchanges():
                    loss.backward()  # type: ignore[no-untyped-call]
        self.holding.before_step()
        optimizer.step()
        self.holding.after_step()
        self.step += 1
        return value

    def _loss(self, inputs: Any, targets: Targets) -> Tensor:
        args, kwargs = as_call(inputs)
        with self._autocast():
            outputs = _wide(self.model(*args, **kwargs))
            if self.teacher is None:
                return loss_of(self.task, outputs, targets)
            with torch.no_grad():
                taught = self.teacher(*args, **kwargs)
        own, heat = self.task.distill, self.options.temperature
        soft = distance(outputs, taught, heat, targets, own)
        if self.options.distill == 1:
            return soft
        plain = loss_of(self.task, outputs, targets)
        return (1 - self.options.distill) * plain + self.options.distill * soft

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.mixed)


def _rounds_values(network: Network) -> bool:
    """Whether values are integers or signs, whose levels and sums bfloat16 can't represent. Weights
    that are rounded are as exact in it as it is itself."""
    return bool(value_qparams(network)) or any(node.target is SIGN for node in network.calls())


def _without_single_ones(batches: Batches) -> Iterator[tuple[Any, Targets]]:
    """The batches with more than one sample, or all if no batch has more.

    Batch norm can't train on a batch of one sample, such as an incomplete last batch.
    """
    largest = 0
    for inputs, targets in batches:
        samples = samples_in(targets)
        largest = max(largest, samples)
        if samples > 1 or largest == 1:
            yield inputs, targets


def _require_finite(network: Network) -> None:
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise InputError(f"weight {name} became NaN or infinite in training; lower lr")


def device_of(options: TuneOptions) -> torch.device:
    """Where to train.

    Raises:
        InputError: CUDA is asked for and absent.
    """
    name = options.device
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError("device='cuda', but this machine has no CUDA device; use 'cpu' or 'auto'")
    return torch.device(name)


def _is_mixed(precision: str, device: torch.device) -> bool:
    """Whether to train in bfloat16; call this once, since it reads the processor's flags."""
    if precision == "auto":
        return device.type == "cuda" or "bfloat16" in this_machine().precisions
    return precision == "bfloat16"


def _in_layout(network: Network, layout: torch.memory_format) -> Network:
    """Change the memory format of image weights; convolutions train faster in channels-last."""
    for parameter in network.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=layout)
    return network


def _on(inputs: Any, device: torch.device) -> Any:
    """Move inputs to the device, with images in channels-last like the weights during training."""

    def move(tensor: Tensor) -> Tensor:
        tensor = tensor.to(device)
        return tensor.contiguous(memory_format=torch.channels_last) if tensor.dim() == 4 else tensor

    return pytree.tree_map(move, inputs)


def _wide(outputs: Any) -> Any:
    """Convert bfloat16 outputs to float32, so that the user's loss and metric get nothing else."""
    return pytree.tree_map(
        lambda leaf: leaf.float() if leaf.dtype is torch.bfloat16 else leaf, outputs
    )


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seed torch within the context, and restore the caller's random state afterwards."""
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices):
        torch.manual_seed(seed)
        yield
