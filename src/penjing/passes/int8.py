"""Int8: weights and activations as 8-bit integers, placed so that the runtime fuses them all."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

import torch
from torch import fx
from torch.utils import _pytree as pytree

from penjing.arith.quantizer import Affine, Histogram, Ranges, channel_scales
from penjing.contract import LeftAlone, Plan
from penjing.data import calibration
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.quantize_edits import WEIGHTED, fold_batch_norm, shared
from penjing.passes.contract import Pass
from penjing.task import Inputs, Task, as_call, count

aten = torch.ops.aten
LINEAR = aten.linear.default
ADD = {aten.add.Tensor, aten.add_.Tensor}
CAT = aten.cat.default
POOL = {aten.mean.dim, aten.adaptive_avg_pool2d.default}
CLIPS = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.relu6_.default,
    aten.hardtanh.default, aten.hardtanh_.default, aten.clamp.default, aten.clamp_.default,
    aten.clamp_min.default,
}  # fmt: skip
SAME_GRID = {
    aten.max_pool2d.default, aten.flatten.using_ints, aten.view.default, aten.reshape.default,
    aten.slice.Tensor, aten.pad.default, aten.constant_pad_nd.default, aten.permute.default,
    aten.transpose.int, aten.unsqueeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.dropout.default, aten.contiguous.default, aten.channel_shuffle.default,
}  # fmt: skip
"""Operators that only move values: their output keeps the input's scale and zero point."""


@dataclass(frozen=True)
class Int8(Pass):
    """Post-training int8: per-channel symmetric weights, per-tensor uint8 activations.

    Batch norm is folded first. Inputs and outputs of convolutions and linears, of residual adds,
    concatenations and global pools become uint8; a clip behind one is absorbed in its range. The
    network's outputs stay float.

    Attributes:
        ranges: `"mse"`, `"percentile"` or `"minmax"`, how the range of a value is chosen.
        samples: how many training inputs are looked at.
        percentile: used by `ranges="percentile"`, in percent.
        skip: layers (module paths) or nodes that stay float.
    """

    ranges: Ranges = "mse"
    samples: int = 512
    percentile: float = 99.99
    skip: tuple[str, ...] = ()
    needs: ClassVar[frozenset[str]] = frozenset({"calibration"})

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", tuple(self.skip))
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(
                f"Int8: ranges is {self.ranges!r}; choose 'mse', 'percentile' or 'minmax'"
            )
        if self.samples < 1:
            raise InputError(f"Int8: samples is {self.samples}; give 1 or more, such as 512")
        if not 50 < self.percentile <= 100:
            raise InputError(f"Int8: percentile is {self.percentile}; give 50 to 100, as 99.99")

    def plan(self, network: Network, task: Task) -> Plan:
        """Fold on a copy, look at the calibration inputs, choose every scale."""
        options = asdict(self) | {"skip": list(self.skip)}
        if any("quantized_decomposed" in str(node.target) for node in network.calls()):
            why = LeftAlone("the network", "it is quantized already")
            return Plan("Int8", options, left_alone=(why,))
        folded = copy.deepcopy(network).eval()
        fold_batch_norm(folded)
        folded.compile_graph()
        _check_names(folded, self.skip)
        batches = _calibration(task, self.samples)
        places = _Places(folded, self.skip, _ranks(folded, batches[0]))
        if not places.layers:
            return Plan("Int8", options, left_alone=tuple(places.left_alone))
        grids = self._grids(places, _observe(folded, places.wanted, batches))
        weights = {}
        for node in places.layers:
            tensor = folded.tensor(str(node.args[1].target))  # type: ignore[union-attr]
            weights[node.name] = {
                "scale": [float(one) for one in channel_scales(tensor, self.ranges)],
                "input_scale": grids[node.args[0]].scale,  # type: ignore[index]
            }
        activations = {node.name: asdict(grid) for node, grid in grids.items()}
        edit = {"edit": "quantize", "activations": activations, "weights": weights}
        return Plan(
            "Int8",
            options,
            ({"edit": "fold_batch_norm"}, edit),
            f"{len(weights)} layers and {len(activations)} values to int8",
            tuple(places.left_alone),
        )

    def _grids(self, places: _Places, seen: dict[fx.Node, Histogram]) -> dict[fx.Node, Affine]:
        """Scale and zero point of every wanted value; movers copy their source's."""
        ranges = {node: one.range(self.ranges, self.percentile) for node, one in seen.items()}
        for members in places.concatenations:
            sources = [places.source(node) for node in members]
            if len({ranges[node][0] < 0 for node in sources}) == 1:
                low = min(ranges[node][0] for node in sources)
                high = max(ranges[node][1] for node in sources)
                ranges |= dict.fromkeys(sources, (low, high))
        return {node: Affine.over(*ranges[places.source(node)]) for node in places.wanted}


