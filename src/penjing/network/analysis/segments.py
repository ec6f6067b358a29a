"""Segments: parts of a graph with a single input and a single output."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx

from penjing.network.graph.network import Network

Instead = Mapping[fx.Node, Callable[..., Any]]
"""By node, the function to call instead of its operator, with the same arguments."""


@dataclass(frozen=True)
class Segment:
    """The nodes between two values.

    Attributes:
        start: the input.
        end: the output.
        nodes: all nodes that are computed in between, in order; `end` is the last.
    """

    start: fx.Node
    end: fx.Node
    nodes: tuple[fx.Node, ...]

    def run(self, network: Network, value: Tensor, instead: Instead) -> Tensor:
        """Compute the output for an input.

        Args:
            network: the network.
            value: the input.
            instead: by node, a function to call instead of the node's operator.
        """
        known: dict[fx.Node, Any] = {self.start: value}
        for node in self.nodes:
            if node.op == "get_attr":
                result: Any = network.tensor(str(node.target))
            else:
                args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
                result = instead.get(node, node.target)(*args, **kwargs)  # type: ignore[operator]
            known[node] = result
        end: Tensor = known[self.end]
        return end


def between(start: fx.Node, end: fx.Node) -> Segment | None:
    """The segment between two values; None if it has another input."""
    seen, waiting = {start}, [end]
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        if node.op == "placeholder":
            return None
        seen.add(node)
        waiting += node.all_input_nodes
    nodes = tuple(node for node in start.graph.nodes if node in seen and node is not start)
    return Segment(start, end, nodes)


def bottlenecks(network: Network) -> list[fx.Node]:
    """The values on which alone everything behind them depends, in the order of the graph.

    Weights, and values that are computed from weights only, don't count.
    """
    last: dict[fx.Node, int] = {}
    constant: set[fx.Node] = set()
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    for node in network.graph.nodes:
        inputs = node.all_input_nodes
        if node.op == "get_attr" or (inputs and constant.issuperset(inputs)):
            constant.add(node)
        for source in inputs:
            last[source] = order[node]
    live: set[fx.Node] = set()
    nodes = []
    for node, place in order.items():
        live = {earlier for earlier in live if last[earlier] > place}
        if node in constant or node not in last:
            continue
        live.add(node)
        if live == {node}:
            nodes.append(node)
    return nodes
