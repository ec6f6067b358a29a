"""Packed bits: a binary network of linear layers computed on bits, in plain NumPy.

The reference that a compiled kernel has to equal. A layer sums by popcount, s = K - 2 popcount(a
xor w). What stands between the sum and the next sign (scale, bias, batch norm) rises or falls with
s, so that it is one integer threshold for each neuron:

    a'_N = 1 where s_N >= t_N, else -1

Where it falls, the neuron's weights are stored with their signs turned. The threshold is found by
asking the network's own arithmetic about every sum that can occur, so that none is rounded into
another decision.

Shapes: a_MK are signs of M samples; a layer has N neurons of K inputs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, fx

from penjing.arith.binary import BINARIZE, SIGN, signs
from penjing.arith.packing import Integers, Planes, binary_matmul, bit_planes
from penjing.errors import InputError
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.layers import LAYERS, Layer, layers_of
from penjing.network.graph.network import Network

aten = torch.ops.aten
EACH_BY_ITSELF = {
    aten.mul.Tensor, aten.add.Tensor, aten.sub.Tensor, aten.div.Tensor, aten.batch_norm.default,
    aten.relu.default, aten.hardtanh.default, aten.dropout.default,
}  # fmt: skip
"""What may follow a layer: each neuron's result from its own sum."""


@dataclass(frozen=True)
class BinaryLayer:
    """Weights as bits, and where a neuron turns from -1 to 1.

    Attributes:
        planes: (1, N, ceil(K / 8)), see `penjing.arith.packing`.
        inputs: K.
        thresholds: (N,) int32: the least sum that gives 1; K + 1 for never. None of the last layer.
    """

    planes: Planes
    inputs: int
    thresholds: NDArray[np.int32] | None

    def sums(self, values: Planes) -> Integers:
        """(M, N) from the signs of M samples as one plane (1, M, ceil(K / 8))."""
        return binary_matmul(values, self.planes, self.inputs)


