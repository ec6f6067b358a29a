"""Shapes: the shape of every value in a network, found without computing any value."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Any

import torch
from torch import fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils import _pytree as pytree

from penjing.network.graph.network import Network
from penjing.tasks.task import as_call

Shape = tuple[int, ...]
MOST_KNOWN = 64
"""For so many networks the values are kept, the latest ones."""
_known: OrderedDict[str, dict[str, Any]] = OrderedDict()
"""By fingerprint of a network, and by name of a node."""


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
    """The result of each node for `network.example`: fake tensors (shape, dtype) or numbers.

    Running a graph on fake tensors takes far longer than writing it down. So the results are kept
    for graphs that are the same to the last argument, with tensors of the same shapes and types.
    """
    key = _fingerprint(network)
    if key not in _known:
        _known[key] = {node.name: value for node, value in _computed(network).items()}
        while len(_known) > MOST_KNOWN:
            _known.popitem(last=False)
    _known.move_to_end(key)
    values = _known[key]
    return {node: values[node.name] for node in network.graph.nodes if node.name in values}


def _fingerprint(network: Network) -> str:
    """What the shapes and types of all values hang on, in a word."""
    reads = (str(node.target) for node in network.graph.nodes if node.op == "get_attr")
    given = [*pytree.tree_leaves(as_call(network.example)), *map(network.attribute, reads)]
    text = "\n".join([str(network.graph), *map(_described, given)])
    return hashlib.sha256(text.encode()).hexdigest()


def _described(value: Any) -> str:
    if not isinstance(value, torch.Tensor):
        return repr(value)
    return f"{tuple(value.shape)} {value.dtype} {value.device} {tuple(value.stride())}"


def _computed(network: Network) -> dict[fx.Node, Any]:
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
