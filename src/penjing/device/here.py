"""Here: the runner in a new process on this machine."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

from penjing.device.protocol import RUNNER, Parcel, nonce, reply_in, request_line
from penjing.errors import MachineError


def run_here(parcel: Parcel, request: dict[str, Any]) -> dict[str, Any]:
    """Let the runner measure one artifact on this machine, alone in its process, on one thread.

    Args:
        parcel: the artifact.
        request: see `penjing.device.runner`. Its list of artifacts is set to the parcel.

    Raises:
        MachineError: the process failed.
    """
    call = nonce()
    artifact = {
        "runtime": parcel.runtime, "sha256": parcel.sha256,
        "files": [str(path) for path in parcel.paths],
    }  # fmt: skip
    line = request_line({"threads": 1, **request, "artifacts": [artifact]}, call)
    done = subprocess.run(
        [sys.executable, str(RUNNER)], input=line, capture_output=True, check=False
    )
    reply = reply_in(done.stdout, call)
    if reply is None:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        reason = lines[-1] if lines else f"it ended with exit code {done.returncode}"
    elif "error" in reply:
        reason = reply["error"]["text"]
    else:
        measured: dict[str, Any] = reply["ok"]
        return measured
    raise MachineError(f"measuring {parcel.paths[0]} in a separate process failed: {reason[:200]}")
