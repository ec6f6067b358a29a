"""QParams: which weights and activations are quantized, and with which parameters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, cast

from torch import fx

from penjing.arith.binary import BINARIZE
from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.arith.ternary import TERNARIZE
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.network import Network
from penjing.network.graph.weights_alone import reads_alone

SCALES: Mapping[Any, tuple[str, ...]] = {
    FAKE_QUANTIZE: ("scale",), TERNARIZE: ("positive", "negative"), BINARIZE: ("scale",)
}  # fmt: skip
"""By operator that rounds a weight, the arguments by which it multiplies the integers."""


@dataclass(frozen=True)
class QParams:
    """A `fake_quantize` in the graph, and its quantization parameters.

    Attributes:
        node: the node that calls `fake_quantize`.
        source: the value that it rounds.
        scale: the name of its scale.
        zero_point: the integer that stands for 0.
        low, high: the smallest and the largest integer.
    """

    node: fx.Node
    source: fx.Node
    scale: str
    zero_point: int
    low: int
    high: int

    @property
    def source_name(self) -> str:
        """The name of the tensor that is rounded, if it is a weight."""
        return str(self.source.target)

    @property
    def integers(self) -> tuple[int, int, int]:
        """The zero point, the smallest and the largest integer."""
        return self.zero_point, self.low, self.high

    @property
    def bits(self) -> int:
        """The number of bits of the integers."""
        return (self.high - self.low).bit_length()

    @property
    def is_wide(self) -> bool:
        """Whether it takes more than eight bits."""
        return self.bits > 8


def qparams_of(node: Any) -> QParams | None:
    """The quantization parameters of a `fake_quantize` node; None for any other node."""
    if not isinstance(node, fx.Node) or node.target is not FAKE_QUANTIZE:
        return None
    source, scale, *integers = cast(tuple[fx.Node, fx.Node, int, int, int], node.args)
    if scale.op != "get_attr":
        return None  # a bias
    return QParams(node, source, str(scale.target), *integers)


def qparams_in(network: Network) -> Iterator[QParams]:
    """The quantization parameters of all weights and activations, in the order of the graph."""
    return (qparams for node in network.calls() if (qparams := qparams_of(node)) is not None)


def weight_qparams(network: Network) -> dict[fx.Node, QParams]:
    """By layer whose weight is quantized, in order, the quantization parameters of the weight."""
    layers = layers_of(network)
    by_layer = {node: qparams_of(Layer(node).weight) for node in layers}
    return {
        node: qparams
        for node, qparams in by_layer.items()
        if qparams and qparams.source.op == "get_attr"
    }


def value_qparams(network: Network) -> list[QParams]:
    """The quantization parameters of all activations, in the order of the graph."""
    of_weights = {qparams.node for qparams in weight_qparams(network).values()}
    of_weights |= {qparams.node for qparams in alone_qparams(network)}
    return [qparams for qparams in qparams_in(network) if qparams.node not in of_weights]


def alone_qparams(network: Network) -> list[QParams]:
    """The quantization parameters of the weights of embeddings and recurrent layers."""
    return [
        qparams
        for qparams in qparams_in(network)
        if qparams.source.op == "get_attr"
        and any(reads_alone(reader, qparams.node) for reader in qparams.node.users)
    ]


def own_bias(layer: fx.Node) -> fx.Node | None:
    """The bias of a layer; None if it has none, or if the bias is computed or shared."""
    bias = Layer(layer).bias
    if bias is not None and bias.target is FAKE_QUANTIZE:
        bias = read_by(bias)
    return bias if bias is not None and bias.op == "get_attr" and len(bias.users) == 1 else None


def scales_of(rounded: Any) -> list[str]:
    """The names of `scale_nodes`."""
    return [str(node.target) for node in scale_nodes(rounded)]


def scale_names(network: Network) -> set[str]:
    """The names of all scales of quantized weights and activations."""
    return {name for node in network.calls() for name in scales_of(node)}


def scale_nodes(rounded: Any) -> list[fx.Node]:
    """The nodes of the scales by which a rounded value is multiplied, each once."""
    names = SCALES.get(rounded.target, ()) if isinstance(rounded, fx.Node) else ()
    nodes = dict.fromkeys(argument(rounded, name) for name in names)
    return [node for node in nodes if isinstance(node, fx.Node) and node.op == "get_attr"]
