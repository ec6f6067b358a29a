"""One call over SSH: the agent goes there, a request with it, and its reply comes back.

The command is a fixed line: it reads the agent from stdin, checks its hash and runs it. All that
varies is JSON on stdin behind it, so that no shell reads it.
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
"""Without a single quote, a dollar or an exclamation mark: every shell takes it as it is."""
FINAL = (
    ("REMOTE HOST IDENTIFICATION HAS CHANGED", "its host key has changed; refused. If the device "
     "was set up anew, remove the old key with ssh-keygen -R and look at the new one"),
    ("Host key verification failed", "its host key isn't known; connect once with ssh and look at "
     "it, or add it to known_hosts"),
    ("Permission denied", "it refused the key; check with: ssh -o BatchMode=yes"),
    ("Bad configuration option", "the configuration of ssh is wrong"),
    ("Bad owner or permissions", "the configuration of ssh can be written by others"),
)  # fmt: skip
"""What ssh says where another try would end the same way, and what we say."""
UNREACHABLE = (
    "Connection refused", "timed out", "No route to host", "Could not resolve", "unreachable",
)  # fmt: skip


class Dropped(Exception):
    """The connection ended before a whole reply came; the same call may be made again.

    Attributes:
        reached: whether the device had been reached.
    """

    def __init__(self, reason: str, reached: bool) -> None:
        super().__init__(reason)
        self.reached = reached


def call(
    device: Device, request: dict[str, Any], payload: Sequence[Path] = (), patience: float = 60.0
) -> Any:
    """Make one request of the agent on the device.

    Args:
        request: see `penjing.device.agent`.
        payload: files whose bytes follow the request.
        patience: seconds after which the connection is given up.

    Returns:
        What the agent replied to just this request.

    Raises:
        Dropped: the connection ended first.
        RemoteError: the device can't be used, or the agent refused.
        MachineError: this machine has no ssh.
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
    """Exit code, stdout and stderr of ssh; it and what it started are gone afterwards."""
    with tempfile.TemporaryFile() as errors:
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors,
                start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            raise MachineError(
                f"ssh can't be started here: {error.strerror}; install OpenSSH's client"
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
    with suppress(OSError), stdin:  # if it broke, the exit code or the agent says why
        for part in parts:
            stdin.write(part)
        for path in payload:
            with path.open("rb") as file:
                while piece := file.read(1 << 20):
                    stdin.write(piece)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """End ssh and its helpers, such as a jump to another host."""
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)


def _failure(device: Device, code: int, errors: str) -> Exception:
    lines = [line.strip() for line in errors.splitlines() if line.strip()]
    last = lines[-1][:300] if lines else "no word from ssh"
    if code == LOST:
        for text, ours in FINAL:
            if text in errors:
                return RemoteError(f"{device.address}: {ours} (ssh: {last})")
        return Dropped(last, not any(text in errors for text in UNREACHABLE))
    if code in NOT_FOUND:
        return RemoteError(
            f"{device.address}: no {device.python} there; install Python 3.9 or newer, or name the "
            f"interpreter with `python` ({last})"
        )
    if code < 0:
        return Dropped("ssh was ended here, or took too long", True)
    if code == 0:
        return Dropped("the reply was cut off", True)
    if "it is Python" in last:
        return RemoteError(
            f"{device.address}: {device.python} is too old there: {last}, wanted 3.9 or newer; "
            "name another with `python`"
        )
    return Dropped(f"the agent ended with {code}: {last}", True)


def refused(device: Device, error: dict[str, str]) -> str:
    """One line for what was refused there, with the next step."""
    steps = {
        "lease": "wait for it, or ask them",
        "deadline": "allow more with longer `seconds`, or look at what else runs there",
        "runtime": f"install it for {device.python} there, or name another interpreter (`python`)",
        "disk": "make room there",
        "died": "try a smaller file, or see the device's own log",
    }
    step = steps.get(str(error.get("kind")))
    text = " ".join(str(error.get("text")).split())[:500]
    return f"{text}; {step}" if step else text