class _Places:
    """Where quantize/dequantize pairs go in a folded graph.

    Attributes:
        layers: convolutions and linears that get int8 weights.
        wanted: values (nodes) that become uint8, in graph order.
        concatenations: values that should share a grid, output included.
    """

    def __init__(self, network: Network, skip: tuple[str, ...], ranks: dict[fx.Node, int]) -> None:
        self.layers: list[fx.Node] = []
        self.left_alone: list[LeftAlone] = []
        self.concatenations: list[list[fx.Node]] = []
        self._skip, self._ranks = skip, ranks
        self._wanted: set[fx.Node] = set()
        for node in network.calls():
            if node.target in WEIGHTED:
                self._layer(node)
        for node in network.calls():
            self._follower(node)
        self._inputs_of_movers()
        self.wanted = [node for node in network.graph.nodes if node in self._wanted]

    def _layer(self, node: fx.Node) -> None:
        why = self._obstacle(node)
        if why:
            self.left_alone.append(LeftAlone(_label(node), why))
            return
        self.layers.append(node)
        self._wanted.add(node.args[0])  # type: ignore[arg-type]
        if node.target is not LINEAR:
            self._want(absorbed(node))

    def _obstacle(self, node: fx.Node) -> str:
        if _named(node, self._skip):
            return "named in skip"
        tensors = [one for one in node.args[1:3] if one is not None]
        if not all(isinstance(one, fx.Node) and one.op == "get_attr" for one in tensors):
            return "its weight is computed in the graph"
        if any(shared(one) for one in tensors):  # type: ignore[arg-type]
            return "its weight is tied to another layer"
        if node.target is LINEAR and self._ranks.get(node, 2) != 2:
            return f"a linear on {self._ranks[node]} dimensions isn't fused by the runtime"
        if not isinstance(node.args[0], fx.Node) or node.args[0] not in self._ranks:
            return "its input isn't a float tensor"
        return ""

    def _follower(self, node: fx.Node) -> None:
        """Operators that take uint8 when all they read is uint8 already."""
        if _named(node, self._skip) or node not in self._ranks:
            return
        if node.target in SAME_GRID:
            if node.args[0] in self._wanted and _moves(node):
                self._want(node)
        elif node.target in ADD:
            plain = node.kwargs.get("alpha", 1) == 1
            if plain and all(one in self._wanted for one in node.args[:2]):
                self._want(absorbed(node))
        elif node.target is CAT:
            pieces: Any = node.args[0]
            if all(one in self._wanted for one in pieces) and self._want(node):
                self.concatenations.append([*pieces, node])
        elif node.target in POOL and node.args[0] in self._wanted and _global(node):
            self._want(node)

    def _want(self, node: fx.Node) -> bool:
        if any(user.op == "output" for user in node.users) or node not in self._ranks:
            return False
        self._wanted.add(node)
        return True

    def _inputs_of_movers(self) -> None:
        """A mover that is wanted needs a uint8 input too, back to the first computed value."""
        for node in list(self._wanted):
            while node.target in SAME_GRID and _moves(node):
                node = node.args[0]  # type: ignore[assignment]
                if node not in self._ranks:
                    break
                self._wanted.add(node)

    def source(self, node: fx.Node) -> fx.Node:
        """The value whose grid `node` takes over: itself, unless it only moves values."""
        while node.target in SAME_GRID and _moves(node) and node.args[0] in self._wanted:
            node = node.args[0]  # type: ignore[assignment]
        return node


