"""Quantize: integers for weights and activations, their grids chosen from calibration data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, fx

from penjing.arith.quantizer import (
    RangeMethod,
    activation_range,
    scale_and_zero_point,
    weight_ends,
    weight_scales,
)
from penjing.contract import LeftAlone, Plan
from penjing.data import check_batch, first
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.fake_quantized import grids
from penjing.network.layers import CONVOLUTIONS, LAYERS
from penjing.passes.contract import Pass
from penjing.passes.widths import is_in
from penjing.task import Task, as_call

aten = torch.ops.aten
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
WIDTHS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Quantize(Pass):
    """Round weights (per channel, symmetric) and activations (per tensor) to grids of integers.

    Batch norms are folded first. A rounding stands where the runtime fuses it: at the inputs and
    outputs of convolutions, linear layers, sums, concatenations and pools, behind a ReLU rather
    than before it; operators that only move values keep the grid of their input. The result is
    still a network of real numbers, which the passes that refine a rounding and `Tune` can train;
    a runtime makes the integers.

    Attributes:
        weights: bits of weights, 2 to 8.
        activations: bits of what layers read, 2 to 8, or None: weights only. Sums, pools and
            concatenations keep eight, as does whatever the first and the last layer read.
        ends: at least so many bits for the weights of the first and the last layer.
        layers: bits of weights by layer or prefix, instead of `weights`; 0 leaves it in float.
        scales: `"channel"` (one to each output channel) or `"tensor"`.
        group: of linear layers, how many inputs share a scale; only with `activations=None`.
        ranges: `"mse"` (least squared error), `"percentile"` or `"minmax"` of the activations.
        samples: how many training samples are looked at; two or more.
        percentile: for `"percentile"`.
        skip: layers to leave in float, by name or prefix.

    Raises:
        InputError: an option is out of range, or names no layer; calibration data of another
            shape, or with values that aren't finite.

    Source: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.
    """

    weights: int = 8
    activations: int | None = 8
    ends: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    scales: Literal["channel", "tensor"] = "channel"
    group: int | None = None
    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    skip: tuple[str, ...] = ()

    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        widths: dict[str, Any] = {"weights": self.weights, "ends": self.ends}
        if self.activations is not None:
            widths["activations"] = self.activations
        for name, bits in (*widths.items(), *self.layers.items()):
            allowed = WIDTHS if name in widths else (0, *WIDTHS)
            if bits not in allowed:
                raise InputError(
                    f"{name} must have {', '.join(map(str, allowed[:-1]))} or 8 bits; found "
                    f"{bits}; for one bit see Binarize, for -1, 0 and 1 Ternarize"
                )
        if self.scales not in ("channel", "tensor"):
            raise InputError(f"scales must be channel or tensor; found {self.scales!r}")
        if self.group is not None and (self.group < 2 or self.activations is not None):
            raise InputError(
                f"group must be 2 or more, and activations None; found {self.group} and "
                f"{self.activations}"
            )
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(f"ranges must be mse, percentile or minmax; found {self.ranges!r}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "layers", dict(self.layers))

    def plan(self, network: Network, task: Task) -> Plan:
        """Fold on a copy, run calibration samples, and choose every scale."""
        start: tuple[Mapping[str, Any], ...] = ({"edit": "fold_batch_norm"}, {"edit": "pool_means"})
        options = asdict(self) | {"skip": list(self.skip)}
        name = type(self).__name__
        if any(True for _ in grids(network)):
            left = LeftAlone("the network", "it is quantized already")
            return Plan(name, options, left_alone=(left,))
        folded = carry_out(network, Plan(name, options, start))
        widths, left_alone = self._widths(folded)
        if not widths:
            return Plan(name, options, left_alone=tuple(left_alone))
        activations: dict[str, Any] = {}
        if self.activations is not None:
            activations = self._activations(folded, task, list(widths), left_alone)
        weights = {node.name: self._weight(folded, node, bits) for node, bits in widths.items()}
        edit = {"edit": "fake_quantize", "activations": activations, "weights": weights}
        return Plan(
            name, options, (*start, edit), self._summary(widths, activations), tuple(left_alone)
        )

    def _widths(self, network: Network) -> tuple[dict[fx.Node, int], list[LeftAlone]]:
        """Bits of each layer's weights, and what stays in float."""
        nodes = [node for node in network.calls() if node.target in LAYERS]
        names = [str(node.meta["layer"]) for node in nodes]
        for option, given in (("skip", self.skip), ("layers", tuple(self.layers))):
            for one in given:
                if not any(is_in(name, one) for name in names):
                    raise InputError(
                        f"{option} names {one!r}, which is no layer; there are {', '.join(names)}"
                    )
        widths: dict[fx.Node, int] = {}
        left = []
        for node, layer in zip(nodes, names, strict=True):
            weight = node.args[1]
            named = [bits for one, bits in self.layers.items() if is_in(layer, one)]
            if any(is_in(layer, one) for one in self.skip) or named == [0]:
                left.append(LeftAlone(layer, "named in skip" if self.skip else "0 bits in layers"))
            elif not isinstance(weight, fx.Node) or weight.op != "get_attr":
                left.append(LeftAlone(layer, "its weight is computed"))
            elif len(weight.users) > 1:
                left.append(LeftAlone(layer, "its weight is shared"))
            else:
                usual = max(self.weights, self.ends) if node in _ends(nodes) else self.weights
                widths[node] = named[-1] if named else usual
        return widths, left

    def _weight(self, network: Network, node: fx.Node, bits: int) -> dict[str, Any]:
        weight = network.tensor(str(cast(fx.Node, node.args[1]).target)).cpu()
        low, high = weight_ends(bits)
        group = self.group if node.target not in CONVOLUTIONS else None
        if group is not None and weight[0].numel() % group:
            group = None
        if self.scales == "tensor":
            scales = weight_scales(weight.reshape(1, -1), bits).expand(len(weight))
        else:
            scales = weight_scales(weight, bits, group)
        return {"scales": scales.tolist(), "low": low, "high": high}

    def _activations(
        self, network: Network, task: Task, layers: list[fx.Node], left: list[LeftAlone]
    ) -> dict[str, Any]:
        assert self.activations is not None
        rounded, roots = _places(network, layers)
        all_layers = [node for node in network.calls() if node.target in LAYERS]
        bits: dict[fx.Node, int] = {}
        for node in rounded:
            readers = {user for user in node.users if user in layers and user.args[0] is node}
            if readers:
                wanted = 8 if readers & set(_ends(all_layers)) else self.activations
                bits[roots[node]] = max(bits.get(roots[node], 0), wanted)
        values = _collect(network, task, self.samples, set(roots.values()))
        found: dict[fx.Node, dict[str, float]] = {}
        for root in dict.fromkeys(roots[node] for node in rounded):
            width, where = bits.get(root, 8), f"{root.meta.get('layer') or 'input'} ({root.name})"
            try:
                low, high = activation_range(values[root], self.ranges, width, self.percentile)
            except InputError as error:
                raise InputError(f"calibration: at {where}, {error}") from error
            if float(values[root].min()) == float(values[root].max()):
                left.append(LeftAlone(where, "constant on all calibration samples; grid guessed"))
            scale, zero = scale_and_zero_point(low, high, 2**width - 1)
            found[root] = {"scale": scale, "zero_point": zero, "low": 0, "high": 2**width - 1}
        return {node.name: {**found[roots[node]], "root": roots[node].name} for node in rounded}

    def _summary(self, widths: Mapping[fx.Node, int], activations: Mapping[str, Any]) -> str:
        counts = {bits: list(widths.values()).count(bits) for bits in sorted(set(widths.values()))}
        layers = ", ".join(f"{count} layers to {bits} bits" for bits, count in counts.items())
        if not activations:
            return f"{layers}, values in float"
        narrow = sum(one["high"] < 255 for one in activations.values())
        few = f", {narrow} of them to {self.activations}" if narrow else ""
        return f"{layers}, {len(activations)} values to 8{few}"


def _ends(layers: list[fx.Node]) -> tuple[fx.Node, ...]:
    """The first and the last layer."""
    return (layers[0], layers[-1])


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
    shapes = [tuple(one.shape[1:]) for one in torch.utils._pytree.tree_leaves(task.example)]
    with torch.no_grad():
        for inputs, targets in first(task.train, samples):
            check_batch("calibration", inputs, targets, shapes)
            args, kwargs = as_call(inputs)
            leaves = torch.utils._pytree.tree_leaves((args, kwargs))
            collector.run(*leaves, enable_io_processing=False)
    return {node: torch.cat(parts) for node, parts in collector.found.items()}
