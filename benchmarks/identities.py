"""What must change nothing, over many architectures: full rank, fused layers, zeros, values.

    python benchmarks/identities.py --list FAMILIES.json --json ROWS.json
    python benchmarks/identities.py --models resnet18 --torchvision mobilenet_v2

Needs timm (and torchvision): pip install timm torchvision. Weights are random. Each row has the
largest difference of any output from the unchanged network's, relative to the largest entry:

- full rank: all layers that can be are written as factors of full rank
- fused: all parts that are affine become one layer each, whatever it costs
- zeros: a sparsity that the weights of each layer have already
- all values: a codebook that has every value, of weights rounded to a grid beforehand
- silent: one branch of a sum, whose last layer is set to zero beforehand, is dropped

With --float64 everything is computed in float64, which tells rounding in a deep network from an
identity that doesn't hold: what is rounding gets a hundred million times smaller.

A network in which nothing can be fused, or no branch ends in a layer, has an empty cell. Every
network gets a process of its own; what is in ROWS.json already isn't measured again.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from process_each import Row, StageFailed, each, in_process, stage
from same_outputs import gap_of, outputs_of
from torch import Tensor, fx
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


def examine(name: str, double: bool) -> Row:
    """One network and all identities."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    row: Row = {"model": name}
    try:
        with stage(row, "build"):
            model, x = drawn(name)
            if double:
                model, x = model.double(), x.double()
        with stage(row, "capture"):
            network = capture(model, x)
            task = Task(model, x, [(x, torch.zeros(2))], [(x, torch.zeros(2))])
    except StageFailed as failure:
        return row | {"error": str(failure)}
    for what, identity in IDENTITIES.items():
        try:
            with stage(row, what):
                row[what] = identity(network, task)
        except StageFailed as failure:
            row[what] = str(failure)
        print(json.dumps(row), flush=True)  # should the next one take too long
    return row


def full_rank(network: Network, task: Task) -> float | None:
    nodes = layers_of(network)
    counts = Counter(node.meta.get("layer") for node in nodes)
    ranks = {}
    for node in nodes:
        if not node.meta.get("layer") or counts[node.meta["layer"]] > 1:
            continue
        shape = tuple(network.tensor(Layer(node).weight_name).shape)
        scheme = "channel" if any(size > 1 for size in shape[2:]) else "matrices"
        if not why_not_factorized(network, node) and not why_not(scheme, shape):
            ranks[str(node.meta["layer"])] = full_ranks(scheme, shape)
    if not ranks:
        return None
    step = Factorize(ranks=ranks, scheme="channel", basis="weights")
    return _gap(step(network, task), network, task)


def fused(network: Network, task: Task) -> float | None:
    step = Fuse(most=1e9)
    plan = step.plan(network, task)
    return _gap(step.apply(network, plan, task), network, task) if plan.edits else None


def zeros(network: Network, task: Task) -> float:
    sparse = copy.deepcopy(network)
    for weight in _weights(sparse):
        size = weight.abs().flatten()
        weight[weight.abs() <= size.kthvalue(math.ceil(0.35 * len(size))).values] = 0
    return _gap(Sparsify(0.3, "l1", "layer", ends=0)(sparse, task), sparse, task)


def all_values(network: Network, task: Task) -> float:
    gridded = copy.deepcopy(network)
    for weight in _weights(gridded):
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
    return any(tensor is not None for tensor in tensors)


def _weights(network: Network) -> list[Tensor]:
    """The weights of its layers, which may be changed in place."""
    layers = (Layer(node) for node in layers_of(network))
    tensors = [network.tensor(layer.weight_name) for layer in layers if _owned(layer)]
    return [tensor.detach() for tensor in tensors if tensor.is_floating_point()]


def _owned(layer: Layer) -> bool:
    return layer.weight.op == "get_attr"


def _gap(changed: Network, network: Network, task: Task) -> float:
    with torch.no_grad():
        return gap_of(outputs_of(changed, task.example), outputs_of(network, task.example))


IDENTITIES: dict[str, Callable[[Network, Task], float | None]] = {
    "full rank": full_rank, "fused": fused, "zeros": zeros, "all values": all_values,
    "silent": silent,
}  # fmt: skip


def table(rows: list[Row]) -> str:
    """The rows, then a line for each identity."""
    lines = [f"| model | {' | '.join(IDENTITIES)} |", "|---" * (len(IDENTITIES) + 1) + "|"]
    for row in rows:
        cells = [_cell(row, what) for what in IDENTITIES]
        lines.append(f"| {row['model']} | {' | '.join(cells)} |")
    for what in IDENTITIES:
        known = [row[what] for row in rows if isinstance(row.get(what), float)]
        failed = sum(row.get(what, "not reached") is not None for row in rows) - len(known)
        same = sum(gap <= SAME for gap in known)
        largest = f", the largest {max(known):.1e}" if known else ""
        lines.append(f"\n{what}: {same} of {len(known)} within {SAME:g}{largest}; {failed} failed")
    return "\n".join(lines)


def _cell(row: Row, what: str) -> str:
    value = row.get(what, row.get("error", "not reached"))
    if isinstance(value, str):
        return value[:120].replace("|", "/")
    return "" if value is None else f"{value:.1e}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--json", type=Path, help="rows go here, and are taken from here")
    parser.add_argument("--limit", type=float, default=300.0, help="seconds for each network")
    parser.add_argument("--float64", action="store_true", help="compute in float64")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one, options.float64)))
        return
    more = ["--float64"] * options.float64
    rows = each(
        names_of(options),
        options.json,
        lambda name, known: known or in_process(__file__, name, options.limit, more),
        str,
    )
    print(table(rows))


if __name__ == "__main__":
    main()
