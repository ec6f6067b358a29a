"""Telemetry: no runtime keeps an identifier or a record of what it ran."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.network import capture
from penjing.runtimes.registry import ENTRIES, find_runtime

USE = """
import penjing, sys
from pathlib import Path
from penjing.device.here import run_here
from penjing.device.protocol import parcel_of
from penjing.runtimes.registry import find_runtime
name, path, sha256 = sys.argv[1:]
find_runtime(name).load(penjing.contract.Artifact(Path(path), name, 0, sha256))
run_here(parcel_of(Path(path), name), {"inputs": {"zeros": None}})
"""


def _left_by(code: str, folder: Path, *arguments: str, **environment: str) -> list[Path]:
    """What a process leaves in its user's own folder."""
    folder.mkdir()
    outside = {k: v for k, v in os.environ.items() if k not in ("ORT_DISABLE_TELEMETRY", "CI")}
    home = {"HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    command = [sys.executable, "-W", "ignore", "-c", code, *arguments]
    subprocess.run(command, env={**outside, **home, **environment}, check=True)
    return [one for one in folder.rglob("*") if one.is_file()]


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_loading_and_running_leave_no_record(runtime: str, tmp_path: Path) -> None:
    if ENTRIES[runtime].absent:
        pytest.skip(f"{runtime} {ENTRIES[runtime].absent}")
    network = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    path = tmp_path / f"model{ENTRIES[runtime].ending}"
    artifact = find_runtime(runtime).lower(network, path)
    assert _left_by(USE, tmp_path / "ours", runtime, str(artifact.path), artifact.sha256) == []


def test_who_wants_it_keeps_it(tmp_path: Path) -> None:
    alone = _left_by("import onnxruntime", tmp_path / "alone")
    code = "import penjing, onnxruntime"
    kept = _left_by(code, tmp_path / "kept", ORT_DISABLE_TELEMETRY="0")
    assert bool(kept) == bool(alone)