def absorbed(node: fx.Node) -> fx.Node:
    """The clip from zero right behind `node` if that is its only user, else `node`."""
    users = list(node.users)
    if len(users) == 1 and users[0].target in CLIPS and _from_zero(users[0]):
        return users[0]
    return node


def _from_zero(clip: fx.Node) -> bool:
    if "relu" in str(clip.target):
        return True
    low = clip.args[1] if len(clip.args) > 1 else clip.kwargs.get("min", -1)
    return low == 0


def _moves(node: fx.Node) -> bool:
    if node.target is aten.pad.default:
        mode = node.args[2] if len(node.args) > 2 else "constant"
        return mode == "constant" and (len(node.args) < 4 or node.args[3] in (None, 0, 0.0))
    if node.target is aten.constant_pad_nd.default:
        return len(node.args) < 3 or node.args[2] == 0
    return True


def _global(node: fx.Node) -> bool:
    if node.target is aten.adaptive_avg_pool2d.default:
        return list(node.args[1]) == [1, 1]  # type: ignore[arg-type]
    return list(node.args[1]) in ([2, 3], [-2, -1], [-1, -2], [3, 2])  # type: ignore[arg-type]


def _named(node: fx.Node, names: tuple[str, ...]) -> bool:
    return node.name in names or node.meta.get("layer") in names


def _label(node: fx.Node) -> str:
    return str(node.meta.get("layer") or node.name)


def _check_names(network: Network, skip: tuple[str, ...]) -> None:
    known = {node.name for node in network.calls()} | {_label(node) for node in network.calls()}
    for name in skip:
        if name not in known:
            layers = [_label(node) for node in network.calls() if node.target in WEIGHTED]
            raise InputError(f"Int8: skip names {name!r}; the layers are {', '.join(layers[:8])}")


def _calibration(task: Task, samples: int) -> list[Inputs]:
    found = list(calibration(task, samples))
    if not found or not count(found[0]):
        raise InputError(f"Int8: {task.name} has no training inputs to calibrate with")
    return found


class _Watcher(fx.Interpreter):
    """Runs a network and shows each node's value to a function."""

    def __init__(self, network: Network, look: Callable[[fx.Node, Any], None]) -> None:
        super().__init__(network, graph=network.graph)
        self._look = look

    def run_node(self, n: fx.Node) -> Any:
        value = super().run_node(n)
        self._look(n, value)
        return value


def _leaves(network: Network, inputs: Inputs) -> Iterator[Any]:
    args, kwargs = as_call(inputs)
    if isinstance(network.example, dict):
        kwargs = {name: kwargs[name] for name in network.example}
    yield from pytree.tree_leaves((args, kwargs))


def _watch(network: Network, inputs: Inputs, look: Callable[[fx.Node, Any], None]) -> None:
    with torch.no_grad():
        _Watcher(network, look).run(*_leaves(network, inputs), enable_io_processing=False)


def _ranks(network: Network, inputs: Inputs) -> dict[fx.Node, int]:
    """Number of dimensions of every computed or given float tensor."""
    found: dict[fx.Node, int] = {}

    def look(node: fx.Node, value: Any) -> None:
        if node.op != "get_attr" and isinstance(value, torch.Tensor) and value.is_floating_point():
            found[node] = value.dim()

    _watch(network, inputs, look)
    return found


def _observe(
    network: Network, wanted: list[fx.Node], batches: list[Inputs]
) -> dict[fx.Node, Histogram]:
    seen = {node: Histogram() for node in wanted}

    def look(node: fx.Node, value: Any) -> None:
        if node in seen:
            if not bool(torch.isfinite(value).all()):
                raise InputError(
                    f"Int8: {_label(node)} gives NaN or infinity on the calibration inputs; "
                    "check the data or the weights"
                )
            seen[node].add(value)

    for inputs in batches:
        _watch(network, inputs, look)
    return seen
