"""Sensitivity: how much the outputs of a network change if one layer's weight is replaced."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.errors import InputError
from penjing.network import Network
from penjing.network.graph.layers import Layer
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.tasks.data import calibration
from penjing.tasks.task import Task, as_call

OutputLoss = Literal["kl", "squares"]
OUTPUT_LOSSES = ("kl", "squares")
SAMPLES_AT_ONCE = 32


def sensitivities(
    network: Network,
    task: Task,
    weights: Mapping[fx.Node, Sequence[Tensor]],
    loss: OutputLoss,
    samples: int,
    progress: Progress,
) -> dict[fx.Node, list[float]]:
    """The loss of the outputs for each weight that a layer could have, with all others unchanged.

    `"kl"` is the Kullback-Leibler divergence from the network's own softmax over dimension 1.
    `"squares"` is the squared difference divided by the variance of the outputs. Both are means
    over training samples; labels aren't used. Everything in front of a layer is computed only once.

    Args:
        network: the network.
        task: its training data is used.
        weights: by node of a layer, the weights to try.
        loss: `"kl"` or `"squares"`.
        samples: the number of training samples.
        progress: called for every few samples.

    Raises:
        InputError: the data has another shape, or `"kl"` is asked of outputs that aren't scores.
    """
    losses = {node: torch.zeros(len(some), dtype=torch.float64) for node, some in weights.items()}
    behind = {node: _behind(network, Layer(node).weight) for node in weights}
    total = 0
    for leaves in _parts(task, samples):
        doing = f"measuring what fewer bits do to {counted(len(weights), 'layer')}"
        progress(doing, min(1.0, total / samples))
        run = _Rerun(network)
        wanted = run.run(*leaves, enable_io_processing=False)
        total += len(leaves[0])
        for node, some in weights.items():
            known = {
                earlier: value for earlier, value in run.env.items() if earlier not in behind[node]
            }
            for place, weight in enumerate(some):
                again = _Rerun(network)
                begin = {**known, Layer(node).weight: weight}
                outputs = again.run(*leaves, initial_env=begin, enable_io_processing=False)
                losses[node][place] += len(leaves[0]) * _loss(outputs, wanted, loss)
    return {node: (sums / max(total, 1)).tolist() for node, sums in losses.items()}


def _parts(task: Task, samples: int) -> Iterator[list[Tensor]]:
    """Training inputs, a few samples at a time, in the order of the graph's placeholders."""
    for inputs in calibration(task, samples):
        leaves = pytree.tree_leaves(as_call(inputs))
        for part in zip(*(leaf.split(SAMPLES_AT_ONCE) for leaf in leaves), strict=True):
            yield list(part)


def _loss(outputs: Any, wanted: Any, loss: OutputLoss) -> float:
    pairs = [
        (output.double(), expected.double())
        for output, expected in zip(
            pytree.tree_leaves(outputs), pytree.tree_leaves(wanted), strict=True
        )
        if isinstance(output, Tensor) and output.is_floating_point()
    ]
    if loss == "squares":
        return sum(float((a - b).square().mean() / b.var().clamp_min(1e-30)) for a, b in pairs)
    shape = tuple(pairs[0][0].shape) if pairs else ()
    if len(shape) < 2 or shape[1] < 2:
        raise InputError(
            f"loss='kl' needs class scores of shape (N, C, ...) as outputs; found {shape}; use "
            "loss='squares' for other outputs"
        )
    mine, theirs = (scores.log_softmax(1) for scores in pairs[0])
    return float((theirs.exp() * (theirs - mine)).sum(1).mean())


def _behind(network: Network, source: fx.Node) -> set[fx.Node]:
    """The node and everything that is computed from it."""
    behind = {source}
    for node in network.graph.nodes:
        if any(operand in behind for operand in node.all_input_nodes):
            behind.add(node)
    return behind


class _Rerun(fx.Interpreter):
    """Runs a graph from given values on, and keeps every value by not writing in place."""

    def __init__(self, network: Network) -> None:
        super().__init__(network, garbage_collect_values=False, graph=network.graph)
        self.network = network

    def run(self, *args: Any, **options: Any) -> Any:
        with torch.no_grad():
            return super().run(*args, **options)

    def fetch_attr(self, target: str) -> Any:
        return self.network.attribute(target)

    def call_function(self, target: Any, args: Any, kwargs: Any) -> Any:
        schema = getattr(target, "_schema", None)
        if schema is not None and schema.is_mutable:
            args = pytree.tree_map_only(Tensor, Tensor.clone, args)
        return super().call_function(target, args, kwargs)
