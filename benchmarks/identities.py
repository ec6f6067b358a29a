"""What must change nothing, over many architectures: full rank, fused layers, no zeros, all values.

    python benchmarks/identities.py --list FAMILIES.json --json ROWS.json
    python benchmarks/identities.py --models resnet18 --torchvision mobilenet_v2

Needs timm (and torchvision): pip install timm torchvision. Weights are random. Each row has the
largest difference of any output from the unchanged network's, relative to the largest entry:

- full rank: all layers that can be are written as factors of full rank
- fused: all parts that are affine become one layer each, whatever it costs
- no zeros: a sparsity of 0
- all values: a codebook that has every value, of weights rounded to a grid beforehand
- silent: one branch of a sum, whose last layer is set to zero beforehand, is dropped

A network in which nothing can be fused, or no branch ends in a layer, has an empty cell. Every
network gets a process of its own; what is in ROWS.json already isn't measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from process_each import Row, StageFailed, in_process, keep, known_rows, stage
from same_outputs import gap_of, outputs_of
from torch import fx
from zoo import add_networks, drawn, names_of

from penjing.arith.kernel_factors import full_ranks, why_not
from penjing.network import Network, capture
from penjing.network.analysis.blocks import find_blocks
from penjing.network.edits.factorize import why_not_factorized
from penjing.network.graph.batch_norm import batch_norm_of
from penjing.network.graph.layers import LAYERS, Layer, layers_of
from penjing.passes import Drop, Factorize, Fuse, Share, Sparsify
from penjing.tasks.task import Task

SAME = 1e-5
"""The largest relative difference that counts as none, in float32."""
STEPS = 200
"""The grid of the weights that are shared has so many steps, fewer than codebooks can hold."""
aten = torch.ops.aten
KEEP_ZERO = {
    aten.dropout.default, aten.mul.Tensor, aten.view.default, aten.reshape.default,
    aten.transpose.int, aten.permute.default, aten.flatten.using_ints, aten.clone.default,
}  # fmt: skip
"""Operators that give zeros if their first input is zero."""
BATCH_NORM = aten.batch_norm.default


def examine(name: str) -> Row:
    """One network and all identities."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    row: Row = {"model": name}
    try:
        with stage(row, "build"):
            model, x = drawn(name)
        with stage(row, "capture"):
            network = capture(model, x)
            task = Task(model, x, [(x, torch.zeros(2))], [(x, torch.zeros(2))])
        for what, identity in IDENTITIES.items():
            with stage(row, what):
                row[what] = identity(network, task)
            print(json.dumps(row), flush=True)  # should the next one take too long
    except StageFailed as failure:
        row["error"] = str(failure)
    return row


def full_rank(network: Network, task: Task) -> float:
    ranks = {}
    for node in layers_of(network):
        shape = tuple(network.tensor(Layer(node).weight_name).shape)
        scheme = "channel" if any(size > 1 for size in shape[2:]) else "matrices"
        if not why_not_factorized(network, node) and not why_not(scheme, shape):
            ranks[str(node.meta["layer"])] = full_ranks(scheme, shape)
    step = Factorize(ranks=ranks, scheme="channel", basis="weights")
    return _gap(step(network, task), network, task)


def fused(network: Network, task: Task) -> float | None:
    step = Fuse(most=1e9)
    plan = step.plan(network, task)
    return _gap(step.apply(network, plan, task), network, task) if plan.edits else None


def no_zeros(network: Network, task: Task) -> float:
    return _gap(Sparsify(0.0)(network, task), network, task)


def all_values(network: Network, task: Task) -> float:
    gridded = copy.deepcopy(network)
    with torch.no_grad():
        for node in layers_of(gridded):
            weight = gridded.tensor(Layer(node).weight_name) if _owned(Layer(node)) else None
            if weight is not None and weight.is_floating_point():
                step = 2 * weight.abs().max().clamp_min(1e-30) / STEPS
                weight.copy_((weight / step).round() * step)
    return _gap(Share(256)(gridded, task), gridded, task)


def silent(network: Network, task: Task) -> float | None:
    quiet = copy.deepcopy(network)
    nodes = {node.name: node for node in quiet.graph.nodes}
    for block in find_blocks(quiet):
        if block.kind == "branch" and _silence(quiet, nodes[block.end], nodes[block.start]):
            return _gap(Drop(names=(block.name,), samples=2)(quiet, task), quiet, task)
    return None


def _silence(network: Network, total: fx.Node, stays: fx.Node) -> bool:
    """Set the term of a sum that doesn't stay to zero, in the layer that ends it.

    Returns:
        Whether it ends in a layer.
    """
    terms = [node for node in total.all_input_nodes if node is not stays]
    end = terms[0] if len(terms) == 1 else total
    while end.target in KEEP_ZERO:
        end = end.all_input_nodes[0]
    if end.target is BATCH_NORM:
        norm = batch_norm_of(network, end)
        tensors = [norm.gamma, norm.beta] if norm is not None else []
    elif end.target in LAYERS and _owned(Layer(end)):
        bias = Layer(end).bias
        tensors = [network.tensor(Layer(end).weight_name)]
        tensors += [network.tensor(str(bias.target))] if bias is not None else []
    else:
        return False
    with torch.no_grad():
        for tensor in tensors:
            if tensor is not None:
                tensor.zero_()
    return bool(tensors)


def _owned(layer: Layer) -> bool:
    return layer.weight.op == "get_attr"


def _gap(changed: Network, network: Network, task: Task) -> float:
    with torch.no_grad():
        return gap_of(outputs_of(changed, task.example), outputs_of(network, task.example))


IDENTITIES: dict[str, Callable[[Network, Task], float | None]] = {
    "full rank": full_rank, "fused": fused, "no zeros": no_zeros, "all values": all_values,
    "silent": silent,
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows, then a line for each identity."""
    lines = [f"| model | {' | '.join(IDENTITIES)} |", "|---" * (len(IDENTITIES) + 1) + "|"]
    for row in rows:
        cells = [_cell(row, what) for what in IDENTITIES]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    for what in IDENTITIES:
        known = [row[what] for row in rows if row.get(what) is not None]
        same = sum(gap <= SAME for gap in known)
        largest = f", the largest {max(known):.1e}" if known else ""
        lines.append(f"\n{what}: {same} of {len(known)} within {SAME:g}{largest}")
    return "\n".join(lines)


def _cell(row: Row, what: str) -> str:
    if what not in row:
        return str(row.get("error", "not reached"))[:120].replace("|", "/")
    return "" if row[what] is None else f"{row[what]:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--json", type=Path, help="rows go here, and are taken from here")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each network")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return
    known = known_rows(options.json)
    names: list[Any] = names_of(options)
    for number, name in enumerate(names, start=1):
        if name not in known:
            known[name] = in_process(__file__, name, options.limit)
            keep(options.json, known)
        print(f"[{number}/{len(names)}] {known[name]}", file=sys.stderr)
    print(table([known[name] for name in names]))


if __name__ == "__main__":
    main()
