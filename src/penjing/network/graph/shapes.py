"""Shapes: the shape of every value in a network, found without computing any value."""

from __future__ import annotations

from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from penjing.network.graph.network import Network
from penjing.tasks.task import as_call

Shape = tuple[int, ...]


class _Recorder(fx.Interpreter):
    """Runs a graph on fake tensors and keeps the result of each node."""

    def __init__(self, network: Network, mode: FakeTensorMode) -> None:
        super().__init__(network, garbage_collect_values=False, graph=network.graph)
        self.mode, self.network = mode, network
        self.values: dict[fx.Node, Any] = {}

    def fetch_attr(self, target: str) -> Any:
        value = self.network.attribute(target)
        return self.mode.from_tensor(value) if isinstance(value, torch.Tensor) else value

    def run_node(self, n: fx.Node) -> Any:
        self.values[n] = super().run_node(n)
        return self.values[n]


def fake_values(network: Network) -> dict[fx.Node, Any]:
    """The result of each node for `network.example`: fake tensors (shape, dtype) or numbers."""
    args, kwargs = as_call(network.example)
    mode = FakeTensorMode()
    recorder = _Recorder(network, mode)
    leaves = pytree.tree_leaves((args, kwargs))
    fakes = [mode.from_tensor(leaf) for leaf in leaves]
    with mode, torch.no_grad():
        recorder.run(*fakes, enable_io_processing=False)
    return recorder.values


def shapes(network: Network) -> dict[fx.Node, Any]:
    """The shape of each node's value: a tuple, or a tuple of tuples for several tensors.

    The batch size is that of the example. Nodes without a tensor as result are left out.
    """
    by_node: dict[fx.Node, Any] = {}
    for node, value in fake_values(network).items():
        if isinstance(value, torch.Tensor):
            by_node[node] = tuple(value.shape)
        elif isinstance(value, list | tuple) and value and isinstance(value[0], torch.Tensor):
            by_node[node] = tuple(tuple(tensor.shape) for tensor in value)
    return by_node
