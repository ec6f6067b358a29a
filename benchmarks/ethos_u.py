"""What Vela says of our int8 networks on Arm's Ethos-U NPUs: dense, with fewer channels, sparse.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/ethos_u.py [--json FILE]

Prints a Markdown table. Nothing in it is measured on an NPU: cycles, SRAM, flash and time are
estimated by Vela. `cycles_ratio` and `flash_ratio` are to the dense network in a `.tflite` file on
the same NPU. `same_decisions` is the share of samples for which the compiled file's integers, run
by LiteRT or XNNPACK, decide as the quantized network does. What is pruned isn't tuned, so this says
what is saved, not what is lost; the MobileNets and the plain CNN have random weights. Where
ExecuTorch and tosa-tools are installed, the dense network is also lowered through ExecuTorch, once
by penjing and once by Arm's own quantizer.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from harness import run_small
from peers import arm_quantizer

from penjing.contract import Artifact
from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.passes import PruneChannels, Quantize
from penjing.runtimes.ethosu.by_tflite import EthosU
from penjing.runtimes.ethosu.vela import SYSTEMS, ByVela, estimate_of
from penjing.runtimes.registry import ENTRIES
from penjing.runtimes.tflite.export import to_tflite
from penjing.tasks.task import Task

ACCELERATORS = ("ethos-u55-128", "ethos-u65-256", "ethos-u85-256")
KEEP = 0.5
SPARSE = 0.8
COLUMNS = (
    "model", "variant", "accelerator", "operators", "on_npu", "cycles", "cycles_ratio",
    "sram_bytes", "flash_bytes", "flash_ratio", "latency_ms", "macs", "same_decisions",
)  # fmt: skip


def sparse(network: Network, share: float) -> Network:
    """A copy in which the smallest weights of each layer, this share of them, are zero."""
    new = copy.deepcopy(network)
    with torch.no_grad():
        for one in new.parameters():
            if one.dim() > 1:
                least = one.abs().flatten().kthvalue(int(share * one.numel())).values
                one.mul_(one.abs() > least)
    return new


def variants(task: Task) -> Iterator[tuple[str, Network]]:
    """The network as it is, with half the channels, and with a fifth of the weights; in int8."""
    network = capture(task.model, task.example)
    quantize = Quantize(**EthosU.constraints)
    yield "int8", quantize(network, task)
    pruned = PruneChannels(1 - KEEP, multiple=8)(network, task)
    yield f"int8, {KEEP:.0%} of channels", quantize(pruned, task)
    yield f"int8, {SPARSE:.0%} sparse", quantize(sparse(network, SPARSE), task)


def rows_of(task: Task) -> list[dict[str, Any]]:
    """A row for each variant and accelerator, then those through ExecuTorch."""
    rows: list[dict[str, Any]] = []
    rounded = dict(variants(task))
    for variant, network in rounded.items():
        content = to_tflite(network)
        for accelerator in ACCELERATORS:
            with tempfile.TemporaryDirectory() as folder:
                runtime = EthosU(accelerator)
                file = runtime.compile(content, Path(folder) / f"model{runtime.ending}")
                rows.append(row_of(task, network, runtime, file) | {"variant": variant})
    for accelerator in ACCELERATORS if ENTRIES["executorch-ethosu"].absent is None else ():
        rows += through_executorch(task, rounded["int8"], accelerator)
    dense = {row["accelerator"]: row for row in rows if row["variant"] == "int8"}
    for row in rows:
        first = dense[row["accelerator"]]
        row["cycles_ratio"] = row["cycles"] / first["cycles"]
        row["flash_ratio"] = row["flash_bytes"] / first["flash_bytes"]
        row["model"] = task.name
    return rows


def row_of(task: Task, network: Network, runtime: ByVela, file: Artifact) -> dict[str, Any]:
    """What Vela says of a file, and whether its integers decide as the network does."""
    places, cost = runtime.placement(file), asdict(runtime.estimate(file))
    same = parity(network, runtime.load(file), task.test, samples=256).same_decisions
    fallen = [f"{one.name} ({one.why})" for one in places if one.unit != "npu"]
    count = {"operators": len(places), "on_npu": len(places) - len(fallen), "fallen": fallen}
    return {"accelerator": runtime.accelerator, "same_decisions": same, **cost, **count}


def through_executorch(task: Task, network: Network, accelerator: str) -> list[dict[str, Any]]:
    """A row for penjing's file and one for what Arm's quantizer makes of the task's model."""
    from penjing.runtimes.ethosu.by_executorch import ExecuTorchEthosU

    runtime, system = ExecuTorchEthosU(accelerator), SYSTEMS[accelerator.rpartition("-")[0]]
    with tempfile.TemporaryDirectory() as folder:
        file = runtime.lower(network, Path(folder) / f"model{runtime.ending}")
        ours = row_of(task, network, runtime, file) | {"variant": "int8, ExecuTorch"}
    with tempfile.TemporaryDirectory() as folder:
        parts, left = arm_quantizer(task, accelerator, system, Path(folder))
    summaries = [runtime.run_vela(one, ".tosa").summary for one in parts]
    theirs = asdict(estimate_of(summaries, version("ethos-u-vela")))
    theirs |= {"variant": "int8, ExecuTorch, Arm's quantizer", "fallen": left}
    return [ours, theirs | {"accelerator": accelerator}]


def main() -> None:
    rows = run_small(
        __doc__,
        rows_of,
        COLUMNS,
        lambda _, one: f"{one:.3f}" if isinstance(one, float) else str(one),
    )
    for row in rows:
        for one in row["fallen"]:
            print(f"\non the CPU: {row['model']}, {row['variant']}, {row['accelerator']}: {one}")
    if rows:
        print(f"\n{rows[0]['source']}; " + "; ".join(dict.fromkeys(one["machine"] for one in rows)))


if __name__ == "__main__":
    main()
