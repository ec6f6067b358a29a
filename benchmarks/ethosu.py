"""What Vela says of our int8 networks on Arm's Ethos-U NPUs: dense, with fewer channels, sparse.

    PENJING_DATA=<folder with data/ and models/> python benchmarks/ethosu.py [--json FILE]

Prints a Markdown table. Nothing in it is measured on an NPU: cycles, SRAM, flash and time are
estimated by Vela. `cycles_ratio` and `flash_ratio` are to the dense network on the same NPU.
`same_decisions` is the share of samples for which the compiled file's integers, run by LiteRT,
decide as the quantized network does. What is pruned isn't tuned, so this says what is saved, not
what is lost; MobileNetV2 and the plain CNN have random weights.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from harness import run_small

from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.passes import PruneChannels, Quantize
from penjing.runtimes.ethosu import EthosU
from penjing.runtimes.tflite_export import to_tflite
from penjing.task import Task

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
    quantize = Quantize(outputs=True)
    yield "int8", quantize(network, task)
    pruned = PruneChannels(1 - KEEP, multiple=8)(network, task)
    yield f"int8, {KEEP:.0%} of channels", quantize(pruned, task)
    yield f"int8, {SPARSE:.0%} sparse", quantize(sparse(network, SPARSE), task)


def rows_of(task: Task) -> list[dict[str, Any]]:
    """A row for each variant and accelerator."""
    rows: list[dict[str, Any]] = []
    dense: dict[str, dict[str, Any]] = {}
    for variant, network in variants(task):
        content = to_tflite(network)
        for accelerator in ACCELERATORS:
            runtime = EthosU(accelerator)
            with tempfile.TemporaryDirectory() as folder:
                file = runtime.compile(content, Path(folder) / f"model{runtime.ending}")
                places, cost = runtime.placement(file), asdict(runtime.estimate(file))
                same = parity(network, runtime.load(file), task.test, samples=256).same_decisions
            fallen = [f"{one.name} ({one.why})" for one in places if one.unit != "npu"]
            row = {"model": task.name, "variant": variant, "accelerator": accelerator, **cost}
            row |= {"operators": len(places), "on_npu": len(places) - len(fallen)}
            first = dense.setdefault(accelerator, row)
            row |= {
                "cycles_ratio": row["cycles"] / first["cycles"],
                "flash_ratio": row["flash_bytes"] / first["flash_bytes"],
                "same_decisions": same,
                "fallen": fallen,
            }
            rows.append(row)
    return rows


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
