"""Binarize: reduce weights and activations to -1 and 1."""

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
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
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
"""Operators behind which values that aren't negative still aren't negative."""


@dataclass(frozen=True)
class Binarize(Pass):
    """Reduce weights, activations or both to their signs, -1 and 1.

    A binarized layer with weight w_OI.. computes with s_O sign(w), where sign(0) = 1. The scale s_O
    of an output channel starts as the mean magnitude of its weights and is learned. Batch norms
    stay in place, because they give activations both signs. After a ReLU every sign would be 1, so
    a ReLU that only binarized layers read is removed. Where another layer needs the ReLU,
    binarized layers read its input instead.

    The pass pays only with training behind it: without `Tune`, the accuracy is low. Two stages end
    at a higher accuracy: `Binarize(weights=False)`, `Tune`, `Binarize()`, `Tune`. The pass itself
    needs no data.

    Attributes:
        weights: whether to binarize weights.
        activations: whether to binarize the inputs of the layers.
        shortcuts: add the input of a convolution, before its sign, to the output, where both have
            the same shape (Bi-Real Net).
        learned_sign: shift each channel by a learned amount before its sign, and replace the ReLUs
            by learned ReLUs with shifts (RSign and RPReLU of ReActNet).
        ends: the bits of the weights of the first and the last layer. 1 treats them like all other
            layers. 2 to 8 quantizes their weights and leaves their inputs in float. None leaves the
            weights in float too.
        skip: names of layers, or prefixes of names, to leave in float.

    Raises:
        InputError: an option is out of range, `skip` names an unknown layer, or one bit is asked of
            a first layer that reads a single channel.

    Source: M. Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional
    Neural Networks", 2016; Z. Liu et al., "Bi-Real Net: Enhancing the Performance of 1-bit CNNs
    with Improved Representational Capability and Advanced Training Algorithm", 2018; Z. Liu et al.,
    "ReActNet: Towards Precise Binary Neural Network with Generalized Activation Functions", 2020.

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.Linear(16, 16), nn.ReLU(),
    ...     nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(32, 8), torch.arange(32) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> plan = penjing.passes.Binarize().plan(network, task)
    >>> for part in plan.summary.split("; "):
    ...     print(part)
    binarizes the inputs of 1 layer
    binarizes the weights of 1 layer
    quantizes the weights of 2 layers to 8 bits
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
                raise InputError(f"{name} needs binary activations; give activations=True as well")
        if self.ends is not None and not 1 <= self.ends <= 8:
            raise InputError(f"ends must be 1 to 8 bits, or None for float; found {self.ends}")
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def provides(self) -> frozenset[Condition]:
        """Quantized weights, if the first and the last layer get 2 to 8 bits."""
        return rounding(self.weights and self.ends not in (None, 1), values=False)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Choose the layers, and the value whose sign each of them reads."""
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
            done.append(f"binarizes the inputs of {counted(len(layers), 'layer')}")
            done += [f"adds {counted(len(around), 'shortcut')}"] if around else []
            edits = edits if layers else []
        if self.weights and chosen.few:
            edits.append({"edit": "binarize", "layers": [node.name for node in chosen.few]})
            done.append(f"binarizes the weights of {counted(len(chosen.few), 'layer')}")
        if self.weights and chosen.wide:
            wide = by_channel(network, chosen.wide, self.ends or 8)
            edits.append({"edit": "fake_quantize", "activations": {}, "weights": wide})
            layers_wide = counted(len(wide), "layer")
            done.append(f"quantizes the weights of {layers_wide} to {self.ends} bits")
        return self._plan(edits, "; ".join(done), chosen.left)


def _require_channels(network: Network, chosen: Choice) -> None:
    """Refuse one bit for a first layer with one input channel: its sums have too few levels."""
    first = layers_of(network)[0]
    sizes = shapes(network)
    shape = sizes[Layer(first).weight]
    if first in chosen.few and shape[1] == 1 and sizes[Layer(first).data][1] == 1:
        layer, count = first.meta["layer"], int(torch.Size(shape[1:]).numel())
        raise InputError(
            f"ends=1 would binarize the first layer {layer}, which reads a single channel: a sum "
            f"of {count} signs has only {count + 1} levels; give ends=8, or skip=({layer!r},)"
        )


def _readers_of_values(network: Network, chosen: Choice) -> list[fx.Node]:
    """The layers that don't read signs yet: the chosen ones, and those with binary weights."""
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
    """The value whose sign each layer reads, and the ReLUs to remove."""
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
            why = "a ReLU makes its inputs nonnegative, so every sign would be 1"
            left.append(LeftAlone(str(node.meta["layer"]), why))
    return read, dropped


def _clamp_before(layer: fx.Node) -> fx.Node | None:
    """The ReLU that keeps the inputs of a layer from being negative; None if there is none."""
    node = Layer(layer).data
    while node.target in KEEPING_SIGNS:
        node = read_by(node)
    if node.target not in NOT_NEGATIVE:
        return None
    low = argument(node, "min_val", argument(node, "min"))  # of a hardtanh, or a clamp
    bounded = "relu" in str(node.target) or (isinstance(low, int | float) and low >= 0)
    return node if bounded else None


def _ends(clamp: fx.Node) -> Iterator[fx.Node]:
    """All nodes that read the value, directly or after it was pooled or moved."""
    for user in clamp.users:
        if user.target in KEEPING_SIGNS:
            yield from _ends(user)
        else:
            yield user


def _alike(network: Network, layers: Mapping[fx.Node, fx.Node]) -> list[fx.Node]:
    """The convolutions whose output has the shape of their input."""
    sizes = shapes(network)
    return [
        node
        for node, read in layers.items()
        if node.target in CONVOLUTIONS and sizes[node] == sizes[read]
    ]
