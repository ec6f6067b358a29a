"""Which architectures can be pruned, how much of each, and does what is left run and train.

    python benchmarks/architectures.py --list FILE.json [--json ROWS.json] [--peer torch-pruning]
    python benchmarks/architectures.py --torchvision classification segmentation video
    python benchmarks/architectures.py --models resnet18 vit_tiny_patch16_224
    python benchmarks/architectures.py --timm          (the smallest model of each family of timm)
    python benchmarks/architectures.py --kinds                  (small networks of many other kinds)

Needs timm (and torchvision): pip install timm torchvision. Every network gets a process of its own
and a time limit; a row that is in ROWS.json already isn't measured again. Weights are random: the
question is whether it works, not what is lost. Prints a Markdown table. `prunable` and
`params_left` are shares of the parameters that the graph reads in evaluation mode; `unused_params`
are the others, such as auxiliary heads.
"""

from __future__ import annotations

import argparse
import copy
import json
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from data_folder import WANTED, data_folder
from process_each import Row, StageFailed, each, in_process, stage
from same_outputs import MOST, finite_outputs, gap_of, onnx_gap, outputs_of
from zoo import add_networks, drawn, names_of

from penjing.network import capture, find_axes, mask
from penjing.passes import PruneChannels
from penjing.tasks.task import Task

RATIO = 0.3
COLUMNS = (
    "model", "captured", "axes", "unused_params", "prunable", "params_left", "runs",
    "masked_equals_pruned", "trains", "onnx_parity", "capture_seconds", "axes_seconds", "seconds",
    "peak_gb", "error",
)  # fmt: skip


def examine(name: str) -> Row:
    """One network, step by step; a step that fails ends the row and is named in it."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    row: Row = {"model": name}
    begin = time.monotonic()
    try:
        with stage(row, "build"):
            model, x = drawn(name)
            row["params"] = sum(one.numel() for one in model.parameters())
        _capture_and_prune(row, model, x)
    except StageFailed as failure:
        row["error"] = str(failure)
    row["seconds"] = round(time.monotonic() - begin, 1)
    row["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


def _capture_and_prune(row: Row, model: Any, x: Any) -> None:
    row["captured"] = False
    with stage(row, "capture", "capture_seconds"):
        network = capture(model, x)
    row["captured"] = True
    with stage(row, "axes", "axes_seconds"):
        axes = find_axes(network)
    row["unknown"] = sorted(axes.trace.unknown)
    row["axes"] = len(axes.free)
    touched = {site.tensor for group in axes.free.values() for site in group.sites}
    used = _used_parameters(network)
    row["unused_params"] = row["params"] - sum(used.values())
    prunable = sum(size for name, size in used.items() if name in touched)
    row["prunable"] = round(prunable / sum(used.values()), 3)
    with torch.no_grad():
        row["outputs_vary"] = _vary(outputs_of(network, x))
    task = Task(model, x, [], [])
    prune = PruneChannels(RATIO)
    with stage(row, "prune"):
        plan = prune.plan(network, task)
        pruned = prune.apply(network, plan, task)
        left = sum(_used_parameters(pruned).values())
        row["params_left"] = round(left / sum(used.values()), 3)
    with stage(row, "run"):
        finite_outputs(pruned, x)
        row["runs"] = True
    with stage(row, "mask"):
        row["masked_equals_pruned"] = _masked_equals_pruned(network, x, task)
    with stage(row, "train"):
        _train_a_step(pruned, x)
        row["trains"] = True
    with stage(row, "onnx"):
        row["onnx_parity"] = onnx_gap(pruned, x)


def _used_parameters(network: Any) -> dict[str, int]:
    """How many entries each parameter has that the graph reads; heads that only training uses are
    parameters too, but no operator says which of their dimensions could shrink."""
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    return {name: one.numel() for name, one in network.named_parameters() if name in read}


def _masked_equals_pruned(network: Any, x: Any, task: Any) -> float | None:
    """The largest difference, relative to the largest output; None if every axis is mixed."""
    prune = PruneChannels(RATIO, skip_mixed=True)
    plan = prune.plan(network, task)
    if not plan.edits:
        return None
    pruned, masked = prune.apply(network, plan, task), mask(network, plan.edits[0]["axes"])
    with torch.no_grad():
        gap = gap_of(outputs_of(pruned, x), outputs_of(masked, x))
    if not gap < MOST:
        raise ValueError(f"pruned and masked differ by {gap:.1e} of the largest output")
    return gap


def _train_a_step(network: Any, x: Any) -> None:
    student = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    outputs = outputs_of(student, x)
    sum(one.float().square().mean() for one in outputs if one.is_floating_point()).backward()
    if not any(one.grad is not None for one in student.parameters()):
        raise ValueError("no parameter got a gradient")
    optimizer.step()


def _vary(outputs: list[Any]) -> bool:
    """Whether the two samples of the batch get different answers."""
    one = outputs[0].float()
    return bool((one[0] - one[1]).abs().max() > 1e-4 * one.abs().max())


def peer(name: str, script: Path, limit: float) -> Row:
    """What Torch-Pruning makes of it, by the peers' script."""
    try:
        done = subprocess.run(
            [sys.executable, script, name], capture_output=True, text=True, timeout=limit,
            check=False,
        )  # fmt: skip
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return {"peer_runs": found["ok"], "peer_error": found.get("error", "")}
    except subprocess.TimeoutExpired:
        return {"peer_runs": False, "peer_error": f"no answer within {limit:.0f} s"}
    except (IndexError, ValueError):
        return {"peer_runs": False, "peer_error": (done.stderr.splitlines() or ["?"])[-1][:200]}


