"""Replicas: one network in several processes, each of which computes its share of every step.

Each step takes as many batches as there are processes, or a multiple of it. Each process computes
the gradients of its share, and torch's `DistributedDataParallel` sums them up while they come.
Batches are weighted by their samples, so N processes take the steps that one process takes with
batches N times as large, if the loss is a mean over samples.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from torch import distributed, fx, nn
from torch.nn.parallel import DistributedDataParallel

from penjing.errors import InputError
from penjing.network import Network
from penjing.tasks.batches import number_of_batches
from penjing.tasks.targets import Targets, samples_in
from penjing.tasks.task import Task
from penjing.tune.exchange import agree, merged, rank, size


@dataclass(frozen=True)
class Part:
    """A batch of this process's share of a step.

    Attributes:
        inputs, targets: the batch.
        weight: what its loss is multiplied by, so that the mean over the processes of all their
            gradients is that of the step's samples. 0 for a batch that only keeps a process busy
            while others have one more.
    """

    inputs: Any
    targets: Targets
    weight: float


def shares(batches: Iterable[tuple[Any, Targets]], accumulate: int) -> Iterator[list[Part]]:
    """By step, what this process computes of it.

    Every process reads all batches, so that all know how many samples a step has.

    Args:
        batches: pairs of inputs and targets, the same in all processes.
        accumulate: the batches of each process in a step.
    """
    rest = iter(batches)
    while step := list(itertools.islice(rest, accumulate * size())):
        samples = [samples_in(targets) for _, targets in step]
        mine = range(rank(), len(step), size()) or range(1)
        idle = rank() >= len(step)
        yield [Part(*step[k], 0.0 if idle else size() * samples[k] / sum(samples)) for k in mine]


def replicated(network: Network, task: Task) -> nn.Module:
    """The network, with its gradients averaged over the processes in each backward pass.

    Its parameters become those of the first process.

    Raises:
        InputError: the processes have different networks, models or data; and as `agree` does.
    """
    if size() == 1:
        return network
    tensors = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    taught = sum(float(tensor.detach().double().sum()) for tensor in task.model.parameters())
    mine = {"networks": tensors, "models": taught, "data": number_of_batches(task.train)}
    for theirs in merged([mine]):
        for what, told in theirs.items():
            if told != mine[what]:
                raise InputError(f"the processes have different {what}; give all of them one task")
    agree()
    with warnings.catch_warnings():  # newer versions of torch have another name for the option
        warnings.filterwarnings("ignore", ".broadcast_buffers. is", FutureWarning)
        return DistributedDataParallel(
            network, broadcast_buffers=False, find_unused_parameters=_may_have_unused(network)
        )


def exchanging_gradients(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Where a forward and a backward pass run; gradients are only exchanged in the last of a step.

    Args:
        model: what `replicated` returned.
        last: whether it is the last batch of this process's share.
    """
    if last:
        agree()  # DistributedDataParallel may exchange something at the beginning of the forward
    apart = isinstance(model, DistributedDataParallel) and not last
    return model.no_sync() if apart else nullcontext()  # type: ignore[operator]


def share_buffers(network: nn.Module) -> None:
    """Copy the first process's buffers, such as batch norm statistics, to all processes.

    Raises as `agree` does.
    """
    if size() > 1:
        agree()
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)


def _may_have_unused(network: Network) -> bool:
    """Whether a loss may leave out some parameters: of several outputs, or of none."""
    *_, output = network.graph.nodes
    if len(output.all_input_nodes) > 1:
        return True
    reached, rest = set[fx.Node](), [output]
    while rest:
        node = rest.pop()
        rest += [source for source in node.all_input_nodes if source not in reached]
        reached.update(node.all_input_nodes)
    read = {str(node.target) for node in reached if node.op == "get_attr"}
    trained = (name for name, tensor in network.named_parameters() if tensor.requires_grad)
    return not read.issuperset(trained)
