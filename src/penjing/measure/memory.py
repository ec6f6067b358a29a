"""Memory: the peak memory of a new process that loads a file and runs it once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from penjing.device.here import run_here
from penjing.device.protocol import parcel_of


def peak_process_bytes(path: Path, inputs: Any, runtime: str = "onnxruntime") -> int | None:
    """The peak resident memory of loading and running `path` in its runtime, on one thread.

    It includes the Python interpreter and the runtime itself. None if the system doesn't report it.

    Raises:
        MachineError: the process failed.
    """
    if not Path("/proc/self/status").exists():
        return None
    values = inputs.values() if isinstance(inputs, dict) else inputs
    values = [values] if isinstance(values, np.ndarray) else list(values)
    zeros = [[list(value.shape), str(value.dtype)] for value in values]
    peak: int | None = run_here(parcel_of(path, runtime), {"inputs": {"zeros": zeros}})[
        "peak_process_bytes"
    ]
    return peak
