"""Affine: parts of a network that are affine functions of one value, as a single convolution.

Convolutions, linear layers, batch norms, dropout and sums compose. Two kernels one after the other
are a larger kernel, the sum of two is a kernel that covers both, and the shortcut of a sum is a
kernel with a single one at its place (a Dirac kernel):

    y_NOp = sum over I and taps k of w_OIk x_NI(s p + f + k) + b_O

with the position p, the stride s and the place f of the first tap. Outside of x are zeros. The
result equals the original at the borders too if a layer that pads reads zeros there anyway.

Shapes: a kernel is (O, I, taps..); that of a linear layer is (O, I).

Source: X. Ding et al., "RepVGG: Making VGG-style ConvNets Great Again", 2021.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, fx
from torch.nn import functional

from penjing.network.graph.arguments import argument
from penjing.network.graph.batch_norm import batch_norm_of
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.network import Network

aten = torch.ops.aten
SUMS = {aten.add.Tensor, aten.add_.Tensor}
DROPOUT = {aten.dropout.default, aten.dropout_.default, aten.feature_dropout.default}
MOST_PARTS = 8
"""The largest number of sources that are tried for one value."""


@dataclass(frozen=True)
class Affine:
    """An affine function of one value.

    Attributes:
        kernel: (O, I, taps..), float64, dense whatever the groups are.
        bias: (O,), float64.
        first: f, by spatial dimension.
        stride: s, by spatial dimension.
        groups: a number of equal blocks on the diagonal outside of which the kernel is zero.
    """

    kernel: Tensor
    bias: Tensor
    first: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1

    @property
    def taps(self) -> tuple[int, ...]:
        """The size of the kernel in each spatial dimension."""
        return tuple(self.kernel.shape[2:])

    def after(self, inner: Affine, front: bool) -> Affine | None:
        """This function of another one's result.

        Args:
            inner: the other function.
            front: move the zeros that this function reads around its input to the front, which
                changes the result near the border. If False and that would matter, the result is
                None.
        """
        at_once = all(size == 1 for size in (*inner.taps, *inner.stride)) and not any(inner.first)
        if any(self.first) and not front and (not at_once or bool(inner.bias.any())):
            return None
        sums = self.kernel.flatten(2).sum(2) if self.taps else self.kernel
        pairs = zip(inner.first, inner.stride, self.first, strict=True)
        return Affine(
            _composed(self.kernel, inner),
            sums @ inner.bias + self.bias,
            tuple(place + step * outer for place, step, outer in pairs),
            tuple(a * b for a, b in zip(inner.stride, self.stride, strict=True)),
            math.gcd(self.groups, inner.groups),
        )

    def plus(self, other: Affine) -> Affine | None:
        """The sum of two functions of the same value; None if their strides or sizes differ."""
        if self.stride != other.stride or self.kernel.shape[:2] != other.kernel.shape[:2]:
            return None
        ends = list(zip(self.first, self.taps, other.first, other.taps, strict=True))
        first = tuple(min(a, b) for a, _, b, _ in ends)
        last = [max(a + size, b + other_size) for a, size, b, other_size in ends]
        taps = [end - begin for begin, end in zip(first, last, strict=True)]
        kernel = self.kernel.new_zeros(*self.kernel.shape[:2], *taps)
        for part in (self, other):
            where = [
                slice(place - begin, place - begin + size)
                for place, begin, size in zip(part.first, first, part.taps, strict=True)
            ]
            kernel[(slice(None), slice(None), *where)] += part.kernel
        groups = math.gcd(self.groups, other.groups)
        return Affine(kernel, self.bias + other.bias, first, self.stride, groups)


@dataclass(frozen=True)
class Region:
    """The nodes of a graph that are one affine function of a value.

    Attributes:
        source: the value.
        nodes: the nodes; the last one in the order of the graph gives the result.
        function: what they compute.
    """

    source: fx.Node
    nodes: frozenset[fx.Node]
    function: Affine

    @property
    def layers(self) -> list[fx.Node]:
        """The convolutions and linear layers among the nodes, in the order of the graph."""
        nodes = self.source.graph.nodes
        return [node for node in nodes if node in self.nodes and node.target in LAYERS]


class Regions:
    """Finds the regions of a network, by their last node.

    Args:
        network: the network.
        shapes: the shapes of its values; see `penjing.network.graph.shapes.shapes`.
        front: as for `Affine.after`.
        linear: functions to treat as if they returned their input.
        device: `"meta"` to find the sizes of kernels without computing any, which needs `front`.
    """

    def __init__(
        self,
        network: Network,
        shapes: Mapping[fx.Node, Any],
        front: bool,
        linear: frozenset[fx.Node] = frozenset(),
        device: str = "cpu",
    ) -> None:
        self._network, self._shapes, self._front = network, shapes, front
        self._linear, self._device = linear, device
        self._known: dict[fx.Node, list[Region]] = {}

    def ending_at(self, end: fx.Node) -> list[Region]:
        """The regions that end at a node, each with another source, the nearest source first."""
        if end not in self._known:
            self._known[end] = []
            regions = list(self._begun(end))
            for region in regions:
                if len(regions) < MOST_PARTS and region.nodes.issuperset(region.source.users):
                    regions += self._longer(region)
            self._known[end] = regions
        return self._known[end]

    def _longer(self, region: Region) -> Iterator[Region]:
        """A region, with a region in front of it that nothing else reads."""
        for inner in self.ending_at(region.source):
            function = region.function.after(inner.function, self._front)
            if function is not None:
                yield Region(inner.source, region.nodes | inner.nodes, function)

    def _begun(self, node: fx.Node) -> Iterator[Region]:
        """The regions of the node itself, and of the operands of a sum that only the sum reads."""
        if node.op != "call_function" or node not in self._shapes:
            return
        if node.target in SUMS:
            yield from self._sum(node)
            return
        function = self._of_layer(node) if node.target in LAYERS else None
        if node.target is aten.batch_norm.default:
            function = self._of_norm(node)
        elif node.target in DROPOUT or node in self._linear:
            function = self._identity(node)
        if function is not None:
            yield Region(node.all_input_nodes[0], frozenset({node}), function)

    def _sum(self, node: fx.Node) -> Iterator[Region]:
        operands = [value for value in node.args if isinstance(value, fx.Node)]
        same = {self._shapes.get(value) for value in operands} == {self._shapes[node]}
        if len(operands) != 2 or not same or argument(node, "alpha", 1) != 1:
            return
        left, right = ([*self._operand(value, node)] for value in operands)
        for region, other in itertools.product(left, right):
            if region.source is other.source:
                function = region.function.plus(other.function)
                if function is not None:
                    nodes = region.nodes | other.nodes | {node}
                    yield Region(region.source, nodes, function)

    def _operand(self, value: fx.Node, total: fx.Node) -> Iterator[Region]:
        identity = self._identity(value)
        if identity is not None:
            yield Region(value, frozenset(), identity)
        if set(value.users) == {total}:
            yield from self.ending_at(value)

    def _of_layer(self, node: fx.Node) -> Affine | None:
        """A convolution or linear layer that alone reads its weight; None if it isn't one."""
        layer = Layer(node)
        sources = [source for source in (layer.weight, layer.bias) if source is not None]
        if any(source.op != "get_attr" or len(source.users) > 1 for source in sources):
            return None
        weight = self._read(self._network.tensor(layer.weight_name))
        bias = weight.new_zeros(len(weight))
        if layer.bias is not None:
            bias = self._read(self._network.tensor(str(layer.bias.target)))
        if not layer.dimensions:
            return Affine(weight, bias)
        if isinstance(layer.padding, str):
            return None
        groups = layer.groups
        inputs = weight.shape[1] * groups
        taps = zip(weight.shape[2:], layer.dilation, strict=True)
        kernel = weight.new_zeros(
            len(weight), inputs, *((size - 1) * step + 1 for size, step in taps)
        )
        spread = tuple(slice(None, None, step) for step in layer.dilation)
        rows, columns = len(weight) // groups, weight.shape[1]
        for group in range(groups):
            part = slice(group * rows, (group + 1) * rows)
            read = slice(group * columns, (group + 1) * columns)
            kernel[(part, read, *spread)] = weight[part]
        first = tuple(-size for size in layer.padding)
        return Affine(kernel, bias, first, layer.stride, groups)

    def _read(self, tensor: Tensor) -> Tensor:
        return tensor.detach().double().to(self._device)

    def _identity(self, value: fx.Node) -> Affine | None:
        """The value itself: a Dirac kernel over its channels."""
        shape = self._shapes.get(value)
        if not shape or not isinstance(shape[0], int) or len(shape) < 2:
            return None
        spatial = self._spatial(value)
        channels = shape[1] if spatial else shape[-1]
        return _diagonal(self._read(torch.ones(channels)), spatial)

    def _of_norm(self, node: fx.Node) -> Affine | None:
        norm = batch_norm_of(self._network, node)
        if norm is None:
            return None
        gain = self._read(norm.gain)
        beta = 0.0 if norm.beta is None else self._read(norm.beta)
        made = _diagonal(gain, self._spatial(node))
        return replace(made, bias=beta - self._read(norm.mean) * gain)

    def _spatial(self, value: fx.Node) -> int:
        """The spatial dimensions of a value that convolutions read; 0 if its channels come last."""
        rank = len(self._shapes[value])
        for node in (value, *value.users, *value.all_input_nodes):
            if node.target in LAYERS or node.target is aten.batch_norm.default:
                linear = node.target is aten.linear.default
                return 0 if linear else rank - 2
        return rank - 2 if rank > 3 else 0


