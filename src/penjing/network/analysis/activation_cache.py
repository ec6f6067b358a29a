"""ActivationCache: the values of a network's nodes for some batches, computed on demand."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from penjing.network.graph.network import Network
from penjing.tasks.task import as_call


class ActivationCache:
    """Runs a network only as far as needed, so that its weights may change in between."""

    def __init__(self, network: Network, batches: list[Any]) -> None:
        self.network, self.batches = network, batches
        self.nodes = {node.name: node for node in network.graph.nodes}
        self.order = {node: place for place, node in enumerate(network.graph.nodes)}
        self.known: dict[fx.Node, list[Any]] = {}
        placeholders = [node for node in network.graph.nodes if node.op == "placeholder"]
        rows = [pytree.tree_leaves(as_call(inputs)) for inputs in batches]
        for place, node in enumerate(placeholders):
            self.known[node] = [row[place] for row in rows]

    def value_of(self, name: str) -> list[Any]:
        """The results of the node of that name, one for each batch."""
        return self.value(self.nodes[name])

    def value(self, node: fx.Node) -> list[Any]:
        """The results of a node, one for each batch."""
        waiting = [node]
        while waiting:
            current = waiting[-1]
            missing = [
                source
                for source in current.all_input_nodes
                if source not in self.known and source.op != "get_attr"
            ]
            if current in self.known or not missing:
                waiting.pop()
                if current not in self.known:
                    self.known[current] = self._run(current)
            else:
                waiting += missing
        return self.known[node]

    def depends(self, node: fx.Node, on: fx.Node) -> bool:
        """Whether `node` is computed from `on`."""
        seen, waiting = set(), [node]
        while waiting:
            current = waiting.pop()
            if current is on:
                return True
            if current not in seen and self.order[current] > self.order[on]:
                seen.add(current)
                waiting += current.all_input_nodes
        return False

    def changed(self, node: fx.Node) -> None:
        """Drop all values that depend on a node whose weights have changed."""
        for cached in list(self.known):
            if self.order[cached] >= self.order[node] and self.depends(cached, node):
                del self.known[cached]

    def forget_before(self, node: fx.Node) -> None:
        """Drop all values that no node from `node` on reads."""
        place = self.order[self.nodes[node.name]]
        for cached in list(self.known):
            if cached.op != "placeholder" and all(
                self.order[user] < place for user in cached.users
            ):
                del self.known[cached]

    def keep(self, names: set[str]) -> None:
        """Drop all values except for the inputs and those of the nodes with these names."""
        for cached in list(self.known):
            if cached.op != "placeholder" and cached.name not in names:
                del self.known[cached]

    def outputs(self) -> list[Any]:
        """The network's outputs, in the model's own structure, one for each batch."""
        (end,) = (node for node in self.network.graph.nodes if node.op == "output")
        sources = {node: self.value(node) for node in end.all_input_nodes}
        rows = (
            {node: sources[node][batch] for node in sources} for batch in range(len(self.batches))
        )
        return [self.network.structured(fx.map_arg(end.args[0], row.__getitem__)) for row in rows]

    def _run(self, node: fx.Node) -> list[Any]:
        results = []
        for batch in range(len(self.batches)):

            def pick(source: fx.Node, batch: int = batch) -> Any:
                if source.op == "get_attr":
                    return self.network.tensor(str(source.target))
                return self.known[source][batch]

            args, kwargs = fx.map_arg((node.args, node.kwargs), pick)
            with torch.no_grad():
                results.append(node.target(*args, **kwargs))  # type: ignore[operator]
        return results
