"""Binarize: weights and activations of -1 and 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx

from penjing.arith.binary import BINARIZE, SIGN
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.layers import CONVOLUTIONS, LAYERS, Layer, layers_of
from penjing.network.graph.shapes import shapes
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass
from penjing.passes.rounding.weights import Choice, by_channel, choose, rounding
from penjing.tasks.task import Task

aten = torch.ops.aten
NOT_NEGATIVE = {
    aten.relu.default, aten.relu_.default, aten.relu6.default, aten.hardtanh.default,
    aten.hardtanh_.default, aten.clamp.default, aten.clamp_.default,
}  # fmt: skip
KEEPING_SIGNS = {
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default,
    aten.flatten.using_ints, aten.reshape.default, aten.view.default, aten.mean.dim,
    aten.slice.Tensor, aten.dropout.default, aten.dropout_.default, aten.permute.default,
    aten.transpose.int, aten.contiguous.default,
}  # fmt: skip
"""What is not negative stays so through these, up to the layer that would see only ones."""


@dataclass(frozen=True)
class Binarize(Pass):
    """Let layers compute on signs: of their weights, of what they read, or of both.

    Untrained, such a network is worth little: `Tune` it. In two stages, which end higher:
    `Binarize(weights=False)`, `Tune`, `Binarize()`, `Tune`. A weight's scale is one to each output
    channel; it starts as the mean magnitude and is learned. A ReLU that only binarized layers read
    is taken out, and of any other they read the input: behind it every sign would be 1. Batch norms
    stay; they are what gives values both signs.

    Attributes:
        weights: whether weights become -1 and 1.
        activations: whether what the layers read does.
        shortcuts: add what a convolution read, before its sign, to what it gives, where both have
            one shape (Bi-Real).
        learned_sign: move each channel before its sign by a learned shift, and put a learned ReLU
            with shifts in place of the ReLUs (ReActNet's RSign and RPReLU).
        ends: bits of the weights of the first and the last layer: 1 treats them as the others; 2 to
            8 bits leave what they read in float; None leaves the weights in float too.
        skip: layers to leave in float, by name or prefix.

    Raises:
        InputError: an option is out of range or names no layer; one bit for a first layer that sees
            a single channel.

    Source: M. Rastegari et al., "XNOR-Net", 2016; Z. Liu et al., "Bi-Real Net", 2018; Z. Liu et
    al., "ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions",
    2020.
    """

    weights: bool = True
    activations: bool = True
    shortcuts: bool = False
    learned_sign: bool = False
    ends: int | None = 8
    skip: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not (self.weights or self.activations):
            raise InputError("Binarize has nothing to do: give weights=True or activations=True")
        for name in ("shortcuts", "learned_sign"):
            if getattr(self, name) and not self.activations:
                raise InputError(f"{name} belongs to binary activations: give activations=True")
        if self.ends is not None and not 1 <= self.ends <= 8:
            raise InputError(f"ends must have 1 to 8 bits, or None: float; found {self.ends}")
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def provides(self) -> frozenset[Condition]:
        """Grids of weights at the ends, where they have bits."""
        return rounding(self.weights and self.ends not in (None, 1), values=False)

    def decide(self, network: Network, task: Task) -> Plan:
        """Choose the layers, and which value's sign each of them reads."""
        chosen = choose(network, self.skip, self.ends == 1, self.ends is None)
        if self.ends == 1:
            _require_channels(network, chosen)
        edits: list[Mapping[str, Any]] = []
        done = []
        if self.activations:
            candidates = _readers_of_values(network, chosen)
            layers, dropped = _signed(candidates, chosen.left, self.learned_sign)
            around = _alike(network, layers) if self.shortcuts else []
            edits.append({
                "edit": "sign_inputs",
                "layers": {node.name: read.name for node, read in layers.items()},
                "dropped": [node.name for node in dropped], "learned": self.learned_sign,
                "shortcuts": [node.name for node in around],
            })  # fmt: skip
            done.append(f"{len(layers)} layers read signs")
            done += [f"{len(around)} of them with a shortcut"] if around else []
            edits = edits if layers else []
        if self.weights and chosen.few:
            edits.append({"edit": "binarize", "layers": [node.name for node in chosen.few]})
            done.append(f"{len(chosen.few)} layers to one bit")
        if self.weights and chosen.wide:
            wide = by_channel(network, chosen.wide, self.ends or 8)
            edits.append({"edit": "fake_quantize", "activations": {}, "weights": wide})
            done.append(f"{len(wide)} to {self.ends} bits")
        return self._plan(edits, ", ".join(done), chosen.left)


def _require_channels(network: Network, chosen: Choice) -> None:
    """One channel and one bit leave a first layer next to nothing to sum."""
    first = layers_of(network)[0]
    sizes = shapes(network)
    shape = sizes[Layer(first).weight]
    if first in chosen.few and shape[1] == 1 and sizes[Layer(first).data][1] == 1:
        layer, count = first.meta["layer"], int(torch.Size(shape[1:]).numel())
        raise InputError(
            f"1 bit for the first layer {layer}, which sees one channel: its sums of {count} signs "
            f"have {count + 1} levels; give ends=8, or skip=({layer!r},)"
        )


def _readers_of_values(network: Network, chosen: Choice) -> list[fx.Node]:
    """The chosen layers, and those with binary weights already, that don't read signs yet."""
    few = set(chosen.few)
    return [
        node
        for node in network.calls()
        if node.target in LAYERS
        and (node in few or Layer(node).weight.target is BINARIZE)
        and Layer(node).data.target is not SIGN
    ]


def _signed(
    layers: list[fx.Node], left: list[LeftAlone], learned: bool
) -> tuple[dict[fx.Node, fx.Node], list[fx.Node]]:
    """The value whose sign each layer reads, and the ReLUs that go."""
    read: dict[fx.Node, fx.Node] = {}
    clamps = {node: _clamp_before(node) for node in layers}
    dropped = [
        clamp
        for clamp in dict.fromkeys(clamps.values())
        if clamp is not None and (learned or all(end in layers for end in _ends(clamp)))
    ]
    for node, clamp in clamps.items():
        data = Layer(node).data
        if clamp is None or clamp in dropped:
            read[node] = data
        elif clamp is data:
            read[node] = read_by(clamp)
        else:
            why = "reads values that a ReLU made positive, so that every sign would be 1"
            left.append(LeftAlone(str(node.meta["layer"]), why))
    return read, dropped


def _clamp_before(layer: fx.Node) -> fx.Node | None:
    """The ReLU that made sure that what the layer reads isn't negative."""
    node = Layer(layer).data
    while node.target in KEEPING_SIGNS:
        node = read_by(node)
    if node.target not in NOT_NEGATIVE:
        return None
    low = argument(node, "min_val", argument(node, "min"))  # of a hardtanh, or a clamp
    bounded = "relu" in str(node.target) or (isinstance(low, int | float) and low >= 0)
    return node if bounded else None


def _ends(clamp: fx.Node) -> Iterator[fx.Node]:
    """All that reads the value, or reads it once it was pooled or moved."""
    for user in clamp.users:
        if user.target in KEEPING_SIGNS:
            yield from _ends(user)
        else:
            yield user


def _alike(network: Network, layers: Mapping[fx.Node, fx.Node]) -> list[fx.Node]:
    """Convolutions that give the shape that they read."""
    sizes = shapes(network)
    return [
        node
        for node, read in layers.items()
        if node.target in CONVOLUTIONS and sizes[node] == sizes[read]
    ]
