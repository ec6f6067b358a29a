"""Processes: one training in all the processes that `torchrun` has started.

Each step takes as many batches as there are processes, or a multiple of it. Each process computes
the gradients of its share, and torch's `DistributedDataParallel` sums them up while they come.
Batches are weighted by their samples, so N processes take the steps that one process takes with
batches N times as large. Without a process group, or with a single process, nothing here waits for
anyone.
"""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import distributed, fx, nn
from torch.nn.parallel import DistributedDataParallel

from penjing.errors import InputError, MachineError, first_line
from penjing.network import Network
from penjing.tasks.targets import Targets, samples_in

if distributed.is_available():
    # This import has to come before a process group exists: the functions keep the group that they
    # see when they are defined, and its threads would outlive it. torch.export imports it too late.
    import torch.distributed.nn


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


def size() -> int:
    """The number of processes that train together; 1 without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


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


def replicated(network: Network, device: torch.device) -> nn.Module:
    """The network, with its gradients averaged over the processes in each backward pass.

    Its parameters become those of the first process. Raises as `agree` does.

    Raises:
        InputError: the processes have different networks.
    """
    if size() == 1:
        return network
    mine = [(name, list(tensor.shape)) for name, tensor in network.state_dict().items()]
    if any(theirs != mine for theirs in merged([mine], device)):
        raise InputError("the processes have different networks; give all of them the same task")
    with warnings.catch_warnings():  # newer versions of torch have another name for the option
        warnings.filterwarnings("ignore", ".broadcast_buffers. is", FutureWarning)
        return DistributedDataParallel(
            network, broadcast_buffers=False, find_unused_parameters=_may_have_unused(network)
        )


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


def synchronous(model: nn.Module, last: bool) -> AbstractContextManager[None]:
    """Where a forward and a backward pass run; gradients are only exchanged in the last of a step.

    Args:
        model: what `replicated` returned.
        last: whether it is the last batch of this process's share.
    """
    apart = isinstance(model, DistributedDataParallel) and not last
    return model.no_sync() if apart else nullcontext()  # type: ignore[operator]


def agree(value: float, device: torch.device) -> float:
    """Return the first process's value in all processes.

    Raises:
        OtherError: another process can't go on.
        MachineError: another process has ended.
    """
    return _of_all(value, device)[0]


def mean(value: float, device: torch.device) -> float:
    """Return the mean of the processes' values in all of them; raises as `agree` does."""
    values = _of_all(value, device)
    return sum(values) / len(values)


def merged(mine: list[Any], device: torch.device) -> list[Any]:
    """What all processes have, in turns: the first of each, then the second of each, and so on.

    Raises as `agree` does.
    """
    if size() == 1:
        return mine
    agree(0.0, device)
    lists: list[list[Any]] = [[] for _ in range(size())]
    distributed.all_gather_object(lists, mine)
    end = object()
    turns = itertools.zip_longest(*lists, fillvalue=end)
    return [item for turn in turns for item in turn if item is not end]


class OtherError(InputError):
    """Another process can't go on; the message is what it said."""


@contextmanager
def ending_together(device: torch.device) -> Iterator[None]:
    """What is raised within, between the exchanges of the processes, ends what all of them do.

    The others learn of it where they call `agree` next, or what calls it. So every exchange begins
    with that, but for those of a backward pass: what fails there has to end its process.
    """
    try:
        yield
    except (OtherError, MachineError):
        raise
    except Exception as error:
        if size() > 1 and not isinstance(error, distributed.DistBackendError):
            _exchanged([0.0, 1.0], device)
            _told(first_line(error))
        raise


def _of_all(value: float, device: torch.device) -> list[float]:
    if size() == 1:
        return [value]
    everyone = _exchanged([value, 0.0], device)
    failed = [k for k, (_, has_failed) in enumerate(everyone) if has_failed]
    if failed:
        said = _told("")
        raise OtherError(f"process {failed[0]} of {size()}: {said[failed[0]]}")
    return [theirs for theirs, _ in everyone]


def _exchanged(mine: list[float], device: torch.device) -> list[list[float]]:
    given = torch.tensor(mine, dtype=torch.float64, device=device)
    everyone = [torch.empty_like(given) for _ in range(size())]
    try:
        distributed.all_gather(everyone, given)
    except RuntimeError as error:
        raise MachineError(
            f"one of the {size()} processes that train together has ended "
            f"({first_line(error)}); see what it printed"
        ) from error
    return [theirs.tolist() for theirs in everyone]


def _told(line: str) -> list[str]:
    lines: list[str] = [""] * size()
    distributed.all_gather_object(lines, line)
    return lines


def share_buffers(network: nn.Module, device: torch.device) -> None:
    """Copy the first process's buffers, such as batch norm statistics, to all processes.

    Raises as `agree` does.
    """
    if size() > 1:
        agree(0.0, device)
        for buffer in network.buffers():
            distributed.broadcast(buffer, 0)
