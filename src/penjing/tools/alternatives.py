"""A latency table of what can replace layers: factors of low rank, and fused layers."""

from __future__ import annotations

import itertools
import random
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from torch import fx

from penjing.arith.kernel_factors import full_ranks, why_not
from penjing.errors import InputError
from penjing.measure.latency_table import (
    FUSED,
    Alternative,
    LatencyTable,
    require_additive,
    sizes_of,
)
from penjing.network import Network
from penjing.network.analysis.affine import Region
from penjing.network.edits.factorize import why_not_factorized
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.shapes import shapes
from penjing.passes.names import is_in, require_names
from penjing.passes.structure.fuse import linear_parts
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import Target
from penjing.tools.layer_times import (
    HELD_OUT,
    ORIGINAL,
    Finish,
    by_layer,
    edited,
    require_here,
    timed,
)

OF_KERNELS = ("channel", "spatial", "tucker")
"""The schemes of kernels larger than 1; linear layers and 1x1 convolutions become two matrices."""
SHARES = (0.125, 0.25, 0.5, 1.0)
"""Which shares of the full rank are measured."""
PAIRS = ((0.125, 0.125), (0.125, 0.5), (0.5, 0.125), (0.5, 0.5), (1.0, 1.0))
"""Likewise for the two ranks of "tucker"."""
BETWEEN = (0.2, 0.35, 0.7)
"""The shares that networks at random have, which the table must predict."""
Factors = Mapping[str, tuple[str, tuple[int, ...]]]
"""By name of a layer's node, the scheme and the ranks."""


