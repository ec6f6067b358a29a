"""Quarantine: a file of others runs once in a process of its own before it runs in this one.

Runtimes parse files in C++ without expecting malice: a changed byte can end the process, a loop can
go on for ever, a few bytes can ask for all memory there is. Such a file is tried in a child with a
deadline and a limit of memory (`penjing.tools.in_quarantine`); this process loads the bytes that
passed, and no others. It protects against files that break, not against those that take over the
child: that has the rights of its user.
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
    """What a file may take while it is loaded and run once.

    Attributes:
        seconds: of the clock, once its runtime is imported.
        memory_bytes: beside ten times the size of the file, and what the runtime itself has.
    """

    seconds: float = 60.0
    memory_bytes: int = 4 * 2**30

    def memory_for(self, size: int) -> int:
        """For a file of so many bytes."""
        return self.memory_bytes + 10 * size


USUAL = Limits()


@contextlib.contextmanager
def admitted(
    path: Path, runtime: Runtime, limits: Limits | None = None, whole: bool = False
) -> Iterator[Artifact]:
    """A copy of a file of others, in a folder that is gone behind; its bytes ran once in a child.

    Args:
        limits: `USUAL`, unless others are given.
        whole: whether it's also to be asked which operator runs where.

    Raises:
        UnsafeError: it ended the child, took too long or too much memory, or isn't sound.
        InputError: it can't be read, its runtime doesn't take it, or it fails on random inputs.
        MachineError: no child can be started here.
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
    """The process, which stays for the next file as long as none was refused."""

    def __init__(self) -> None:
        old = os.environ.get("PYTHONPATH", "")
        path = os.pathsep.join([os.fspath(SOURCE), *([old] if old else [])])
        self.process = subprocess.Popen(
            [sys.executable, "-P", "-m", "penjing.tools.in_quarantine"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=os.environ | {"PYTHONPATH": path},
            start_new_session=True,  # so that it can be killed with all that it started
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.input, self.output = self.process.stdin, self.process.stdout
        self.read = b""

    def send(self, request: dict[str, Any]) -> None:
        with contextlib.suppress(BrokenPipeError):  # it ended: there will be no reply
            self.input.write(json.dumps(request).encode() + b"\n")
            self.input.flush()

    def reply(self, seconds: float) -> dict[str, Any] | None:
        """The next line; None where it ended.

        Raises:
            TimeoutError: it gave none in time.
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
        """Kill it with all that it started."""
        with contextlib.suppress(BrokenPipeError):
            self.input.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.output.close()
        self.process.wait()


_children: list[_Child] = []
"""One at most."""


@atexit.register
def close() -> None:
    """End the child that is there."""
    while _children:
        _children.pop().end()


class _DiedError(Exception):
    """The child ended while it had the file; how, in words."""


def _try_out(request: dict[str, Any]) -> None:
    """Let a child try the file: the one that is there, or a new one.

    Where one died that had tried other files before, they may have harmed it: then a new one says.
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
                raise UnsafeError(f"the runtime died on it ({error}); refused") from error
        except (TimeoutError, MachineError, KeyboardInterrupt) as error:
            close()
            if not isinstance(error, TimeoutError):
                raise
            seconds = request["seconds"]
            raise UnsafeError(f"it ran for {seconds:g} s and didn't end; refused") from None


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
        raise UnsafeError(f"it takes more than {request['memory'] / 2**30:.1f} GiB; refused")
    if kind in ("InputError", "CaptureError"):
        raise InputError(text)
    if kind == "MachineError":
        raise MachineError(text)
    raise UnsafeError(text if text.endswith("refused") else f"{text}; refused")
