"""Quarantine: a file that penjing didn't write runs once in a child process before it runs here.

Runtimes parse files in C++ and don't expect malice: one changed byte can crash the process, a loop
can run forever, and a few bytes can ask for all the memory there is. So such a file is first tried
in a child process with a deadline and a memory limit (`penjing.tools.in_quarantine`). This process
then loads exactly the bytes that passed. That protects against files that break a runtime. It
doesn't protect against files that take over the child, because the child has the user's rights.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.contract import Artifact
from penjing.errors import InputError, MachineError, UnsafeError
from penjing.runtimes.contract import Runtime

SOURCE = Path(__file__).parents[2]
START_SECONDS = 180.0


@dataclass(frozen=True)
class Limits:
    """How much a file may use while it is loaded and run once.

    Attributes:
        seconds: wall-clock time, counted from when its runtime is imported.
        memory_bytes: memory on top of ten times the size of the file and of what the runtime itself
            uses.
    """

    seconds: float = 60.0
    memory_bytes: int = 4 * 2**30

    def memory_for(self, size: int) -> int:
        """The memory limit for a file of `size` bytes."""
        return self.memory_bytes + 10 * size


USUAL = Limits()


@contextlib.contextmanager
def admitted(
    path: Path, runtime: Runtime, limits: Limits | None = None, whole: bool = False
) -> Iterator[Artifact]:
    """A temporary copy of a file that penjing didn't write, whose bytes have run once in a child.

    Args:
        limits: `USUAL` if None.
        whole: whether the child also asks on which unit each operator runs.

    Raises:
        UnsafeError: the file crashed the child, took too long or too much memory, or is malformed.
        InputError: the file can't be read, its runtime doesn't accept it, or it fails on random
            inputs.
        MachineError: no child can be started on this machine.
    """
    limits = limits or USUAL
    with tempfile.TemporaryDirectory(prefix="penjing-") as name:
        copy = Path(name) / path.name
        try:
            contents = [file.read_bytes() for file in runtime.files(path)]
            for place, content in zip(runtime.files(copy), contents, strict=True):
                place.write_bytes(content)
        except OSError as error:
            raise InputError(f"{path}: {error}") from error
        try:
            runtime.look_over(contents)
            request = {
                "runtime": runtime.name, "file": os.fspath(copy), "name": os.fspath(path),
                "whole": whole, "memory": limits.memory_for(sum(map(len, contents))),
                "seconds": limits.seconds,
            }  # fmt: skip
            _try_out(request)
        except (InputError, UnsafeError) as error:
            text = str(error)
            named = text.startswith(os.fspath(path))
            raise type(error)(text if named else f"{path}: {text}") from error
        yield runtime.artifact(copy)


class _Child:
    """The child process. It stays for the next file until one is refused."""

    def __init__(self) -> None:
        old = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([os.fspath(SOURCE), *([old] if old else [])])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penjing.tools.in_quarantine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # so that it can be killed with everything that it started
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.read = b""

    def send(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it has ended, so there will be no reply
            self.input.write(json.dumps(request).encode() + b"\n")
            self.input.flush()

    def reply(self, seconds: float) -> dict[str, Any] | None:
        """The next reply; None if the child has ended.

        Raises:
            TimeoutError: there was no reply in time.
        """
        end = time.monotonic() + seconds
        while b"\n" not in self.read:
            left = max(0.0, end - time.monotonic())
            if not select.select([self.output], [], [], left)[0]:
                raise TimeoutError
            piece = os.read(self.output.fileno(), 1 << 16)
            if not piece:
                return None
            self.read += piece
        line, _, self.read = self.read.partition(b"\n")
        reply: dict[str, Any] = json.loads(line)
        return reply

    def end(self) -> None:
        """Kill the child with everything that it started."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.output.close()
        self.process.wait()


_children: list[_Child] = []
"""At most one."""


@atexit.register
def close() -> None:
    """End the child process, if there is one."""
    while _children:
        _children.pop().end()


class _DiedError(Exception):
    """The child ended while it tried the file. The message says how."""


def _try_out(request: dict[str, Any]) -> None:
    """Let a child try the file: the existing child, or a new one.

    If a child that had tried other files before crashes, they may be to blame. Then a new child
    tries the file again.
    """
    for _ in range(2):
        new = not _children
        if new:
            _children.append(_Child())
        try:
            _try_out_in(_children[0], request)
            return
        except _DiedError as error:
            close()
            if new:
                raise UnsafeError(f"the runtime crashed on it ({error}); refused") from error
        except (TimeoutError, MachineError, KeyboardInterrupt) as error:
            close()
            if not isinstance(error, TimeoutError):
                raise
            seconds = request["seconds"]
            raise UnsafeError(f"it didn't finish within {seconds:g} s; refused") from None


def _try_out_in(child: _Child, request: dict[str, Any]) -> None:
    child.send(request)
    reply = child.reply(START_SECONDS)
    if reply is not None and "ready" in reply:
        reply = child.reply(request["seconds"])
    if reply is None:
        try:
            code = child.process.wait(START_SECONDS)
        except subprocess.TimeoutExpired:
            raise TimeoutError from None
        if -code == getattr(signal, "SIGXCPU", None):
            raise TimeoutError
        raise _DiedError(f"signal {-code}" if code < 0 else f"exit code {code}")
    if "error" not in reply:
        return
    kind, text = reply["error"]
    if kind == "memory":
        gibibytes = request["memory"] / 2**30
        raise UnsafeError(f"it needs more than {gibibytes:.1f} GiB of memory; refused")
    if kind in ("InputError", "CaptureError"):
        raise InputError(text)
    if kind == "MachineError":
        raise MachineError(text)
    raise UnsafeError(text if text.endswith("refused") else f"{text}; refused")
