"""Exchange: what the processes that `torchrun` has started tell each other.

All exchanges go over the CPU, so that they work beside any device. Those of torch's own, as of
gradients, don't tell what failed elsewhere. So each of them has an `agree` before it, and a process
in which something fails says so there. Without a process group, or with a single process, nothing
here waits for anyone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
from torch import distributed

from penjing.errors import InputError, LostProcessError, first_line

if distributed.is_available():
    # This import has to come before a process group exists: the functions keep the group that they
    # see when they are defined, and its threads would outlive it. torch.export imports it too late.
    import torch.distributed.nn

LONGEST = timedelta(days=30)
"""How long a process waits for the others. One that ended is noticed at once."""
WITHDRAWN = "gradients were being exchanged, so the other processes end too"
"""What is noted on an error that nobody can be told."""
_groups: dict[Any, Any] = {}
"""The group of these exchanges, by the group of all processes that it belongs to."""


class OtherProcessError(InputError):
    """Another process can't go on with what all of them do; the message is what it said."""


def size() -> int:
    """The number of processes that train together; 1 without a process group."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_world_size()
    return 1


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if size() > 1 else 0


def agree(value: float = 0.0) -> float:
    """Return the first process's value in all processes.

    Raises:
        OtherProcessError: another process can't go on.
        LostProcessError: another process has ended.
    """
    return _of_all(value)[0]


def mean(value: float) -> float:
    """Return the mean of the processes' values in all of them; raises as `agree` does."""
    values = _of_all(value)
    return sum(values) / len(values)


def merged(mine: list[Any]) -> list[Any]:
    """What all processes have, in turns: the first of each, then the second of each, and so on.

    It goes from one process to the other by pickle. Raises as `agree` does.
    """
    if size() == 1:
        return mine
    agree()
    end = object()
    turns = itertools.zip_longest(*_objects(mine), fillvalue=end)
    return [item for turn in turns for item in turn if item is not end]


def handed_out(content: bytes) -> bytes:
    """The first process's bytes, in all processes.

    Raises:
        LostProcessError: another process has ended.
    """
    length = torch.tensor(len(content), dtype=torch.int64)
    with _noticing():
        distributed.broadcast(length, 0, group=group())
        data = torch.empty(int(length), dtype=torch.uint8)
        if not rank():
            data[:] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        distributed.broadcast(data, 0, group=group())
    return data.numpy().tobytes()


@contextmanager
def ending_together() -> Iterator[None]:
    """What is raised within, in any process, ends what all of them do there.

    The others learn of it where they call `agree` next, or what calls it. What fails while torch
    exchanges something can't be told: then a process has to end, see `while_torch_exchanges`.
    """
    try:
        yield
    except (OtherProcessError, LostProcessError):
        raise
    except BaseException as error:  # Ctrl-C too; it is raised again
        if size() > 1 and WITHDRAWN not in getattr(error, "__notes__", ()):
            _exchanged([0.0, 1.0])
            _objects(first_line(error))
        raise


@contextmanager
def while_torch_exchanges() -> Iterator[None]:
    """Where torch's own exchange may be going on, from which a process can't withdraw.

    Raises:
        LostProcessError: torch failed, for want of memory or of another process, and there are
            several processes. Anything else is raised as it is.
    """
    if size() == 1:
        yield
        return
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise LostProcessError(
            f"process {rank()} of {size()} failed while gradients were exchanged: "
            f"{first_line(error)}"
        ) from error
    except Exception as error:
        error.add_note(WITHDRAWN)
        raise


def group() -> Any:
    """The group of these exchanges. All processes must ask for it for the first time together."""
    whole = distributed.group.WORLD
    if whole not in _groups:
        _groups.clear()
        _groups[whole] = distributed.new_group(backend="gloo", timeout=LONGEST)
    return _groups[whole]


def leave() -> None:
    """Forget the group, before the processes part."""
    _groups.clear()


def _of_all(value: float) -> list[float]:
    if size() == 1:
        return [value]
    everyone = _exchanged([value, 0.0])
    failed = [k for k, (_, has_failed) in enumerate(everyone) if has_failed]
    if failed:
        said = _objects("")
        raise OtherProcessError(f"process {failed[0]} of {size()}: {said[failed[0]]}")
    return [theirs for theirs, _ in everyone]


def _exchanged(mine: list[float]) -> list[list[float]]:
    given = torch.tensor(mine, dtype=torch.float64)
    everyone = [torch.empty_like(given) for _ in range(size())]
    with _noticing():
        distributed.all_gather(everyone, given, group=group())
    return [theirs.tolist() for theirs in everyone]


def _objects(mine: Any) -> list[Any]:
    everyone: list[Any] = [None] * size()
    with _noticing():
        distributed.all_gather_object(everyone, mine, group=group())
    return everyone


@contextmanager
def _noticing() -> Iterator[None]:
    """Notice that another process has ended."""
    try:
        yield
    except RuntimeError as error:
        raise LostProcessError(
            f"one of the {size()} processes that train together has ended ({first_line(error)}); "
            "see what it printed"
        ) from error
