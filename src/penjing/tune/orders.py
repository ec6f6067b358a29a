"""Orders: what the first of torchrun's processes asks of the others, which wait for it.

The first process searches, writes files and measures them. The others only train. So it sends them
each network that is to be trained, without pickle, as `penjing.network.save` writes it.
"""

from __future__ import annotations

import json
import os
import signal
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import distributed

from penjing.contract import Json
from penjing.errors import MachineError, first_line
from penjing.network import Network, restore, save
from penjing.tasks.task import Task
from penjing.tune import exchange
from penjing.tune.options import TuneOptions

What = Literal["train", "time a few steps"]
END = "end"
_followed = False
"""Whether the other processes wait for orders."""


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

    def network(self, task: Task) -> Network:
        """What is to be trained. Every process restores it, so that all have its tensors in one
        order."""
        with tempfile.TemporaryDirectory() as folder:
            for name, content in self.files.items():
                Path(folder, name).write_bytes(content)
            return restore(folder, task.model, task.example)


@contextmanager
def joined() -> Iterator[None]:
    """Join the processes that `torchrun` has started, if it has, for the time of the block.

    All but the first one then ignore Ctrl-C, since they end when that one does.

    Raises:
        MachineError: they can't reach each other.
    """
    global _followed
    own = not (distributed.is_available() and distributed.is_initialized())
    if own and os.environ.get("WORLD_SIZE", "1") == "1":
        yield
        return
    try:
        if own:
            _begin()
        exchange.agree()
    except (RuntimeError, ValueError) as error:
        raise MachineError(
            f"the processes of torchrun can't reach each other: {first_line(error)}"
        ) from error
    _followed = True
    try:
        with _without_ctrl_c() if exchange.rank() else nullcontext():
            yield
    finally:
        _followed = False
        exchange.leave()
        if own:
            distributed.destroy_process_group()


@contextmanager
def _without_ctrl_c() -> Iterator[None]:
    """Ignore Ctrl-C, if this is the main thread, which alone gets it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _begin() -> None:
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
        distributed.init_process_group("cpu:gloo,cuda:nccl")
    else:
        distributed.init_process_group("gloo")


def send(
    what: What, network: Network, task: Task, options: TuneOptions, seconds: float | None = None
) -> Order | None:
    """In the first process: let the others do the same. None where no others wait."""
    if not _followed or exchange.rank():
        return None
    with tempfile.TemporaryDirectory() as folder:
        save(network, folder)
        files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
    order = Order(what, options, seconds, task.validation is not None, files)
    exchange.handed_out(
        _as_bytes(
            what, options=asdict(options), seconds=seconds, validates=order.validates,
            files=list(files),
        )
    )  # fmt: skip
    for content in files.values():
        exchange.handed_out(content)
    return order


def end(result: Json) -> None:
    """In the first process: let the others end, with what came of it all."""
    if _followed and not exchange.rank():
        exchange.handed_out(_as_bytes(END, result=result))


def received() -> Order | Json:
    """In the others: the next order, or what `end` was given.

    Raises:
        LostProcessError: the first process has ended.
    """
    told = json.loads(exchange.handed_out(b""))
    if told["what"] == END:
        result: Json = told["result"]
        return result
    files = {name: exchange.handed_out(b"") for name in told["files"]}
    options = TuneOptions(**told["options"])
    return Order(told["what"], options, told["seconds"], told["validates"], files)


def _as_bytes(what: str, **rest: Any) -> bytes:
    return json.dumps({"what": what, **rest}).encode()
