"""int8 files on x86 processors with VNNI and without: layer by layer, decision by decision.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/saturation.py [--json FILE]

ResNet-20 and ResNet-56 on the lossless CIFAR-10 images, in ONNX Runtime and OpenVINO: the file that
penjing writes, the one that it would write without its overflow fix, and the one of the runtime's
own tool (quantize_static, NNCF). A processor without VNNI is this one, or one that QEMU emulates
(`apt-get install qemu-user-static`). What is missing is said in one line.

Of a layer by itself, `wrong` counts the integers that aren't the exact sum, rounded, on 16 images.
`kept` is the share of fp32's 1,468 decisions without VNNI; `ratio` the time beside the file without
the fix on this processor. Where this one has VNNI, `same` is the share of decisions that both kinds
of processor agree on, and `points` the accuracy without VNNI less the exact one of the file without
the fix.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from data_folder import data_folder
from harness import table
from layers_alone import File
from networks import cifar_task
from peers import SAMPLES, nncf, quantize_static
from without_vnni import processor, run

from penjing.measure.latency import compare
from penjing.network import Network, capture
from penjing.passes.rounding.quantize import Quantize
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.openvino.runtime import OpenVino
from penjing.tasks.task import Task

Array = np.ndarray[Any, Any]
LAYER_IMAGES = 16
COLUMNS = (
    "model", "runtime", "file", "may saturate", "layers wrong", "wrong", "same", "kept",
    "accuracy", "points", "ratio", "interval",
)  # fmt: skip


def files_of(
    task: Task, network: Network, runtime: Runtime, folder: Path, peers: bool = True
) -> dict[str, Path]:
    """By whose they are: ours, ours without the fix, the peer's."""
    found = {}
    for name, fix in (("without the fix", False), ("penjing", True)):
        maker = type(runtime)()
        maker.overflows = fix  # type: ignore[misc]
        quantized = Quantize(samples=SAMPLES, overflow_fix=fix)(network, task)
        path = folder / f"{'ours' if fix else 'plain'}{runtime.ending}"
        found[name] = maker.lower(quantized, path).path
    if not peers:
        return found
    own = quantize_static if runtime.name == "onnxruntime" else nncf
    try:
        own(task, folder)
        found[own.__name__] = folder / f"theirs{runtime.ending}"
    except ImportError as error:
        print(f"skipped {own.__name__}: {error}")
    return found


def layers_wrong(path: Path, runtime: str, x: Array) -> tuple[int, int]:
    """Of an ONNX file run by a runtime without VNNI, how many layers get sums wrong by themselves,
    and how many sums those are."""
    file = File(onnx.load(path))
    options = onnxruntime.SessionOptions()
    options.add_session_config_entry("session.x64quantprecision", "1")  # exact on any processor
    session = onnxruntime.InferenceSession(file.telling(), options)
    names = [one.name for one in session.get_outputs()]
    values = dict(zip(names, session.run(None, {session.get_inputs()[0].name: x}), strict=True))
    with tempfile.TemporaryDirectory() as folder:
        alone = Path(folder, "layers.onnx")
        alone.write_bytes(file.alone({name: one.shape for name, one in values.items()}))
        read = {str(i): values[one.reads] for i, one in enumerate(file.layers)}
        (given,) = run([alone], runtime, read)
    counts = [
        file.wrong(layer, values[layer.reads], codes)
        for layer, codes in zip(file.layers, given, strict=True)
    ]
    return sum(count > 0 for count in counts), sum(counts)


def rows_of(task: Task, seconds: float, say: Callable[[str], None]) -> list[dict[str, Any]]:
    x = np.concatenate([inputs.numpy() for inputs, _ in task.test])
    y: Array = np.concatenate([targets.numpy() for _, targets in task.test])
    network = capture(task.model, task.example)
    with torch.no_grad():
        choices = np.concatenate(
            [network(one).numpy() for one in torch.split(torch.from_numpy(x), 128)]
        )
    fp32 = choices.argmax(1)
    rows = []
    for runtime in (OnnxRuntime(), OpenVino()):
        with tempfile.TemporaryDirectory() as place:
            paths = files_of(task, network, runtime, Path(place))
            sessions = {name: runtime.load(runtime.artifact(one)) for name, one in paths.items()}
            here = {
                name: np.concatenate([one.run(part) for part in np.split(x, 4)]).argmax(1)
                for name, one in sessions.items()
            }
            with_vnni = not this_processor().adds_in_16_bits
            say(f"{task.name}, {runtime.name}: on a processor without VNNI")
            there: dict[str, list[Array]] = {name: [] for name in paths}
            for part in np.split(x, 4):
                found = run(list(paths.values()), runtime.name, {"0": part})
                for name, (outputs, *_) in zip(paths, found, strict=True):
                    there[name].append(outputs.argmax(1))
            times = compare(sessions, x[:1], "without the fix", seconds)
            exact = here["without the fix"] == y
            graphs = {name: one for name, one in paths.items() if one.suffix == ".onnx"}
            if runtime.name != "onnxruntime":  # the same integers
                graphs = files_of(task, network, OnnxRuntime(), Path(place), peers=False)
            for name, path in paths.items():
                choice = np.concatenate(there[name])
                right = choice == y
                alone = {}
                if name in graphs:
                    wrong = layers_wrong(graphs[name], runtime.name, x[:LAYER_IMAGES])
                    alone = dict(zip(("layers wrong", "wrong"), wrong, strict=True))
                row: dict[str, Any] = {
                    "model": task.name, "runtime": runtime.name, "file": name,
                    "may saturate": len(runtime.saturating(runtime.artifact(path))),
                    "same": float((choice == here[name]).mean()) if with_vnni else None,
                    "kept": float((choice == fp32).mean()),
                    "accuracy": float(right.mean()),
                    "points": float(100 * (right.mean() - exact.mean())) if with_vnni else None,
                    "ratio": times[name].ratio,
                    "interval": (times[name].ratio_low, times[name].ratio_high),
                }  # fmt: skip
                rows.append(row | alone)
    return rows


def cell(column: str, value: Any) -> str:
    if column in ("same", "kept", "accuracy"):
        return f"{100 * value:.2f}"
    if column == "points":
        return f"{value:+.2f}"
    if column == "interval":
        return f"{value[0]:.3f} - {value[1]:.3f}"
    return f"{value:.3f}" if column == "ratio" else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    parser.add_argument("--seconds", type=float, default=10.0, help="of timing for each pair")
    parser.add_argument("--only", default="", help="part of a model's name")
    options = parser.parse_args()
    torch.set_num_threads(1)
    without = processor()
    if without is None:
        sys.exit("no processor without VNNI: apt-get install qemu-user-static")
    print(f"this processor: {this_processor()}; without VNNI: {without}\n", flush=True)
    folder = data_folder()
    rows = []
    for depth in (20, 56):
        if options.only in f"ResNet-{depth}":
            try:
                task = cifar_task(depth, folder)
            except FileNotFoundError as error:
                print(f"skipped ResNet-{depth}: {error}")
                continue
            rows += rows_of(task, options.seconds, lambda line: print(line, file=sys.stderr))
    print(table(rows, COLUMNS, cell))
    if options.json:
        place = {"processor": str(this_processor()), "without_vnni": without}
        options.json.write_text(json.dumps(place | {"rows": rows}, indent=1))


if __name__ == "__main__":
    main()
