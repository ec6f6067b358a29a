"""One call over SSH: it sends the agent and a request, and receives the agent's reply.

The command is a fixed line that reads the agent's source from stdin, checks its hash and runs it.
Everything that varies is JSON that follows on stdin, so no shell ever interprets it.
"""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

from penjing.device.address import Device
from penjing.device.protocol import AGENT, nonce, reply_in, request_line
from penjing.errors import MachineError, RemoteError

LOST = 255  # ssh's own exit code
NOT_FOUND = {126, 127}
BOOT = (
    "import sys;"
    'sys.version_info>=(3,9) or sys.exit("it is Python %d.%d"%sys.version_info[:2]);'
    "import hashlib;r=sys.stdin.buffer;h,n=r.readline().split();s=r.read(int(n));"
    'hashlib.sha256(s).hexdigest()==h.decode() or sys.exit("the agent arrived damaged");'
    'exec(compile(s,"agent.py","exec"),{"__name__":"__main__"})'
)
"""It has no single quote, dollar sign or exclamation mark, so every shell passes it on unchanged.
"""
FINAL = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed; refused. If the device "
     "was reinstalled, remove the old key with ssh-keygen -R and check the new one"),
    ("Host key verification failed", "its host key isn't known; connect once with ssh and check "
     "it, or add it to known_hosts"),
    ("Permission denied", "it refused the key; check with: ssh -o BatchMode=yes"),
    ("Bad configuration option", "ssh's configuration has an error; correct it"),
    ("Bad owner or permissions", "ssh's configuration can be written by other users; change its "
     "permissions"),
)  # fmt: skip
"""Messages of ssh after which another try would fail the same way, and penjing's messages."""
UNREACHABLE = (
    "Connection refused", "timed out", "No route to host", "Could not resolve", "unreachable",
)  # fmt: skip


class Dropped(Exception):
    """The connection ended before the reply was complete. The same call may be repeated.

    Attributes:
        reached: whether the device was reached at all.
    """

    def __init__(self, reason: str, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


def call(
    device: Device, request: dict[str, Any], payload: Sequence[Path] = (), patience: float = 60.0
) -> Any:
    """Send one request to the agent on the device.

    Args:
        device: the device.
        request: see `penjing.device.agent`.
        payload: files whose bytes follow the request.
        patience: seconds after which the connection is given up.

    Returns:
        The agent's reply to this request.

    Raises:
        Dropped: the connection ended before the reply.
        RemoteError: the device can't be used, or the agent refused.
        MachineError: ssh isn't installed on this machine.
    """
    mark = nonce()
    agent = AGENT.read_bytes()
    head = f"{hashlib.sha256(agent).hexdigest()} {len(agent)}\n".encode()
    parts = (head, agent, request_line(request, mark))
    command = device.command(f"exec {device.python} -c '{BOOT}'")
    code, output, errors = _converse(command, parts, payload, patience)
    reply = reply_in(output, mark)
    if reply is None:
        raise _failure(device, code, errors)
    if "error" in reply:
        raise RemoteError(f"{device.address}: {refused(device, reply['error'])}")
    return reply["ok"]


def _converse(
    command: list[str], parts: Sequence[bytes], payload: Sequence[Path], patience: float
) -> tuple[int, bytes, str]:
    """The exit code, stdout and stderr of ssh. Afterwards it and its child processes are gone."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MachineError(
                f"ssh can't be started on this machine: {error.strerror}; install OpenSSH's client"
            ) from error
        assert process.stdin
        assert process.stdout
        timer = threading.Timer(patience, _kill, (process,))
        writer = threading.Thread(target=_write, args=(process.stdin, parts, payload))
        try:
            timer.start()
            writer.start()
            output = process.stdout.read()
            process.wait()
        finally:
            _kill(process)
            timer.cancel()
            writer.join()
            process.stdout.close()
            process.wait()
        errors.seek(0)
        return process.returncode, output, errors.read().decode(errors="replace")


def _write(stdin: IO[bytes], parts: Sequence[bytes], payload: Sequence[Path]) -> None:
    with suppress(OSError), stdin:  # if writing fails, the exit code or the agent says why
        for part in parts:
            stdin.write(part)
        for path in payload:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    stdin.write(piece)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End ssh and its child processes, such as a connection through a jump host."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _failure(device: Device, code: int, errors: str) -> Exception:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no message from ssh"
    if code == LOST:
        for text, ours in FINAL:
            if text in errors:
                return RemoteError(f"{device.address}: {ours} (ssh: {last})")
        return Dropped(last, not any(text in errors for text in UNREACHABLE))
    if code in NOT_FOUND:
        return RemoteError(
            f"{device.address}: the device has no {device.python}; install Python 3.9 or newer, or "
            f"name another interpreter with `python` ({last})"
        )
    if code < 0:
        return Dropped("ssh was killed on this machine, or took too long", True)
    if code == 0:
        return Dropped("the reply was cut off", True)
    if "it is Python" in last:
        return RemoteError(
            f"{device.address}: {device.python} is too old on the device: {last}, wanted 3.9 or "
            "newer; name another interpreter with `python`"
        )
    return Dropped(f"the agent ended with exit code {code}: {last}", True)


def refused(device: Device, error: dict[str, str]) -> str:
    """One line that says why the device refused, and what to do next."""
    steps = {
        "lease": "wait until it is free, or ask its user",
        "deadline": "allow more time with `seconds`, or check what else runs on the device",
        "runtime": f"install it for {device.python} on the device, or name another interpreter "
        "with `python`",
        "disk": "free disk space on the device",
        "died": "try a smaller file, or check the device's system log",
    }
    step = steps.get(str(error.get("kind")))
    text = " ".join(str(error.get("text")).split())[:500]
    return f"{text}; {step}" if step else text
