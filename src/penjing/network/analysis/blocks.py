"""Blocks: parts of a network that can be cut out, because a value of the same shape stays."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx

from penjing.network.analysis.affine import DROPOUT, SUMS, Region, Regions, is_one_layer, macs_of
from penjing.network.analysis.passage import is_function
from penjing.network.analysis.segments import bottlenecks
from penjing.network.axes.algebra import Axis, kept, leaves, size
from penjing.network.axes.groups import Axes, find_axes
from penjing.network.graph.arguments import argument
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import fake_values

aten = torch.ops.aten
MOST_FUNCTIONS = 2
"""The most activation functions that go together."""
PRODUCTS = {aten.mul.Tensor, aten.mul_.Tensor}
SCALINGS = {
    aten.mul.Scalar, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Scalar,
    aten.div.Tensor, aten.div.Scalar, aten.neg.default,
}  # fmt: skip
"""Affine functions with a number."""


@dataclass(frozen=True)
class Block:
    """A part that can be cut out: whatever reads `end` reads `start` instead.

    Attributes:
        name: the path of the modules whose layers go, such as `"layer1.2"`.
        kind: `"branch"` of a sum; `"gate"` that multiplies a value; `"stage"`, which is all that
            lies between two values on which alone the rest of the network depends; `"part"` of
            concatenations; or `"activation"`, functions between layers which are one layer without
            them.
        start, end: the names of the two nodes. A part has no start.
        layers: the names of the convolutions and linear layers that go, in order.
        alike: whether start and end have the same shape. If not, only a linear map can replace the
            block.
        functions: the names of the activation functions, if it is of that kind.
        macs, params: of the layer that stays in place of an `"activation"`; MACs for a whole batch.
    """

    name: str
    kind: str
    start: str
    end: str
    layers: tuple[str, ...]
    alike: bool = True
    functions: tuple[str, ...] = ()
    macs: int = 0
    params: int = 0


def find_blocks(network: Network) -> list[Block]:
    """All blocks of a network, in the order of the graph, found from operators and shapes.

    A sum of two values of one shape can lose either, and all that is computed only for it. A
    product can lose the factor that is a gate. Between two values that are read by a layer, and
    through which everything passes, all can go. A block has at least one layer, and doesn't hold
    every layer of the network. Activation functions can go where the layers around them then are
    one layer with fewer MACs.

    >>> import penjing
    >>> class Residual(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first, self.body = torch.nn.Linear(4, 8), torch.nn.Linear(8, 8)
    ...     def forward(self, x):
    ...         x = self.first(x)
    ...         return x + self.body(x).relu()
    >>> [block.name for block in find_blocks(penjing.capture(Residual(), torch.zeros(2, 4)))]
    ['body']
    """
    values = fake_values(network)
    nodes = {node.name: node for node in network.graph.nodes}
    every = [node for node in network.calls() if node.target in LAYERS]
    pairs: dict[tuple[fx.Node, fx.Node], tuple[str, list[fx.Node]]] = {}
    for end, start, kind in (*_operands(network, values), *_stages(network, values)):
        layers = [node for node in every if node in lost(end, start)]
        if layers and len(layers) < len(every):
            pairs.setdefault((end, start), (kind, layers))
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    blocks: list[Block] = [*_activations(network, values), *_parts(network)]
    for (end, start), (kind, layers) in pairs.items():
        name = common_path([str(node.meta["layer"]) for node in layers]) or end.name
        alike = values[end].shape == values[start].shape
        removed = tuple(node.name for node in layers)
        blocks.append(Block(name, kind, start.name, end.name, removed, alike))
    blocks.sort(key=lambda block: (order[nodes[block.end]], -len(block.layers)))
    return _named(blocks)


def _named(blocks: list[Block]) -> list[Block]:
    """The blocks with a number behind each name that an earlier one has.

    Activation functions come last, because a cut elsewhere decides whether they can go: the name of
    a whole block stays what it is.
    """
    seen: Counter[str] = Counter()
    named: dict[int, Block] = {}
    by_kind = sorted(enumerate(blocks), key=lambda entry: entry[1].kind == "activation")
    for place, block in by_kind:
        number = seen[block.name]
        seen[block.name] += 1
        named[place] = replace(block, name=f"{block.name}[{number}]") if number else block
    return [named[place] for place in range(len(blocks))]


def lost(end: fx.Node, start: fx.Node | None) -> set[fx.Node]:
    """The calls that nothing needs any more once the readers of `end` read `start`, or nothing."""
    gone = {end}
    waiting = [end]
    while waiting:
        for source in waiting.pop().all_input_nodes:
            if source is start or source in gone or source.op != "call_function":
                continue
            if gone.issuperset(source.users):
                gone.add(source)
                waiting.append(source)
    return gone


def stride_between(start: Tensor, end: Tensor) -> tuple[int, ...] | None:
    """The stride of a 1x1 convolution that maps one shape to the other; None if none does.

    Values of two or three dimensions are mapped along their last one and have the stride `()`.
    """
    if start.dim() != end.dim() or start.dim() not in (2, 3, 4) or len(start) != len(end):
        return None
    if start.dim() < 4:
        return () if start.shape[:-1] == end.shape[:-1] else None
    sizes = list(zip(start.shape[2:], end.shape[2:], strict=True))
    steps = tuple(math.ceil(before / after) for before, after in sizes)
    reached = [(size[0] - 1) // step + 1 for size, step in zip(sizes, steps, strict=True)]
    return steps if reached == list(end.shape[2:]) else None


def common_path(paths: list[str]) -> str:
    """The path of the innermost module that holds all of these.

    >>> common_path(["layer1.0.conv1", "layer1.0.conv2"])
    'layer1.0'
    """
    parts = [path.split(".") for path in paths]
    shared = []
    for level in zip(*parts, strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    return ".".join(shared)


def _operands(
    network: Network, values: Mapping[fx.Node, Any]
) -> Iterator[tuple[fx.Node, fx.Node, str]]:
    """(end, start, kind) of each sum and product that can lose one of its two operands."""
    for node in network.calls():
        if node.target not in SUMS | PRODUCTS:
            continue
        operands = [arg for arg in node.args if isinstance(arg, fx.Node) and arg.op != "get_attr"]
        kind = "branch" if node.target in SUMS else "gate"
        for start in operands:
            if len(operands) == 2 and _alike(values.get(start), values.get(node)):
                yield node, start, kind


def _stages(
    network: Network, values: Mapping[fx.Node, Any]
) -> Iterator[tuple[fx.Node, fx.Node, str]]:
    """(end, start, "stage") of each pair of values between which everything passes."""
    stops = [
        node
        for node in bottlenecks(network)
        if node.op == "call_function"
        and (any(user.target in LAYERS for user in node.users) or node.target in SUMS)
    ]
    for start, end in itertools.pairwise(stops):
        real = _is_real(values.get(start)) and _is_real(values.get(end))
        if real and stride_between(values[start], values[end]) is not None:
            yield end, start, "stage"


def _parts(network: Network) -> Iterator[Block]:
    """Values that are only concatenated with others, and have layers of their own."""
    axes: Axes | None = None
    for node in network.calls():
        if not node.users or any(user.target is not aten.cat.default for user in node.users):
            continue
        gone = lost(node, None)
        layers = [layer for layer in network.calls() if layer in gone and layer.target in LAYERS]
        if not layers:
            continue
        axes = axes or find_axes(network)
        if without(axes, node) is not None:
            name = common_path([str(layer.meta["layer"]) for layer in layers]) or node.name
            yield Block(name, "part", "", node.name, tuple(layer.name for layer in layers), False)


def without(axes: Axes, node: fx.Node) -> dict[Axis, list[int]] | None:
    """The indices that stay of each axis if a part of concatenations goes; None if it can't go."""
    readers = list(node.users)
    if not readers or any(reader.target is not aten.cat.default for reader in readers):
        return None
    dims = {argument(reader, "dim", 0) % len(axes.trace.of(node)) for reader in readers}
    if len(dims) > 1 or any(len(set(argument(reader, "tensors"))) < 2 for reader in readers):
        return None
    keep: dict[Axis, list[int]] = {axis: [] for axis in leaves(axes.trace.of(node)[dims.pop()])}
    if any(axis.pins for axis in keep):
        return None
    gone = lost(node, None)
    for other, dims_of in axes.trace.dims.items():
        if other in gone or set(other.users) <= gone:
            continue
        several = dims_of if dims_of and isinstance(dims_of[0], tuple) else (dims_of,)
        expressions = [expression for dims_of_one in several for expression in dims_of_one]
        if any(size(part) and not kept(part, keep) for part in expressions):
            return None
    return keep


def _activations(network: Network, values: Mapping[fx.Node, Any]) -> Iterator[Block]:
    """Functions without which the layers around them are one layer with fewer MACs."""
    shapes = {
        node: tuple(value.shape) for node, value in values.items() if isinstance(value, Tensor)
    }
    for function in network.calls():
        functions: list[fx.Node] = []
        following: fx.Node | None = function
        while following is not None and len(functions) < MOST_FUNCTIONS:
            if not _is_activation(following) or len(following.all_input_nodes[0].users) > 1:
                break
            functions.append(following)
            end = _layer_behind(following)
            if end is None:
                break
            region = _fused(network, shapes, functions, end)
            if region is not None:
                path = str(function.meta["layer"]) or function.name
                layers = tuple(node.name for node in region.layers)
                rest = region.function.kernel.numel() // region.function.groups
                yield Block(
                    path, "activation", region.source.name, end.name, layers, False,
                    tuple(node.name for node in functions), macs_of(region.function, shapes[end]),
                    rest + len(region.function.bias),
                )  # fmt: skip
            following = next(iter(end.users)) if len(end.users) == 1 else None


def _is_activation(node: fx.Node) -> bool:
    """Whether a node is an elementwise function, other than a product or a sum with a number."""
    return is_function(node) and node.target not in SUMS | PRODUCTS | SCALINGS


def _layer_behind(function: fx.Node) -> fx.Node | None:
    """The layer that alone reads a function, or the batch norm behind it; None if none does."""
    node = function
    while len(node.users) == 1:
        node = next(iter(node.users))
        if node.target in LAYERS:
            behind = next(iter(node.users)) if len(node.users) == 1 else node
            return behind if behind.target is aten.batch_norm.default else node
        if node.target not in DROPOUT:
            break
    return None


def _fused(
    network: Network, shapes: Mapping[fx.Node, Any], functions: list[fx.Node], end: fx.Node
) -> Region | None:
    """The region that ends at a node and holds the functions, if one layer for it saves MACs."""
    regions = Regions(network, shapes, True, frozenset(functions), "meta").ending_at(end)
    fits = [
        region
        for region in regions
        if region.nodes.issuperset(functions) and is_one_layer(region, end, shapes)
    ]

    def saved(region: Region) -> int:
        before: int = sum(
            math.prod(shapes[node]) * network.tensor(Layer(node).weight_name)[0].numel()
            for node in region.layers
        )
        return before - macs_of(region.function, shapes[end])

    best = max(fits, key=saved, default=None)
    return best if best is not None and saved(best) > 0 else None


def _alike(value: Any, other: Any) -> bool:
    return (
        _is_real(value)
        and _is_real(other)
        and value.shape == other.shape
        and value.dtype == other.dtype
    )


def _is_real(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point()
