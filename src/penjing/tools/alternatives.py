"""A latency table of what can replace layers: factors of low rank, and fused layers."""

from __future__ import annotations

import itertools
import random
from collections.abc import Collection, Iterator, Mapping, Sequence

from penjing.arith.kernel_factors import full_ranks, why_not
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.measure.latency_table import (
    FUSED,
    LatencyTable,
    layer_sizes,
    require_additive,
)
from penjing.network import Network, carry_out, find_axes
from penjing.network.edits.factorize import why_not_factorized
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.shapes import shapes
from penjing.passes.structure.channels.widths import is_in
from penjing.passes.structure.fuse import linear_parts
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import Target
from penjing.tools.latency_table import UNCUT
from penjing.tools.layer_times import Finish, by_layer, require_here, timed

SHARES = (0.125, 0.25, 0.5, 1.0)
"""Which shares of the full rank are measured."""
PAIRS = ((0.125, 0.125), (0.125, 0.5), (0.5, 0.125), (0.5, 0.5), (1.0, 1.0))
"""Likewise for the two ranks of "tucker"."""
BETWEEN = (0.2, 0.35, 0.7)
"""The shares that networks at random have, which the table must predict."""
HELD_OUT = 3  # networks that the table must predict but isn't made from
Factors = Mapping[str, tuple[str, tuple[int, ...]]]
"""By name of a layer's node, the scheme and the ranks."""


def alternatives_table(
    network: Network,
    target: Target,
    schemes: Sequence[str] = ("channel", "spatial", "tucker"),
    skip: Sequence[str] = (),
    finish: Finish | None = None,
    seconds: float = 20.0,
) -> LatencyTable:
    """Measure what can replace each layer, on this machine, batch 1, one thread.

    `Factorize` and `Fuse` take the table, and then take only what is faster. Whole networks are
    exported with all layers factorized, for each scheme and at several ranks, and with all parts
    fused that `Fuse` finds. The times of the layers come from the runtime's profiler, as in
    `penjing.tools.latency_table.latency_table`.

    Args:
        network: the network whose layers are timed.
        target: this machine.
        schemes: how kernels larger than 1 are factorized; see `Factorize`. Linear layers and 1x1
            convolutions become two matrices.
        skip: names of layers, or prefixes of them, to leave alone.
        finish: what happens to a network before it is exported, such as quantization.
        seconds: about how long to time the networks. Exporting each takes a few more seconds.

    Raises:
        InputError: the target isn't this machine, nothing can be replaced, or the table is off by
            more than 10 % for the original network or for one of three with factors at random.
    """
    require_here(target)
    tried = _tried(network, schemes, skip)
    held = _held_out(network, tried)
    fused = linear_parts(network, shapes(network), front=False)
    if not tried and not fused:
        raise InputError("no layer of the network can be factorized or fused")
    variants = [network, *_factorized(network, [*tried, *held])]
    if fused:
        layers = {end.name: region.source.name for end, region in fused.items()}
        edit = {"edit": "fuse", "layers": layers, "front": False}
        variants.insert(1, carry_out(network, Plan("latency table", {}, (edit,))))
    files = timed(variants, finish, seconds)
    count = len(files) - len(held)
    axes = find_axes(network)
    known = layer_sizes(axes)
    times = by_layer(files[:count], [_owners(variant, known) for variant in variants[:count]])
    labels = {node.name: str(node.meta["layer"]) for node in layers_of(network)}
    alternatives = [
        (labels[name], scheme, ranks, mine[labels[name]])
        for factors, mine in zip(tried, times[1 + bool(fused) :], strict=True)
        for name, (scheme, ranks) in factors.items()
    ]
    for region in fused.values():
        label = str(region.layers[-1].meta["layer"])
        alternatives.append((label, FUSED, (), times[1][label]))
    whole = {name: group.size for name, group in axes.free.items()}
    sizes = {
        layer: (inputs.at(whole), outputs.at(whole)) for layer, (inputs, outputs) in known.items()
    }
    rows = [(layer, *sizes[layer], ms) for layer, ms in times[0].items()]
    table = LatencyTable(OnnxRuntime.name, target.description, tuple(rows), tuple(alternatives))
    pairs = {UNCUT: (sum(times[0].values()), files[0].latency_ms)}
    for number, (factors, file) in enumerate(zip(held, files[count:], strict=True), 1):
        predicted = _predicted(table, {labels[name]: how for name, how in factors.items()})
        pairs[f"network {number} with factors at random"] = predicted, file.latency_ms
    require_additive(pairs)
    return table