def alternatives_table(
    network: Network,
    target: Target,
    skip: Sequence[str] = (),
    multiple: int | None = None,
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
        skip: names of layers, or prefixes of them, to leave alone.
        multiple: ranks are multiples of this. Give `Factorize` the same one: a runtime that lays
            channels out in blocks takes longer for other ranks. By default it is the target's
            `width_multiple`.
        finish: what happens to a network before it is exported, such as quantization.
        seconds: about how long to time the networks. Exporting about 20 of them comes on top of it.

    Raises:
        InputError: the target isn't this machine, `skip` has an unknown name, nothing can be
            replaced, or the table is off by more than 10 % for the original network, for the
            fused one, or for one of three with factors at random.
    """
    require_here(target)
    labels = _labels(network)
    require_names("skip", skip, [*labels.values()])
    layers = {
        name: label
        for name, label in labels.items()
        if not any(is_in(label, part) for part in skip)
    }
    multiple = multiple or target.width_multiple
    tried = _tried(network, layers, multiple)
    held = _held_out(network, tried, multiple)
    fused = {
        end: region
        for end, region in linear_parts(network, shapes(network), front=False).items()
        if all(node.name in layers for node in region.layers)
    }
    if not tried and not fused:
        raise InputError("no layer of the network can be factorized or fused")
    sizes, owners = sizes_of(network), list[dict[str, str]]()
    variants = _variants(network, fused, [*tried, *held])
    files = timed(_watched(variants, network, sizes, owners), finish, seconds)
    count = len(files) - len(held)
    times = by_layer(files[:count], owners[:count])
    replaced = zip(tried, times[count - len(tried) :], strict=True)
    alternatives = [*_of_factors(replaced, layers)]
    if fused:
        alternatives += _of_fused(fused.values(), times[1], layers)
    rows = [(layer, *sizes[layer], ms) for layer, ms in times[0].items()]
    alternatives = [row for row in alternatives if row[0] in times[0]]
    table = LatencyTable(OnnxRuntime.name, target.description, tuple(rows), tuple(alternatives))
    pairs = {ORIGINAL: (sum(times[0].values()), files[0].latency_ms)}
    if fused:
        pairs["the network with fused layers"] = sum(times[1].values()), files[1].latency_ms
    for number, (factors, file) in enumerate(zip(held, files[count:], strict=True), 1):
        predicted = _predicted(table, {layers[name]: how for name, how in factors.items()})
        pairs[f"network {number} with factors at random"] = predicted, file.latency_ms
    require_additive(pairs)
    return table


def _labels(network: Network) -> dict[str, str]:
    """By name of a layer's node, what it is called, if nothing else is called so.

    The profiler and the table know layers by the module that has the weight.
    """
    sizes = sizes_of(network)
    called = {node.name: str(node.meta.get("layer")) for node in layers_of(network)}
    counts = Counter(called.values())
    return {name: label for name, label in called.items() if counts[label] == 1 and label in sizes}


def _tried(network: Network, layers: Collection[str], multiple: int) -> list[Factors]:
    """The choices of factors to measure; in each, as many layers are factorized as can be."""
    nodes = [
        node
        for node in layers_of(network)
        if node.name in layers and not why_not_factorized(network, node)
    ]
    tried: list[Factors] = []
    for scheme in OF_KERNELS:
        for shares in PAIRS if scheme == "tucker" else [(share,) for share in SHARES]:
            factors = {}
            for node in nodes:
                shape = tuple(network.tensor(Layer(node).weight_name).shape)
                if how := _how(scheme, shape, shares, multiple):
                    factors[node.name] = how
            if factors and factors not in tried:
                tried.append(factors)
    return tried


def _how(
    scheme: str, shape: Sequence[int], shares: Sequence[float], multiple: int
) -> tuple[str, tuple[int, ...]] | None:
    """The scheme and the ranks of one layer, or None if it can't have them."""
    if all(size == 1 for size in shape[2:]):
        scheme, shares = "matrices", shares[-1:]
    if why_not(scheme, shape):
        return None
    first = _rounded(shares[0] * (full := full_ranks(scheme, shape)[0]), full, multiple)
    rest = full_ranks(scheme, shape, first)[1:]
    return scheme, (first, *(_rounded(shares[1] * full, full, multiple) for full in rest))


def _rounded(rank: float, full: int, multiple: int) -> int:
    """The multiple below a rank, or the smallest one there is."""
    return min(full, max(1, int(rank) // multiple) * multiple)


def _held_out(network: Network, tried: Sequence[Factors], multiple: int) -> list[Factors]:
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
            shares = draw.choices(BETWEEN, k=2)
            how = _how(scheme, shape, shares, multiple) if scheme else None
            if how:
                factors[name] = how
        held.append(factors)
    return held


def _variants(
    network: Network, fused: Mapping[fx.Node, Region], choices: Sequence[Factors]
) -> Iterator[Network]:
    """The network, the network with all parts fused if there are any, and one for each choice."""
    yield network
    edits: list[dict[str, Any]] = []
    if fused:
        parts = {end.name: region.source.name for end, region in fused.items()}
        edits.append({"edit": "fuse", "layers": parts, "front": False})
    for factors in choices:
        layers = {name: {"scheme": how[0], "ranks": list(how[1])} for name, how in factors.items()}
        edits.append({"edit": "factorize", "layers": layers})
    for edit in edits:
        yield edited(network, edit)


def _watched(
    variants: Iterable[Network],
    network: Network,
    known: Collection[str],
    owners: list[dict[str, str]],
) -> Iterator[Network]:
    """The variants; of each, by layer, the layer of the original network is added to `owners`."""
    own = {node.name: node.meta.get("layer") for node in network.calls()}
    for variant in variants:
        mine = {}
        for node in variant.calls():
            owner = own.get(node.name) or own.get(node.meta.get("factor_of", ""))
            if node.meta.get("layer") and owner in known:
                mine[str(node.meta["layer"])] = str(owner)
        owners.append(mine)
        yield variant


def _of_factors(
    replaced: Iterable[tuple[Factors, Mapping[str, float]]], layers: Mapping[str, str]
) -> Iterator[Alternative]:
    """The times of factors, of those that the profile names."""
    for factors, times in replaced:
        for name, (scheme, ranks) in factors.items():
            if layers[name] in times:
                yield layers[name], scheme, ranks, times[layers[name]]


def _of_fused(
    fused: Iterable[Region], times: Mapping[str, float], layers: Mapping[str, str]
) -> Iterator[Alternative]:
    """The times of fused parts, of those that the profile names."""
    for region in fused:
        label = layers[region.layers[-1].name]
        if label in times:
            yield label, FUSED, (len(region.layers),), times[label]


def _predicted(table: LatencyTable, replaced: Mapping[str, tuple[str, tuple[int, ...]]]) -> float:
    """The latency of the network with factors in the place of some layers."""
    total = 0.0
    for layer, ms in table.whole().items():
        new = table.in_place_of(layer, *replaced[layer]) if layer in replaced else None
        total += ms if new is None else new
    return total
