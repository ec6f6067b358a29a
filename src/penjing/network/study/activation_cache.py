"""ActivationCache: the values of a network's nodes over some batches, worked out when asked for."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from penjing.network.graph.network import Network
from penjing.tasks.task import as_call


class ActivationCache:
    """A network that runs only as far as is asked, so that its weights may change on the way."""

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
        """As `value`, by the node's name."""
        return self.value(self.nodes[name])

    def value(self, node: fx.Node) -> list[Any]:
        """What the node gives, one entry for each batch."""
        waiting = [node]
        while waiting:
            one = waiting[-1]
            missing = [
                other
                for other in one.all_input_nodes
                if other not in self.known and other.op != "get_attr"
            ]
            if one in self.known or not missing:
                waiting.pop()
                if one not in self.known:
                    self.known[one] = self._run(one)
            else:
                waiting += missing
        return self.known[node]

    def depends(self, node: fx.Node, on: fx.Node) -> bool:
        """Whether `node` is worked out from `on`."""
        seen, waiting = set(), [node]
        while waiting:
            one = waiting.pop()
            if one is on:
                return True
            if one not in seen and self.order[one] > self.order[on]:
                seen.add(one)
                waiting += one.all_input_nodes
        return False

    def changed(self, node: fx.Node) -> None:
        """Forget what was worked out with the node's old weights."""
        for one in list(self.known):
            if self.order[one] >= self.order[node] and self.depends(one, node):
                del self.known[one]

    def forget_before(self, node: fx.Node) -> None:
        """Drop values that nothing from `node` on will read."""
        place = self.order[self.nodes[node.name]]
        for one in list(self.known):
            if one.op != "placeholder" and all(self.order[user] < place for user in one.users):
                del self.known[one]

    def _run(self, node: fx.Node) -> list[Any]:
        found = []
        for batch in range(len(self.batches)):

            def pick(one: fx.Node, batch: int = batch) -> Any:
                if one.op == "get_attr":
                    return self.network.tensor(str(one.target))
                return self.known[one][batch]

            args, kwargs = fx.map_arg((node.args, node.kwargs), pick)
            with torch.no_grad():
                found.append(node.target(*args, **kwargs))  # type: ignore[operator]
        return found
