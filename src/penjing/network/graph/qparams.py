"""What of a network is rounded, and its quantization parameters: scales, zero points, ends."""

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

SCALES: Mapping[Any, tuple[str, ...]] = {
    FAKE_QUANTIZE: ("scale",), TERNARIZE: ("positive", "negative"), BINARIZE: ("scale",)
}  # fmt: skip
"""By operator that rounds a weight, what it multiplies the integers by."""


@dataclass(frozen=True)
class QParams:
    """Quantization parameters: a `fake_quantize` in the graph, and what it rounds with.

    Attributes:
        node: the `fake_quantize`.
        source: what it rounds.
        scale: the name of its scale.
        zero_point, low, high: integers.
    """

    node: fx.Node
    source: fx.Node
    scale: str
    zero_point: int
    low: int
    high: int

    @property
    def source_name(self) -> str:
        """The name of the tensor that is rounded, where it is a weight."""
        return str(self.source.target)

    @property
    def integers(self) -> tuple[int, int, int]:
        """The zero point, the smallest and the largest integer."""
        return self.zero_point, self.low, self.high

    @property
    def bits(self) -> int:
        """How many bits it takes to tell its integers apart."""
        return (self.high - self.low).bit_length()


def qparams_of(node: Any) -> QParams | None:
    """What a value's or a weight's `fake_quantize` rounds with; None of any other node."""
    if not isinstance(node, fx.Node) or node.target is not FAKE_QUANTIZE:
        return None
    source, scale, *integers = cast(tuple[fx.Node, fx.Node, int, int, int], node.args)
    if scale.op != "get_attr":
        return None  # a bias
    return QParams(node, source, str(scale.target), *integers)


def qparams_in(network: Network) -> Iterator[QParams]:
    """The quantization parameters of all weights and values, in order."""
    return (qparams for node in network.calls() if (qparams := qparams_of(node)) is not None)


def weight_qparams(network: Network) -> dict[fx.Node, QParams]:
    """Of each layer whose weight is rounded, in order, the weight's quantization parameters."""
    layers = layers_of(network)
    by_layer = {node: qparams_of(Layer(node).weight) for node in layers}
    return {
        node: qparams
        for node, qparams in by_layer.items()
        if qparams and qparams.source.op == "get_attr"
    }


def value_qparams(network: Network) -> list[QParams]:
    """The quantization parameters of what is computed, so of all but weights, in order."""
    of_weights = {qparams.node for qparams in weight_qparams(network).values()}
    return [qparams for qparams in qparams_in(network) if qparams.node not in of_weights]


def own_bias(layer: fx.Node) -> fx.Node | None:
    """The layer's own bias; None if it has none, or one that is computed or shared."""
    bias = Layer(layer).bias
    if bias is not None and bias.target is FAKE_QUANTIZE:
        bias = read_by(bias)
    return bias if bias is not None and bias.op == "get_attr" and len(bias.users) == 1 else None


def scales_of(rounded: Any) -> list[str]:
    """The names of `scale_nodes`."""
    return [str(node.target) for node in scale_nodes(rounded)]


def scale_names(network: Network) -> set[str]:
    """The names of all scales that weights and values are multiplied by after rounding."""
    return {name for node in network.calls() for name in scales_of(node)}


def scale_nodes(rounded: Any) -> list[fx.Node]:
    """The scales that a value is multiplied by after rounding, none twice; none of a number."""
    names = SCALES.get(rounded.target, ()) if isinstance(rounded, fx.Node) else ()
    nodes = dict.fromkeys(argument(rounded, name) for name in names)
    return [node for node in nodes if isinstance(node, fx.Node) and node.op == "get_attr"]