def _tried(network: Network, schemes: Sequence[str], skip: Sequence[str]) -> list[Factors]:
    """The choices of factors to measure; in each, as many layers are factorized as can be."""
    nodes = [
        node
        for node in layers_of(network)
        if not why_not_factorized(network, node)
        and not any(is_in(str(node.meta["layer"]), name) for name in skip)
    ]
    tried: list[Factors] = []
    for scheme in schemes:
        for shares in PAIRS if scheme == "tucker" else [(share,) for share in SHARES]:
            factors = {}
            for node in nodes:
                shape = tuple(network.tensor(Layer(node).weight_name).shape)
                if how := _how(scheme, shape, shares):
                    factors[node.name] = how
            if factors and factors not in tried:
                tried.append(factors)
    return tried


def _how(
    scheme: str, shape: Sequence[int], shares: Sequence[float]
) -> tuple[str, tuple[int, ...]] | None:
    """The scheme and the ranks of one layer, or None if it can't have them."""
    if all(size == 1 for size in shape[2:]):
        scheme, shares = "matrices", shares[-1:]
    if why_not(scheme, shape):
        return None
    first = max(1, int(shares[0] * full_ranks(scheme, shape)[0]))
    full = full_ranks(scheme, shape, first)
    return scheme, (first, *(max(1, int(shares[1] * rank)) for rank in full[1:]))


def _held_out(network: Network, tried: Sequence[Factors]) -> list[Factors]:
    """Factors at random, at shares that aren't measured. They are always the same."""
    draw = random.Random(0)
    ways: dict[str, set[str]] = {}
    for name, (scheme, _) in itertools.chain(*(factors.items() for factors in tried)):
        ways.setdefault(name, set()).add(scheme)
    nodes = {node.name: node for node in layers_of(network)}
    held: list[Factors] = []
    for _ in range(HELD_OUT if ways else 0):
        factors = {}
        for name, schemes in ways.items():
            scheme = draw.choice(["", *sorted(schemes)])
            shape = tuple(network.tensor(Layer(nodes[name]).weight_name).shape)
            how = _how(scheme, shape, draw.choices(BETWEEN, k=2)) if scheme else None
            if how:
                factors[name] = how
        held.append(factors)
    return held


def _factorized(network: Network, choices: Sequence[Factors]) -> Iterator[Network]:
    for factors in choices:
        layers = {name: {"scheme": how[0], "ranks": list(how[1])} for name, how in factors.items()}
        yield carry_out(
            network, Plan("latency table", {}, ({"edit": "factorize", "layers": layers},))
        )


def _owners(network: Network, known: Collection[str]) -> dict[str, str]:
    """By layer of a network with factors, the layer of the original network, if it is known."""
    nodes = {node.name: node for node in network.graph.nodes}
    owners = {}
    for node in network.calls():
        owner = nodes[node.meta.get("factor_of", node.name)].meta.get("layer")
        if node.meta.get("layer") and owner in known:
            owners[str(node.meta["layer"])] = str(owner)
    return owners


def _predicted(table: LatencyTable, factors: Factors) -> float:
    """The latency of the network with some layers, by label, replaced by factors."""
    whole = table.whole()
    replaced = {name: table.in_place_of(name, *how) for name, how in factors.items()}
    return sum(ms if (new := replaced.get(name)) is None else new for name, ms in whole.items())
