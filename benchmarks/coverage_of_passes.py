"""Which passes apply to which architectures, and does what they leave run and export.

    python benchmarks/coverage_of_passes.py --passes prune merge quantize --timm --json ROWS.json
    python benchmarks/coverage_of_passes.py --passes drop share --list FAMILIES.json

Needs timm (and torchvision): pip install timm torchvision. `--passes` takes names of
`penjing.passes.PASSES`, or their beginnings, in any case. Every network gets a process of its own
and a time limit; what is in ROWS.json already isn't measured again. Weights and data are random:
the question is whether it works, not what is lost. `python benchmarks/zoo.py FAMILIES.json` writes
the list that `--timm` makes anew.

A pass either applies, or its plan or its one line of refusal names the reason. What it leaves must
give finite outputs and the same ones in ONNX Runtime: within 1e-3 of the largest, or, once values
are rounded, within what rounding explains (`penjing.measure.parity`). Prints a Markdown table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from process_each import Row, StageFailed, each, in_process, stage
from same_outputs import finite_outputs, onnx_gap, outputs_of
from torch import Tensor
from torch.nn import functional
from torch.utils import _pytree as pytree
from zoo import add_networks, drawn, names_of

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.passes import PASSES
from penjing.tasks.task import Batches, Task

BATCHES, SAMPLES = 4, 8
"""How many batches of two the random data has, and so how many samples."""
SETTINGS: dict[str, Callable[[Any], Any]] = {
    "Binarize": lambda make: make(),
    "Compensate": lambda make: make(samples=SAMPLES),
    "CorrectBias": lambda make: make(samples=SAMPLES),
    "Drop": lambda make: make(importance="cosine", samples=SAMPLES),
    "Equalize": lambda make: make(),
    "Fuse": lambda make: make(most=10),
    "Factorize": lambda make: make(energy=0.9, basis="weights"),
    "Gptq": lambda make: make(samples=SAMPLES),
    "Merge": lambda make: make(0.3),
    "PruneChannels": lambda make: make(0.3),
    "Quantize": lambda make: make(samples=SAMPLES),
    "Reconstruct": lambda make: make(samples=SAMPLES, steps=2, batch=2),
    "Share": lambda make: make(16),
    "Sparsify": lambda make: make(0.5, samples=SAMPLES, steps=1),
    "Ternarize": lambda make: make(),
}
"""How each pass is called here, given its class: with small settings."""
BEHIND = {
    "Compensate": "PruneChannels", "CorrectBias": "Quantize", "Gptq": "Quantize",
    "Reconstruct": "Quantize",
}  # fmt: skip
"""The passes that only have something to do behind another one."""


def examine(name: str, passes: list[str]) -> Row:
    """One network under several passes, each on the network as captured."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    row: Row = {"model": name, "passes": {}}
    try:
        with stage(row, "build"):
            model, x = drawn(name)
        with stage(row, "capture"):
            network = capture(model, x)
            task = _task(model, x)
        for pass_name in passes:
            row["passes"][pass_name] = _under(pass_name, network, task)
            print(json.dumps(row), flush=True)  # should the next one take too long
    except StageFailed as failure:
        row["error"] = str(failure)
    return row


def _task(model: Any, x: Any) -> Task:
    """Random data shaped like the example, with the network's own decisions as labels."""
    torch.manual_seed(1)
    batches: Batches = [_batch(model, x) for _ in range(BATCHES)]
    return Task(model, x, batches, batches, loss=_loss)


def _batch(model: Any, x: Any) -> tuple[Any, Tensor]:
    """Floats are drawn anew; of integers, which are indices, only the given ones are valid."""
    inputs = pytree.tree_map(
        lambda leaf: torch.randn_like(leaf) if leaf.is_floating_point() else leaf, x
    )
    with torch.no_grad():
        return inputs, _scores(outputs_of(model, inputs)).argmax(1)


def _scores(outputs: list[Tensor]) -> Tensor:
    """The first output as scores for each sample, whatever its shape is."""
    return outputs[0].float().flatten(1)


def _loss(outputs: Any, targets: Tensor) -> Tensor:
    return functional.cross_entropy(_scores(pytree.tree_leaves(outputs)), targets)


def _under(pass_name: str, network: Network, task: Task) -> Row:
    """What becomes of a network under a pass."""
    found: Row = {}
    begin = time.monotonic()
    torch.manual_seed(2)
    try:
        if pass_name in BEHIND:
            with stage(found, BEHIND[pass_name]):
                network = _step(BEHIND[pass_name])(network, task)
        _apply(found, pass_name, network, task)
    except StageFailed as failure:
        found["error"] = str(failure)
    found["seconds"] = round(time.monotonic() - begin, 1)
    return found


