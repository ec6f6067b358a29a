"""Layers: convolutions and linear layers, and their arguments by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from penjing.network.graph.arguments import argument
from penjing.network.graph.network import Network

aten = torch.ops.aten
DIMENSIONS: dict[Any, int] = {
    aten.conv1d.default: 1, aten.conv2d.default: 2, aten.conv3d.default: 3,
    aten.conv1d.padding: 1, aten.conv2d.padding: 2, aten.conv3d.padding: 3,
}  # fmt: skip
"""Convolutions, and their number of spatial dimensions."""
TRANSPOSED: dict[Any, int] = {
    aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2,
    aten.conv_transpose3d.input: 3,
}  # fmt: skip
"""Transposed convolutions, likewise. They aren't in `LAYERS`, since no pass handles them yet."""
CONVOLUTIONS = set(DIMENSIONS)
CLAMPS = {
    aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.relu6.default, aten.clamp.default, aten.clamp_.default,
}  # fmt: skip
"""Activations that integer kernels compute together with the layer before them."""
LAYERS = CONVOLUTIONS | {aten.linear.default}


def layers_of(network: Network) -> list[fx.Node]:
    """The nodes of all layers, in the order of the graph."""
    return [node for node in network.calls() if node.target in LAYERS]


@dataclass(frozen=True)
class Layer:
    """Named access to the arguments of a linear layer or a (transposed) convolution."""

    node: fx.Node

    @property
    def data(self) -> fx.Node:
        """The input."""
        return self._node("input")

    @property
    def weight(self) -> fx.Node:
        """The weight: a parameter, or something computed from one, such as its rounded value."""
        return self._node("weight")

    @property
    def weight_name(self) -> str:
        """The name of the weight, if it is a parameter that the layer reads directly."""
        return str(self.weight.target)

    @property
    def bias(self) -> fx.Node | None:
        """The bias, like `weight`; None if there is none."""
        return None if argument(self.node, "bias") is None else self._node("bias")

    @property
    def transposed(self) -> bool:
        """Whether this is a transposed convolution, with a weight (I, O / groups, ..)."""
        return self.node.target in TRANSPOSED

    @property
    def dimensions(self) -> int:
        """The number of spatial dimensions; 0 for a linear layer."""
        return (DIMENSIONS | TRANSPOSED).get(self.node.target, 0)

    @property
    def stride(self) -> tuple[int, ...]:
        """The stride, one number for each spatial dimension."""
        return self._sizes("stride")

    @property
    def padding(self) -> tuple[int, ...] | str:
        """The zeros at each end of each spatial dimension, or `"same"` or `"valid"`."""
        padding = argument(self.node, "padding")
        return padding if isinstance(padding, str) else self._sizes("padding")

    @property
    def dilation(self) -> tuple[int, ...]:
        """The dilation, one number for each spatial dimension."""
        return self._sizes("dilation")

    @property
    def groups(self) -> int:
        """The number of groups of the convolution."""
        groups = argument(self.node, "groups", 1)
        assert isinstance(groups, int)
        return groups

    def _node(self, name: str) -> fx.Node:
        node = argument(self.node, name)
        assert isinstance(node, fx.Node)
        return node

    def _sizes(self, name: str) -> tuple[int, ...]:
        """One number for each spatial dimension; the argument may give one number for all."""
        value = argument(self.node, name, ())
        sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
        return sizes * self.dimensions if len(sizes) == 1 else sizes
