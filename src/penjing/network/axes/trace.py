"""Trace: walk through a graph once and write every dimension as an expression over axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from penjing.network.axes.algebra import Axis, Expression, Pin, join, mix, pin
from penjing.network.graph.arguments import given
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes

Dims = tuple[Expression, ...]
Rule = Callable[["Trace", fx.Node], Any]
"""(trace, node) to the dimensions of the node's result: `Dims`, or a tuple of `Dims` for several
results."""


@dataclass(frozen=True)
class Spelling:
    """A size that stands in the arguments of a node.

    The size is a number, or a node of the graph if it depends on the batch (`batch * heads`).

    Attributes:
        node: the node.
        path: where the size stands: the position or the name of an argument, then an index into it.
        sizes: the dimensions whose sizes add up to it.
    """

    node: fx.Node
    path: tuple[int | str, ...]
    sizes: Dims


@dataclass
class Trace:
    """Everything that is known about the dimensions of a network so far."""

    network: Network
    shapes: Mapping[fx.Node, Any]
    dims: dict[fx.Node, Any] = field(default_factory=dict)
    tensors: dict[str, Dims] = field(default_factory=dict)
    spellings: list[Spelling] = field(default_factory=list)
    unknown: dict[str, Pin] = field(default_factory=dict)

    def of(self, node: Any) -> Dims:
        """The dimensions of a node's result, if that is one tensor; `()` for numbers and None."""
        dims: Dims = self.dims.get(node, ()) if isinstance(node, fx.Node) else ()
        return dims

    def shape(self, node: Any) -> tuple[int, ...]:
        """The shape of a node's result, with the batch size of the example."""
        return tuple(self.shapes.get(node, ()))

    def join(self, node: fx.Node, left: Expression, right: Expression) -> None:
        """Note that the two dimensions shrink together, because of `node`."""
        join(left, right, self.pin_of(node, operator_name(node)))

    def pin(self, node: fx.Node, dims: Dims, why: str) -> None:
        """Note that the dimensions keep their sizes, because of `node`."""
        for dim in dims:
            pin(dim, self.pin_of(node, why))

    def mix(self, node: fx.Node, dims: Dims, why: str) -> None:
        """Note that `node` computes a statistic over these dimensions."""
        for dim in dims:
            mix(dim, self.pin_of(node, why))

    def fixed(self, node: fx.Node, why: str, shape: tuple[int, ...] | None = None) -> Dims:
        """New dimensions that keep their sizes, for the node's shape or for the given one."""
        where = self.shape(node) if shape is None else shape
        return tuple(Axis(size, self.pin_of(node, why)) for size in where)

    def spell(self, node: fx.Node, path: tuple[int | str, ...], *sizes: Expression) -> None:
        """Note that the size at `path` is the sum of the sizes of these dimensions."""
        first, *rest = path
        value = given(node, first)
        for step in rest:
            value = value[step]
        if isinstance(value, fx.Node) or (isinstance(value, int) and value >= 0):
            self.spellings.append(Spelling(node, path, sizes))

    @staticmethod
    def pin_of(node: fx.Node, why: str) -> Pin:
        """A reason, with its node and source line."""
        return Pin(why, node.name, node.meta.get("source", ""))


def trace(network: Network, rules: Callable[[Any], Rule | None]) -> Trace:
    """Apply to each node of the graph the rule that `rules` returns for its operator.

    An operator without a rule pins all dimensions that reach it. `Trace.unknown` lists it.
    """
    traced = Trace(network, shapes(network))
    for node in network.graph.nodes:
        if node.op == "placeholder":
            traced.dims[node] = traced.fixed(node, "it belongs to an input of the model")
        elif node.op == "get_attr":
            if node not in traced.shapes:
                continue  # the subgraph of a control-flow operator
            if node.target not in traced.tensors:
                shape = network.tensor(node.target).shape
                traced.tensors[node.target] = tuple(Axis(size) for size in shape)
            traced.dims[node] = traced.tensors[node.target]
        elif node.op == "output":
            for source in node.all_input_nodes:
                traced.pin(node, traced.of(source), "it belongs to an output of the model")
        elif node in traced.shapes:
            rule = rules(node.target)
            traced.dims[node] = rule(traced, node) if rule else _no_rule(traced, node)
    return traced


def _no_rule(traced: Trace, node: fx.Node) -> Any:
    name = str(node.target)
    why = f"penjing has no rule for the operator {name}"
    traced.unknown.setdefault(name, traced.pin_of(node, why))
    for source in node.all_input_nodes:
        dims = traced.of(source)
        for dim in dims:
            for part in dim if isinstance(dim, tuple) else (dim,):
                pin(part, traced.pin_of(node, why))
    shape = traced.shapes[node]
    if shape and isinstance(shape[0], tuple):
        return tuple(traced.fixed(node, why, part) for part in shape)
    return traced.fixed(node, why)


def operator_name(node: fx.Node) -> str:
    """The plain name of a node's operator, such as `layer norm`."""
    parts = str(node.target).split(".")
    return parts[1].strip("_").replace("_", " ") if len(parts) > 1 else parts[0]


def is_pointwise(target: Any) -> bool:
    """Whether torch tags the operator, or its functional twin, as elementwise."""
    if not isinstance(target, torch._ops.OpOverload):
        return False
    if torch.Tag.pointwise in target.tags:
        return True
    name = target._opname
    if name.endswith("_") and hasattr(torch.ops.aten, name[:-1]):
        packet = getattr(torch.ops.aten, name[:-1])
        return any(torch.Tag.pointwise in getattr(packet, o).tags for o in packet.overloads())
    return False