def _step(pass_name: str) -> Any:
    return SETTINGS[pass_name](PASSES[pass_name])


def _apply(found: Row, pass_name: str, network: Network, task: Task) -> None:
    step = _step(pass_name)
    with stage(found, "plan"):
        try:
            plan: Plan = step.plan(network, task)
        except InputError as error:
            found.update(applies=False, reason=f"refused: {error}")
            return
    found.update(applies=bool(plan.edits or plan.parts), summary=plan.summary)
    if not found["applies"]:
        found["reason"] = "; ".join({left.why: None for left in plan.left_alone} or plan.notes)
        return
    with stage(found, "apply"):
        after = step.apply(network, plan, task)
    found["params_left"] = round(_parameters(after) / _parameters(network), 3)
    with stage(found, "run"):
        finite_outputs(after, task.example)
        found["runs"] = True
    with stage(found, "onnx"):
        found["onnx_gap"] = onnx_gap(after, task.example, task.test)


def _parameters(network: Network) -> int:
    return sum(tensor.numel() for tensor in network.parameters())


def works(found: Row) -> bool:
    """Whether the pass applies, and what it leaves runs and exports, or else it says why not."""
    return "onnx_gap" in found if found.get("applies") else bool(found.get("reason"))


def table(rows: list[Row], passes: list[str]) -> str:
    lines = [f"| model | {' | '.join(passes)} |", "|" + "---|" * (len(passes) + 1)]
    for row in rows:
        cells = [_cell(row["passes"][pass_name]) for pass_name in passes]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(summary(rows, pass_name) for pass_name in passes)])


def _cell(found: Row) -> str:
    if not works(found):
        text = f"fails: {found.get('error', 'names no reason')}"
    elif found["applies"]:
        text = f"yes, {found['params_left']:.3f} of the parameters, {found['onnx_gap']:.0e}"
    else:
        text = f"no: {found['reason']}"
    return text[:160].replace("|", "/")


def summary(rows: list[Row], pass_name: str) -> str:
    good = [found for row in rows if works(found := row["passes"][pass_name])]
    applied = sum(found["applies"] for found in good)
    return (
        f"{pass_name}: applies, runs, exports with parity, or names the reason: {len(good)} of "
        f"{len(rows)} ({applied} apply, {len(good) - applied} name the reason)"
    )


def named(given: str) -> str:
    """The pass whose name is or begins like that, in any case.

    Raises:
        ValueError: no pass is meant, or several, or this benchmark doesn't know how to call it.
    """
    same = [name for name in PASSES if name.lower() == given.lower()]
    alike = same or [name for name in PASSES if name.lower().startswith(given.lower())]
    if len(alike) != 1:
        means = f"could mean {' or '.join(alike)}" if alike else "isn't one"
        raise ValueError(f"{given!r} {means}; the passes are {', '.join(PASSES)}")
    if alike[0] not in SETTINGS:
        raise ValueError(f"{alike[0]} has no settings here; give it a line in SETTINGS")
    return alike[0]


def _examined(row: Row, passes: list[str], limit: float) -> Row:
    """The row with what it lacks; a pass that wasn't reached gets the reason."""
    lacking = [pass_name for pass_name in passes if pass_name not in row["passes"]]
    if not lacking:
        return row
    new = in_process(__file__, row["model"], limit, ["--passes", *lacking])
    found = new.get("passes", {})
    why = new.get("error", "it gave no row")
    found |= {pass_name: {"error": why} for pass_name in lacking if pass_name not in found}
    return {"model": row["model"], "passes": row["passes"] | found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--passes", nargs="+", required=True, metavar="NAME")
    add_networks(parser)
    parser.add_argument("--json", type=Path, help="rows go here, and are taken from here")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    try:
        passes = [named(given) for given in options.passes]
    except ValueError as error:
        parser.error(f"--passes: {error}")
    if options.one:
        print(json.dumps(examine(options.one, passes)))
        return

    def row_of(name: str, known: Row | None) -> Row:
        return _examined(known or {"model": name, "passes": {}}, passes, options.limit)

    def said(row: Row) -> str:
        good = sum(works(row["passes"][pass_name]) for pass_name in passes)
        return f"{good} of {len(passes)}"

    print(table(each(names_of(options), options.json, row_of, said), passes))


if __name__ == "__main__":
    main()
