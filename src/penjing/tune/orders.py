"""Orders: what the first of torchrun's processes asks of the others, which wait for it.

The first process searches, writes files and measures them. The others only train. So it sends them
each network that is to be trained, without pickle, as `penjing.network.save` writes it.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed, nn

from penjing.contract import Json
from penjing.errors import MachineError, first_line
from penjing.network import Network, restore, save
from penjing.tasks.task import Task
from penjing.tune import processes
from penjing.tune.options import TuneOptions

What = Literal["train", "time a few steps"]
LONGEST = timedelta(days=30)
"""How long a process waits for its next order. One that ended is noticed at once."""
END = "end"
_waiting: list[Any] = []
"""The group in which orders are sent, while there is one."""


@dataclass(frozen=True)
class Order:
    """Something that all processes do together.

    Attributes:
        what: the name of it.
        options: how to train.
        seconds: after so many the training ends; the first process's clock decides.
        validates: whether the task that is trained has validation data, as it may not.
        files: those of the saved network, by name.
    """

    what: What
    options: TuneOptions
    seconds: float | None
    validates: bool
    files: Mapping[str, bytes]

    def network(self, model: nn.Module, example: Any) -> Network:
        """What is to be trained; `model` is the task's."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            return restore(folder, model, example)


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` has started, if it has, for the time of the block.

    Raises:
        MachineError: they can't reach each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) == 1 or processes.size() > 1:
        yield
        return
    on_cuda = torch.cuda.is_available()
    if on_cuda:
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    try:
        distributed.init_process_group("cpu:gloo,cuda:nccl" if on_cuda else "gloo")
        _waiting.append(distributed.new_group(backend="gloo", timeout=LONGEST))
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"the processes of torchrun can't reach each other: {first_line(error)}"
        ) from error
    try:
        yield
    finally:
        _waiting.clear()
        distributed.destroy_process_group()


def send(
    what: What, network: Network, task: Task, options: TuneOptions, seconds: float | None = None
) -> Network:
    """In the first process: let the others do the same, with the network that is returned.

    That one was saved and restored as the others do it, so that all have its tensors in one order.
    Where no others wait, it is the given one.
    """
    if not _waiting or processes.rank():
        return network
    validates = task.validation is not None
    with tempfile.TemporaryDirectory() as folder:
        save(network, folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    _exchange(
        _as_bytes(
            what, options=asdict(options), seconds=seconds, validates=validates, files=list(files)
        )
    )
    for content in files.values():
        _exchange(content)
    return Order(what, options, seconds, validates, files).network(task.model, task.example)


def end(result: Json) -> None:
    """In the first process: let the others end, with what came of it all."""
    if _waiting and not processes.rank():
        _exchange(_as_bytes(END, result=result))


def received() -> Order | Json:
    """In the others: the next order, or what `end` was given.

    Raises:
        MachineError: the first process has ended.
    """
    told = json.loads(_exchange(b""))
    if told["what"] == END:
        result: Json = told["result"]
        return result
    files = {name: _exchange(b"") for name in told["files"]}
    options = TuneOptions(**told["options"])
    return Order(told["what"], options, told["seconds"], told["validates"], files)


def _as_bytes(what: str, **rest: Any) -> bytes:
    return json.dumps({"what": what, **rest}).encode()


def _exchange(content: bytes) -> bytes:
    """The first process's bytes, in all processes."""
    size = torch.tensor(len(content), dtype=torch.int64)
    try:
        distributed.broadcast(size, 0, group=_waiting[0])
        data = torch.empty(int(size), dtype=torch.uint8)
        if not processes.rank():
            data[:] = torch.frombuffer(bytearray(content), dtype=torch.uint8)
        distributed.broadcast(data, 0, group=_waiting[0])
    except RuntimeError as error:
        raise MachineError(
            f"one of the {processes.size()} processes has ended ({first_line(error)}); see what it "
            "printed"
        ) from error
    return data.numpy().tobytes()
