"""Layers: the operators with a weight, and what a node gives one of them, by name."""

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
"""Convolutions, and over how many dimensions they go."""
TRANSPOSED: dict[Any, int] = {
    aten.conv_transpose1d.default: 1, aten.conv_transpose2d.input: 2,
    aten.conv_transpose3d.input: 3,
}  # fmt: skip
"""Transposed ones likewise. They are no `LAYERS`: no pass works on them yet."""
CONVOLUTIONS = set(DIMENSIONS)
LAYERS = CONVOLUTIONS | {aten.linear.default}


def layers_of(network: Network) -> list[fx.Node]:
    """The nodes of all layers, in order."""
    return [node for node in network.calls() if node.target in LAYERS]


@dataclass(frozen=True)
class Layer:
    """A view of a node that calls a linear layer or a convolution, transposed or not."""

    node: fx.Node

    @property
    def data(self) -> fx.Node:
        """What it multiplies its weight with."""
        return self._node("input")

    @property
    def weight(self) -> fx.Node:
        """A parameter, or what is computed of one: rounded, say."""
        return self._node("weight")

    @property
    def weight_name(self) -> str:
        """Of its weight, which is a parameter as it is stored."""
        return str(self.weight.target)

    @property
    def bias(self) -> fx.Node | None:
        """As `weight`; None if it has none."""
        return None if argument(self.node, "bias") is None else self._node("bias")

    @property
    def transposed(self) -> bool:
        """Whether it is a transposed convolution, whose weight is (I, O / groups, ..)."""
        return self.node.target in TRANSPOSED

    @property
    def dimensions(self) -> int:
        """Over how many dimensions it goes beside the channels: 0 for a linear layer."""
        return (DIMENSIONS | TRANSPOSED).get(self.node.target, 0)

    @property
    def stride(self) -> tuple[int, ...]:
        """Of its windows, one number for each dimension."""
        return self._sizes("stride")

    @property
    def padding(self) -> tuple[int, ...] | str:
        """Zeros at each end of each dimension; or a word, `"same"` or `"valid"`."""
        padding = argument(self.node, "padding")
        return padding if isinstance(padding, str) else self._sizes("padding")

    @property
    def dilation(self) -> tuple[int, ...]:
        """How far apart neighbours within a window lie, one number for each dimension."""
        return self._sizes("dilation")

    @property
    def groups(self) -> int:
        """Into how many groups its inputs and outputs fall that have no weight in common."""
        groups = argument(self.node, "groups", 1)
        assert isinstance(groups, int)
        return groups

    def _node(self, name: str) -> fx.Node:
        node = argument(self.node, name)
        assert isinstance(node, fx.Node)
        return node

    def _sizes(self, name: str) -> tuple[int, ...]:
        """One number for each dimension, where one number may stand for all."""
        value = argument(self.node, name, ())
        sizes = tuple(value) if isinstance(value, list | tuple) else (value,)
        return sizes * self.dimensions if len(sizes) == 1 else sizes
