"""Do files decide alike on Arm? Run them under qemu with the arm64 wheels, and compare.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/aarch64.py [--json FILE]
        [--images 500] [--root FOLDER]

Needs qemu-aarch64-static and apt-get (Debian: apt-get install qemu-user-static). Debian's Python
for arm64 is unpacked into a scratch root (kept with --root), with the wheels of NumPy and the
runtimes beside it; nothing is installed on this machine. ResNet-20 in fp32 and int8, as ONNX and,
where LiteRT is installed, as .tflite. Times under an emulator mean nothing and aren't taken.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from data_folder import data_folder
from harness import table
from networks import cifar_task

from penjing.contract import Array
from penjing.device import runner
from penjing.files import sha256
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.tasks.task import Task

Row = dict[str, Any]
COLUMNS = ("runtime", "precision", "images", "same decisions", "worst difference", "accuracy")
QEMU = "qemu-aarch64-static"
PYTHON = "python3.11"
WHEELS = {"onnxruntime": ["onnxruntime==1.26.0"], "litert": ["ai-edge-litert"]}
"""ONNX Runtime 1.28 to 1.32 for arm64 crash on import under qemu 7.2, with every -cpu tried."""
PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux_2_17_aarch64")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--root", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    task = cifar_task(20, data_folder())
    runtimes = [one for one in installed() if one in WHEELS]
    with tempfile.TemporaryDirectory() as scratch:
        root = (options.root or Path(scratch) / "root").resolve()
        prepare(root, [wheel for one in runtimes for wheel in WHEELS[one]])
        rows = []
        for name in runtimes:
            runtime = find_runtime(name)
            float32 = capture(task.model, task.example)
            int8 = Quantize(**runtime.constraints)(float32, task)
            for precision, network in (("float32", float32), ("int8", int8)):
                rows.append(
                    compared(runtime, network, task, root, Path(scratch), options.images)
                    | {"runtime": name, "precision": precision}
                )
                print(rows[-1], file=sys.stderr)
    print(table(rows, COLUMNS, _cell))
    if options.json:
        options.json.write_text(json.dumps({"rows": rows}, indent=1))


def prepare(root: Path, wheels: list[str]) -> None:
    """Python for arm64 in `root`, with the wheels; nothing to do if it is there."""
    if (root / "wheels-done").exists():
        return
    state, cache = root / "apt" / "state", root / "apt" / "cache"
    for one in (state / "lists" / "partial", cache / "archives" / "partial"):
        one.mkdir(parents=True)
    (state / "status").touch()
    apt = [
        "apt-get", "-qq", "-y", "-o", "APT::Architecture=arm64", "-o", "APT::Architectures=arm64",
        "-o", f"Dir::State={state}", "-o", f"Dir::State::status={state / 'status'}",
        "-o", f"Dir::Cache={cache}", "-o", "APT::Install-Recommends=false",
        "-o", "APT::Sandbox::User=root",
    ]  # fmt: skip
    subprocess.run([*apt, "update"], check=True)
    subprocess.run(
        [*apt, "install", "--download-only", PYTHON, "libstdc++6", "libgomp1"], check=True
    )
    for package in (cache / "archives").glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", str(package), str(root)], check=True)
    command = [
        sys.executable, "-m", "pip", "install", "--quiet", "--target", str(root / "site"),
        "--only-binary=:all:", "--python-version=3.11", "--implementation=cp",
        *(f"--platform={one}" for one in PLATFORMS), "numpy", *wheels,
    ]  # fmt: skip
    subprocess.run(command, check=True)
    (root / "wheels-done").touch()


def compared(
    runtime: Runtime, network: Network, task: Task, root: Path, scratch: Path, images: int
) -> Row:
    """The same file on the same images here and under qemu."""
    artifact = runtime.lower(network, scratch / f"model{runtime.ending}")
    x = np.concatenate([inputs.numpy() for inputs, _ in task.test])[:images]
    labels = np.concatenate([targets.numpy() for _, targets in task.test])[:images]
    here = runtime.load(artifact).run(x)
    there = on_arm(runtime, artifact.path, artifact.sha256, x, root, scratch)
    return {
        "images": len(x),
        "same decisions": float((here.argmax(1) == there.argmax(1)).mean()),
        "worst difference": float(np.abs(here - there).max()),
        "accuracy": float((there.argmax(1) == labels).mean()),
    }


def on_arm(runtime: Runtime, path: Path, digest: str, x: Array, root: Path, scratch: Path) -> Array:
    """What the runner gives under qemu."""
    named: dict[str, Any] = {"0": x}
    np.savez(scratch / "inputs.npz", **named)
    files = [str(one) for one in runtime.files(path)]
    request = {
        "call": "arm",
        "artifacts": [{"runtime": runtime.name, "sha256": digest, "files": files}],
        "inputs": {"file": str(scratch / "inputs.npz"), "sha256": sha256(scratch / "inputs.npz")},
        "threads": 1, "seconds": 0, "outputs": str(scratch / "outputs.npz"),
    }  # fmt: skip
    done = subprocess.run(
        [QEMU, "-L", str(root), str(root / "usr" / "bin" / PYTHON), runner.__file__],
        input=json.dumps(request) + "\n", capture_output=True, text=True, check=False,
        env={"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / "site")},
    )  # fmt: skip
    if '"ok"' not in done.stdout:
        raise SystemExit(f"under {QEMU}: {(done.stdout + done.stderr).strip()[-500:]}")
    with np.load(scratch / "outputs.npz") as found:
        return np.asarray(found["0.0"])


def _cell(column: str, value: Any) -> str:
    if column in ("same decisions", "accuracy"):
        return f"{100 * value:.2f}"
    return f"{value:.2g}" if column == "worst difference" else str(value)


if __name__ == "__main__":
    main()
