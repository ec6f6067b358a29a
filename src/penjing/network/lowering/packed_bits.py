"""Packed bits: compute a binary network of linear layers on bits, in plain NumPy.

This is the reference that a compiled kernel has to match. A layer sums by popcount:
s = K - 2 popcount(a xor w). The operators between the sum and the next sign (scale, bias, batch
norm) rise or fall with s, so they reduce to one integer threshold per neuron:

    a'_N = 1 where s_N >= t_N, else -1

If they fall, the neuron's weights are stored with opposite signs. The threshold is found by running
the network's own operators on every sum that can occur, so rounding can't change a decision.

Shapes: a_MK are the signs of M samples; a layer has N neurons with K inputs.
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
"""Operators that may follow a layer, because each neuron's result depends on its own sum only."""


@dataclass(frozen=True)
class BinaryLayer:
    """The weights of a layer as bits, and its thresholds.

    Attributes:
        planes: the bits, (1, N, ceil(K / 8)); see `penjing.arith.packing`.
        inputs: K.
        thresholds: (N,) int32, the smallest sum that gives 1, or K + 1 if none does. None for the
            last layer.
    """

    planes: Planes
    inputs: int
    thresholds: NDArray[np.int32] | None

    def sums(self, values: Planes) -> Integers:
        """The sums (M, N) for the signs of M samples, given as one plane (1, M, ceil(K / 8))."""
        return binary_matmul(values, self.planes, self.inputs)


@dataclass(frozen=True)
class PackedNetwork:
    """Layers of bits. The sums of the last one become scores, scale_N s_N + offset_N.

    Attributes:
        layers: the layers, in order.
        scale, offset: the scale and the offset of the last layer, (N,) float64.
    """

    layers: tuple[BinaryLayer, ...]
    scale: NDArray[np.float64]
    offset: NDArray[np.float64]

    def sums(self, values: NDArray[Any]) -> list[Integers]:
        """The sums (M, N) of every layer for inputs (M, K), of which only the signs count.

        A neuron that is stored with opposite signs has the opposite sums.
        """
        sums = []
        for layer in self.layers:
            sums.append(layer.sums(bit_planes(values >= 0, 1)))
            if layer.thresholds is not None:
                values = np.where(sums[-1] >= layer.thresholds, 1, -1)
        return sums

    def run(self, values: NDArray[Any]) -> NDArray[np.float64]:
        """The scores (M, classes) for inputs (M, K), of which only the signs count (0 is 1)."""
        scores: NDArray[np.float64] = self.sums(values)[-1] * self.scale + self.offset
        return scores

    @property
    def weight_bytes(self) -> int:
        """The bytes of the weights."""
        return sum(layer.planes.nbytes for layer in self.layers)

    @property
    def bytes(self) -> int:
        """The bytes of weights, thresholds (int32), and last scales and offsets (float32)."""
        thresholds = sum(
            layer.thresholds.nbytes for layer in self.layers if layer.thresholds is not None
        )
        return self.weight_bytes + thresholds + 4 * (len(self.scale) + len(self.offset))


def packed_bits(network: Network) -> PackedNetwork:
    """Pack the linear layers of a binary network into bits.

    The caller has to compute whatever comes before the first sign.

    Raises:
        InputError: a layer isn't linear, its weights or inputs aren't binary, or something other
            than scales, shifts and batch norms stands between a layer and the next sign.
    """
    nodes = layers_of(network)
    if not nodes:
        raise InputError("the network has no layers to pack into bits")
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
    """Where the weight is 1, (N, K)."""
    layer, view = node.meta["layer"], Layer(node)
    if node.target is not aten.linear.default:
        raise InputError(
            f"layer {layer} is a convolution; only linear layers can be packed into bits"
        )
    for what, source, wanted in (
        ("its input", view.data, SIGN),
        ("its weight", view.weight, BINARIZE),
    ):
        if source.target is not wanted:
            raise InputError(f"layer {layer}: {what} isn't binary; apply Binarize(ends=1)")
    if argument(view.weight, "scale") is not None or view.bias is not None:
        raise InputError(
            f"the weight of layer {layer} was binarized before its input; binarize both at once"
        )
    codes = signs(network.tensor(str(read_by(view.weight).target)))
    bits: NDArray[np.bool_] = codes.cpu().numpy() > 0
    return bits


def _chain(layer: fx.Node, following: fx.Node | None) -> list[fx.Node]:
    """The operators between a layer's sums and the next layer's sign, or the output."""
    chain: list[fx.Node] = []
    node = layer
    while True:
        users = list(node.users)
        if len(users) != 1:
            where = f"{node.name} ({layer.meta['layer']})"
            raise InputError(
                f"{where} is read {len(users)} times; only a plain chain of layers can be packed"
            )
        user = users[0]
        if following is None and user.op == "output":
            return chain
        if following is not None and user is Layer(following).data:
            return chain
        if user.target not in EACH_BY_ITSELF:
            raise InputError(
                f"{user.target} follows layer {layer.meta['layer']}; only scales, shifts and batch "
                "norms can become thresholds"
            )
        chain.append(user)
        node = user


def _follow(network: Network, chain: list[fx.Node], sums: Tensor, neurons: int) -> Tensor:
    """Run the chain on each of the sums; the result is (sums, neurons), in the type of the sums."""
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
    """The smallest sum that gives 1 for each neuron, and which neurons need opposite signs."""
    falls = on[0] & ~on[-1]
    rising = np.where(falls, on[::-1], on)  # opposite weights have opposite sums
    if (rising[:-1] & ~rising[1:]).any():
        raise InputError(f"the operators after layer {layer} neither rise nor fall with its sums")
    first = len(possible) - rising.sum(0)
    ends = np.append(possible, possible[-1] + 1)
    return ends[first].astype(np.int32), falls
