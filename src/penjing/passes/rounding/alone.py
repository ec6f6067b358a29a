"""Alone: the weights of embeddings and recurrent layers, whose values stay in float.

An embedding only looks rows of its table up, so there is nothing to compute on integers. A
recurrent layer goes on from its own result, step after step, so rounding its values adds up. A file
holds the integers of their weights, and the operator gets the real numbers that they stand for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from penjing.arith.quantizer import weight_ends, weight_scales
from penjing.contract import LeftAlone
from penjing.network import Network
from penjing.network.graph.weights_alone import EMBEDDING, read_otherwise, weights_alone
from penjing.passes.counted import counted
from penjing.passes.names import is_in

BITS = 8
"""Of a weight alone, unless the user says otherwise: nothing refines their rounding."""
WORTH = 2048
"""The bytes that integers must save; a file has operators for each tensor of them."""


@dataclass(frozen=True)
class Alone:
    """Which of these weights are rounded.

    Attributes:
        tensors: by name of a tensor, its bits.
        left: the tensors that stay in float, and why.
    """

    tensors: Mapping[str, int] = field(default_factory=dict)
    left: Sequence[LeftAlone] = ()

    @classmethod
    def of(
        cls, network: Network, skip: Sequence[str], layers: Mapping[str, int], recurrent: bool
    ) -> Alone:
        """Choose them.

        Args:
            network: the network.
            skip: names of layers, or prefixes of names, to leave in float.
            layers: bits by name of a layer, or prefix of a name; 0 leaves it in float.
            recurrent: whether those of recurrent layers are rounded.
        """
        tensors: dict[str, int] = {}
        left = []
        for name, owner in owners(network).items():
            named = [bits for layer, bits in layers.items() if is_in(owner, layer)]
            bits = named[-1] if named else BITS
            if any(is_in(owner, layer) for layer in skip):
                why = "it is listed in skip"
            elif not bits:
                why = "it has 0 bits in layers"
            elif not recurrent and not _is_table(network, name):
                why = "the runtime would compute its integers anew in each step, or recurrent=False"
            else:
                why = _why_not(network, name)
            if why:
                left.append(LeftAlone(name, why))
            else:
                tensors[name] = bits
        return cls(tensors, left)

    def edits(self, network: Network) -> tuple[dict[str, Any], ...]:
        """The edit that rounds them, each row with a scale of least squared error; none if there
        are none."""
        qparams = {}
        for name, bits in self.tensors.items():
            low, high = weight_ends(bits)
            scales = weight_scales(network.tensor(name).cpu(), bits).tolist()
            qparams[name] = {"scales": scales, "low": low, "high": high}
        return ({"edit": "round_tensors", "tensors": qparams},) if qparams else ()

    def summary(self, before: str) -> str:
        """What is rounded in all, for the summary of a plan that rounds what `before` tells."""
        if not self.tensors:
            return before
        count = counted(len(self.tensors), "weight")
        mine = f"{count} of embeddings and recurrent layers"
        return f"{before}; and {mine}" if before else f"quantizes {mine}"


def owners(network: Network) -> dict[str, str]:
    """By name of each tensor that an embedding or a recurrent layer reads, the layer's name."""
    return {
        name: str(next(iter(nodes[0].users)).meta["layer"])
        for name, nodes in weights_alone(network).items()
    }


def _is_table(network: Network, name: str) -> bool:
    node = weights_alone(network)[name][0]
    return any(reader.target is EMBEDDING for reader in node.users)


def _why_not(network: Network, name: str) -> str:
    """Why a tensor can't be rounded, or needn't; empty if it can."""
    if read_otherwise(network, name):
        return "it shares its weight with another layer"
    weight = network.tensor(name)
    saved = 3 * weight.numel() - 4 * len(weight)
    return f"integers would save only {max(saved, 0)} bytes" if saved < WORTH else ""