def table(rows: list[Row]) -> str:
    columns = [one for one in (*COLUMNS, "peer_runs") if any(one in row for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(one)) for one in columns) + " |" for row in rows]
    return "\n".join([*lines, "", summary(rows)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.0e}" if isinstance(value, float) and 0 < value < 1e-3 else str(value)


def summary(rows: list[Row]) -> str:
    captured = [row for row in rows if row.get("captured")]
    good = [row for row in captured if row.get("trains") and row.get("params_left", 1) < 1]
    onnx = [row for row in captured if row.get("onnx_parity") is not None]

    def middle(value: Callable[[Row], float]) -> float:
        return median([value(row) for row in captured if "axes_seconds" in row] or [0.0])

    line = (
        f"{len(rows)} networks: {len(captured)} captured, {len(good)} of these pruned, run and "
        f"train, {len(onnx)} reach ONNX Runtime with parity; median share of parameters that can "
        f"be pruned {middle(lambda row: row['prunable']):.3f}; median seconds for the axes "
        f"{middle(lambda row: row['axes_seconds']):.2f}, for torch.export "
        f"{middle(lambda row: row['capture_seconds']):.2f}; most memory "
        f"{max((row.get('peak_gb', 0.0) for row in rows), default=0.0):.1f} GB"
    )
    known = [row for row in rows if "peer_runs" in row]
    still = [row["model"] for row in captured if row.get("outputs_vary") is False]
    if still:
        line += f"; outputs that don't vary with the input: {', '.join(still)}"
    if known:
        line += f"; Torch-Pruning prunes {sum(row['peer_runs'] for row in known)} of {len(known)}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--json", type=Path, help="rows go here, and are taken from here")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each network")
    parser.add_argument("--peer", choices=["torch-pruning"])
    script = data_folder() / "peers/torch_pruning_peer.py"
    parser.add_argument("--peer-script", type=Path, default=script, help="torch_pruning_peer.py")
    parser.add_argument("--peer-limit", type=float, default=240.0, help="seconds for each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return
    if options.peer and not options.peer_script.is_file():
        parser.error(f"--peer wants {options.peer_script}; {WANTED}")

    def row_of(name: str, known: Row | None) -> Row:
        row = known or in_process(__file__, name, options.limit)
        if options.peer and "peer_runs" not in row and "/" not in name:
            row |= peer(name, options.peer_script, options.peer_limit)
        return row

    rows = each(names_of(options), options.json, row_of, lambda row: str(row.get("error", "ok")))
    print(table(rows))


if __name__ == "__main__":
    main()