@dataclass(frozen=True)
class PackedNetwork:
    """Layers of bits; the last one's sums become scores, scale_N s_N + offset_N.

    Attributes:
        layers: in order.
        scale, offset: (N,) float64 of the last layer.
    """

    layers: tuple[BinaryLayer, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    def sums(self, values: NDArray[Any]) -> list[Integers]:
        """The sums (M, N) of every layer, for inputs (M, K) of which the signs count.

        The signs of the weights of a neuron that falls are turned, so its sums are too.
        """
        sums = []
        for layer in self.layers:
            sums.append(layer.sums(bit_planes(values >= 0, 1)))
            if layer.thresholds is not None:
                values = np.where(sums[-1] >= layer.thresholds, 1, -1)
        return sums

    def run(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """Scores (M, classes) of inputs (M, K), of which the signs count; zero counts as 1."""
        scores: NDArray[np.float64] = self.sums(values)[-1] * self.scale + self.offset
        return scores

    @property
    def weight_bytes(self) -> int:
        """Bytes of all bits of the weights."""
        return sum(layer.planes.nbytes for layer in self.layers)

    @property
    def bytes(self) -> int:
        """Bytes of all that is needed: bits, thresholds (int32), the last scales and offsets
        (float32)."""
        thresholds = sum(
            layer.thresholds.nbytes for layer in self.layers if layer.thresholds is not None
        )
        return self.weight_bytes + thresholds + 4 * (len(self.scale) + len(self.offset))


def packed_bits(network: Network) -> PackedNetwork:
    """The network's linear layers on bits; what stands before the first sign is the caller's.

    Raises:
        InputError: a layer isn't linear, or isn't binary in weights and inputs; something else
            than scales, shifts and batch norms stands between a layer and the next sign.
    """
    nodes = layers_of(network)
    if not nodes:
        raise InputError("there is no layer to put on bits")
    layers = []
    for node, following in zip(nodes, [*nodes[1:], None], strict=True):
        bits = _weight_bits(network, node)
        chain = _chain(node, following)
        count = bits.shape[1]
        if following is None:
            layers.append(BinaryLayer(bit_planes(bits, 1), count, None))
            ends = _follow(network, chain, torch.tensor([0.0, 1.0]).double(), len(bits))
            scale, offset = (ends[1] - ends[0]).numpy(), ends[0].numpy()
            continue
        possible = np.arange(-count, count + 1, 2)
        on = _follow(network, chain, torch.tensor(possible, dtype=torch.float32), len(bits)) >= 0
        thresholds, falls = _thresholds(possible, on.numpy(), str(node.meta["layer"]))
        layers.append(BinaryLayer(bit_planes(bits ^ falls[:, None], 1), count, thresholds))
    return PackedNetwork(tuple(layers), scale, offset)


def _weight_bits(network: Network, node: fx.Node) -> NDArray[np.bool_]:
    """(N, K): where the weight is 1."""
    layer, view = node.meta["layer"], Layer(node)
    if node.target is not aten.linear.default:
        raise InputError(f"layer {layer} is a convolution; only linear layers are put on bits yet")
    for what, source, wanted in (
        ("its input", view.data, SIGN),
        ("its weight", view.weight, BINARIZE),
    ):
        if source.target is not wanted:
            raise InputError(f"layer {layer}: {what} isn't binary; Binarize(ends=1) makes it so")
    if argument(view.weight, "scale") is not None or view.bias is not None:
        raise InputError(f"layer {layer} was binarized before its input; do both at once")
    codes = signs(network.tensor(str(read_by(view.weight).target)))
    bits: NDArray[np.bool_] = codes.cpu().numpy() > 0
    return bits


def _chain(layer: fx.Node, following: fx.Node | None) -> list[fx.Node]:
    """The operators from the layer's sums to the next layer's sign, or to the output."""
    chain: list[fx.Node] = []
    node = layer
    while True:
        users = list(node.users)
        if len(users) != 1:
            where = f"{node.name} ({layer.meta['layer']})"
            raise InputError(f"{where} is read {len(users)} times; wanted a chain of layers")
        user = users[0]
        if following is None and user.op == "output":
            return chain
        if following is not None and user is Layer(following).data:
            return chain
        if user.target not in EACH_BY_ITSELF:
            raise InputError(
                f"{user.target} follows layer {layer.meta['layer']}; only scales, shifts and batch "
                "norms become thresholds"
            )
        chain.append(user)
        node = user


def _follow(network: Network, chain: list[fx.Node], sums: Tensor, neurons: int) -> Tensor:
    """What the chain makes of each of the sums, (sums, neurons), in the sums' own type."""
    value: Any = sums[:, None].expand(-1, neurons).contiguous()
    known: dict[fx.Node, Any] = {}
    if chain:
        (start,) = (source for source in chain[0].all_input_nodes if source.target in LAYERS)
        known[start] = value

    def of(node: fx.Node) -> Any:
        if node not in known:
            tensor = network.tensor(str(node.target)).detach().cpu()
            known[node] = tensor.to(sums.dtype) if tensor.is_floating_point() else tensor
        return known[node]

    with torch.no_grad():
        for node in chain:
            value = node.target(*fx.node.map_arg(node.args, of), **node.kwargs)  # type: ignore[operator]
            known[node] = value
    return cast(Tensor, value)


def _thresholds(
    possible: NDArray[Any], on: NDArray[np.bool_], layer: str
) -> tuple[NDArray[np.int32], NDArray[np.bool_]]:
    """The least sum that gives 1, once those that fall are turned; and which fall."""
    falls = on[0] & ~on[-1]
    rising = np.where(falls, on[::-1], on)  # sums of turned weights are the sums turned
    if (rising[:-1] & ~rising[1:]).any():
        raise InputError(f"what follows layer {layer} neither rises nor falls with its sums")
    first = len(possible) - rising.sum(0)
    ends = np.append(possible, possible[-1] + 1)
    return ends[first].astype(np.int32), falls
