"""Memory: the peak of a fresh process that loads a file and runs it once."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from penjing.errors import MachineError

SCRIPT = """
import json, sys, numpy, onnxruntime
job = json.load(sys.stdin)
options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 1
session = onnxruntime.InferenceSession(job["path"], options, providers=["CPUExecutionProvider"])
names = [one.name for one in session.get_inputs()]
feed = {n: numpy.zeros(s, d) for n, (s, d) in zip(names, job["inputs"])}
session.run(None, feed)
with open("/proc/self/status") as status:
    line = next(one for one in status if one.startswith("VmHWM"))
print(int(line.split()[1]) * 1024)
"""


def peak_process_bytes(path: Path, inputs: Any) -> int | None:
    """Peak resident memory of loading and running `path` in ONNX Runtime, one thread.

    The interpreter and the runtime itself are included. None where the system doesn't tell.

    Raises:
        MachineError: the process failed.
    """
    if not Path("/proc/self/status").exists():
        return None
    values = inputs.values() if isinstance(inputs, dict) else inputs
    values = [values] if isinstance(values, np.ndarray) else list(values)
    job = {"path": str(path), "inputs": [(one.shape, str(one.dtype)) for one in values]}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], input=json.dumps(job), capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no output"])[-1]
        raise MachineError(f"measuring the memory of {path} failed: {last[:200]}")
    return int(done.stdout)
