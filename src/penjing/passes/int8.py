"""Int8: integers of eight bits for weights and activations, chosen from calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import (
    RangeMethod,
    activation_range,
    scale_and_zero_point,
    weight_scales,
)
from penjing.contract import LeftAlone, Plan
from penjing.data import first
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.quantize_edits import CONVOLUTIONS
from penjing.passes.contract import Pass
from penjing.passes.widths import is_in
from penjing.task import Task, as_call

aten = torch.ops.aten
LAYERS = CONVOLUTIONS | {aten.linear.default}
CLAMPS = {
    aten.relu.default, aten.relu_.default, aten.hardtanh.default, aten.hardtanh_.default,
    aten.relu6.default, aten.clamp.default, aten.clamp_.default,
}  # fmt: skip
SUMS = {aten.add.Tensor, aten.add_.Tensor}
JOINED = SUMS | {aten.cat.default, aten.adaptive_avg_pool2d.default, aten.avg_pool2d.default}
PASSING = {
    aten.max_pool2d.default, aten.flatten.using_ints, aten.reshape.default,
    aten.slice.Tensor, aten.pad.default, aten.dropout.default, aten.dropout_.default,
    aten.permute.default, aten.transpose.int, aten.contiguous.default,
}  # fmt: skip
VALUES_PER_BATCH = 4_096


@dataclass(frozen=True)
class Int8(Pass):
    """Quantize weights (per channel, symmetric int8) and activations (per tensor, uint8).

    Batch norms are folded first. A rounding stands where the runtime fuses it: at the inputs and
    outputs of convolutions, linear layers, sums, concatenations and pools, behind a ReLU rather
    than before it; operators that only move values keep the grid of their input.

    Attributes:
        ranges: `"mse"` (least squared error), `"percentile"` or `"minmax"` of the activations.
        samples: how many training samples are looked at; two or more.
        percentile: for `"percentile"`.
        skip: layers to leave in float, by name or prefix.

    Raises:
        InputError: an option is out of range, or `skip` names nothing.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.
    """

    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    skip: tuple[str, ...] = ()

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(f"ranges must be mse, percentile or minmax; found {self.ranges!r}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        object.__setattr__(self, "skip", tuple(self.skip))

    def plan(self, network: Network, task: Task) -> Plan:
        """Fold on a copy, run calibration samples, and choose every scale."""
        start: tuple[Mapping[str, Any], ...] = ({"edit": "fold_batch_norm"}, {"edit": "pool_means"})
        options = asdict(self) | {"skip": list(self.skip)}
        name = type(self).__name__
        if any("quantize" in str(node.target) for node in network.calls()):
            left = LeftAlone("the network", "it is quantized already")
            return Plan(name, options, left_alone=(left,))
        folded = carry_out(network, Plan(name, options, start))
        layers, left_alone = self._layers(folded)
        if not layers:
            return Plan(name, options, left_alone=tuple(left_alone))
        rounded, grids = _places(folded, layers)
        values = _collect(folded, task, self.samples, set(grids.values()))
        activations: dict[str, dict[str, float]] = {}
        for node in rounded:
            low, high = activation_range(values[grids[node]], self.ranges, self.percentile)
            scale, zero = scale_and_zero_point(low, high)
            activations[node.name] = {"scale": scale, "zero_point": zero}
        weights = {
            node.name: {
                "scales": weight_scales(folded.tensor(str(node.args[1].target))).tolist(),  # type: ignore[union-attr]
                "input_scale": activations[cast(fx.Node, node.args[0]).name]["scale"],
            }
            for node in layers
        }
        edit = {"edit": "quantize", "activations": activations, "weights": weights}
        summary = f"{len(weights)} layers and {len(activations)} values to 8 bits"
        return Plan(name, options, (*start, edit), summary, tuple(left_alone))

    def _layers(self, network: Network) -> tuple[list[fx.Node], list[LeftAlone]]:
        layers, left = [], []
        names = [str(node.meta["layer"]) for node in network.calls() if node.target in LAYERS]
        for one in self.skip:
            if not any(is_in(name, one) for name in names):
                raise InputError(
                    f"skip names {one!r}, which is no layer; there are {', '.join(names)}"
                )
        for node in network.calls():
            if node.target in LAYERS:
                layer = str(node.meta["layer"])
                weight = node.args[1]
                if any(is_in(layer, one) for one in self.skip):
                    left.append(LeftAlone(layer, "named in skip"))
                elif not isinstance(weight, fx.Node) or weight.op != "get_attr":
                    left.append(LeftAlone(layer, "its weight is computed"))
                elif len(weight.users) > 1:
                    left.append(LeftAlone(layer, "its weight is shared"))
                else:
                    layers.append(node)
        return layers, left


def _places(
    network: Network, layers: list[fx.Node]
) -> tuple[list[fx.Node], dict[fx.Node, fx.Node]]:
    """The values to round, in order, and for each the value whose range gives its grid."""
    wanted: set[fx.Node] = set()
    outputs = {
        one for node in network.graph.nodes if node.op == "output" for one in node.all_input_nodes
    }
    for node in layers:
        wanted.add(node.args[0])  # type: ignore[arg-type]
    changed = True
    while changed:
        before = len(wanted)
        for node in network.calls():
            edge = _edge(node)
            if edge in outputs:
                continue
            if node in layers and node.target in CONVOLUTIONS:
                wanted.add(edge)
            elif node in layers or node.target in JOINED | PASSING:
                inputs = [one for one in node.all_input_nodes if one.op != "get_attr"]
                ready = all(_edge(one) in wanted or one in wanted for one in inputs)
                if node in layers:
                    ready = _feeds_integers(edge, layers)
                if ready and _feeds_integers(edge, layers):
                    wanted.add(edge)
                    wanted.update(one for one in inputs if node.target not in LAYERS)
        changed = len(wanted) > before
    order = [node for node in network.graph.nodes if node in wanted]
    grids: dict[fx.Node, fx.Node] = {}
    for node in order:
        source = node.args[0] if node.target in PASSING else None
        grids[node] = grids.get(source, node) if isinstance(source, fx.Node) else node
    return order, grids


def _edge(node: fx.Node) -> fx.Node:
    """Where a layer's or sum's result is rounded: behind the clamp that alone reads it."""
    if node.target in LAYERS | SUMS and len(node.users) == 1:
        user = next(iter(node.users))
        if user.target in CLAMPS:
            return user
    return node


def _feeds_integers(edge: fx.Node, layers: list[fx.Node]) -> bool:
    """Whether an operator that computes on integers reads it."""
    return any(user in layers or user.target in JOINED | PASSING for user in edge.users)


class _Collector(fx.Interpreter):
    """Keeps a sample of the values of some nodes while it runs the graph."""

    def __init__(self, network: Network, wanted: set[fx.Node]) -> None:
        super().__init__(network, graph=network.graph)
        self.network = network
        self.found: dict[fx.Node, list[Tensor]] = {node: [] for node in wanted}
        self.draw = torch.Generator().manual_seed(0)

    def fetch_attr(self, target: str) -> Any:
        return self.network.tensor(target)

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        if n in self.found:
            flat = value.flatten()
            ends = torch.stack([flat.min(), flat.max()])
            if len(flat) > VALUES_PER_BATCH:
                flat = flat[torch.randint(len(flat), (VALUES_PER_BATCH,), generator=self.draw)]
            self.found[n].append(torch.cat([flat, ends]))
        return value


def _collect(
    network: Network, task: Task, samples: int, wanted: set[fx.Node]
) -> dict[fx.Node, Tensor]:
    collector = _Collector(network, wanted)
    with torch.no_grad():
        for inputs, _ in first(task.train, samples):
            args, kwargs = as_call(inputs)
            leaves = torch.utils._pytree.tree_leaves((args, kwargs))
            collector.run(*leaves, enable_io_processing=False)
    return {node: torch.cat(parts) for node, parts in collector.found.items()}