def is_one_layer(region: Region, end: fx.Node, known: Mapping[fx.Node, Any]) -> bool:
    """Whether a layer with its padding alike at both ends gives the shape of the part's result."""
    function, before, after = region.function, known[region.source], known[end]
    if any(place > 0 for place in function.first):
        return False
    spatial = len(function.taps)
    sizes = zip(
        before[len(before) - spatial :], function.taps, function.first, function.stride,
        after[len(after) - spatial :], strict=True,
    )  # fmt: skip
    return bool(region.layers) and all(
        (size - 2 * place - taps) // stride + 1 == result
        for size, taps, place, stride, result in sizes
    )


def macs_of(function: Affine, shape: tuple[int, ...]) -> int:
    """The MACs of the function as one layer, for a whole batch whose result has this shape."""
    return math.prod(shape) * function.kernel[0].numel() // function.groups


def _diagonal(values: Tensor, spatial: int) -> Affine:
    kernel = torch.diag(values).view(len(values), len(values), *[1] * spatial)
    zeros = torch.zeros_like(values)
    return Affine(kernel, zeros, (0,) * spatial, (1,) * spatial, len(values))


def _composed(outer: Tensor, inner: Affine) -> Tensor:
    """The kernel of one convolution after another, whose result has the stride `inner.stride`."""
    if not inner.taps:
        return outer @ inner.kernel
    if all(size == 1 for size in outer.shape[2:]):
        return torch.einsum("om,mi...->oi...", outer.flatten(1), inner.kernel)
    apart = outer
    if any(step > 1 for step in inner.stride):
        sizes = [
            (size - 1) * step + 1 for size, step in zip(outer.shape[2:], inner.stride, strict=True)
        ]
        apart = outer.new_zeros(*outer.shape[:2], *sizes)
        spread = [slice(None, None, step) for step in inner.stride]
        apart[(slice(None), slice(None), *spread)] = outer
    if all(size == 1 for size in inner.taps):
        return torch.einsum("om...,mi->oi...", apart, inner.kernel.flatten(1))
    convolve = (functional.conv1d, functional.conv2d, functional.conv3d)[len(inner.taps) - 1]
    flipped = inner.kernel.flip(tuple(range(2, inner.kernel.dim()))).transpose(0, 1)
    around = [size - 1 for size in inner.taps]
    composed: Tensor = convolve(apart, flipped, padding=around)
    return composed
