"""Run files on an x86 processor without VNNI: this one, or one that QEMU emulates.

`qemu-x86_64-static -cpu Haswell` (Debian's qemu-user-static) runs Python with its runtimes; what it
computes was equal to the bit to a real processor with AVX2 alone. It tells no time.
"""

from __future__ import annotations

import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from penjing.device.protocol import RUNNER, nonce, reply_in, request_line
from penjing.files import sha256
from penjing.processor import X86, this_processor

EMULATOR = "qemu-x86_64-static"
MODEL = "Haswell"  # AVX2, no AVX-512, no VNNI


def processor() -> str | None:
    """The processor that `run` takes, in words; None where there is none."""
    here = this_processor()
    if here.adds_in_16_bits:
        return str(here)
    if platform.machine() in X86 and shutil.which(EMULATOR):
        return f"{MODEL}, emulated by {EMULATOR}"
    return None


def run(
    files: Sequence[Path], runtime: str, inputs: Mapping[str, np.ndarray[Any, Any]]
) -> list[list[np.ndarray[Any, Any]]]:
    """The outputs of each file on these inputs, on a processor without VNNI, one thread.

    Args:
        files: of one runtime, alike in their inputs; an artifact's first.
        inputs: by name, or by position as a number in words.
    """
    prefix = [] if this_processor().adds_in_16_bits else [EMULATOR, "-cpu", MODEL]
    with tempfile.TemporaryDirectory() as folder:
        given, outputs, call = Path(folder, "in.npz"), Path(folder, "out.npz"), nonce()
        named: dict[str, Any] = dict(inputs)
        np.savez(given, **named)
        artifacts = [_artifact(one, runtime) for one in files]
        request = {
            "artifacts": artifacts, "threads": 1, "seconds": 0, "outputs": str(outputs),
            "inputs": {"file": str(given), "sha256": sha256(given)},
        }  # fmt: skip
        done = subprocess.run(
            [*prefix, sys.executable, str(RUNNER)],
            input=request_line(request, call), capture_output=True, check=False,
        )  # fmt: skip
        reply = reply_in(done.stdout, call)
        if reply is None or "ok" not in reply:
            raise RuntimeError(f"{reply or done.stderr.decode(errors='replace')[-400:]}")
        with np.load(outputs, allow_pickle=False) as found:
            arrays = dict(found)
    counts = [sum(name.startswith(f"{i}.") for name in arrays) for i in range(len(files))]
    return [[arrays[f"{i}.{k}"] for k in range(count)] for i, count in enumerate(counts)]


def _artifact(path: Path, runtime: str) -> dict[str, Any]:
    weights = path.with_suffix(".bin")
    paths = (path, weights) if path.suffix == ".xml" else (path,)
    return {"runtime": runtime, "sha256": sha256(*paths), "files": [str(one) for one in paths]}
