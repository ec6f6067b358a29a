"""Equalize: give the weights of layers that follow each other the same ranges, with no data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.edits.scaling import Reach, by_channel, reaches
from penjing.network.graph.layers import Layer
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass
from penjing.tasks.task import Task

NEAR = 1e-3  # of a scale to one, when it is done
ROUNDS = 200
BOUND = "it is bounded from above; relu6='replace' lifts that"


@dataclass(frozen=True)
class Equalize(Pass):
    """Scale channels so that one scale for a whole tensor serves all of its channels.

    Where y = W2 f(W1 x + b1) and f(s z) = s f(z) for s > 0 (ReLU, LeakyReLU, PReLU, pools, or
    nothing), channel i of the first layer is divided by s_i, and what the second reads from it is
    multiplied:

        s_i = sqrt(r1_i / r2_i),    r1_i = max |W1[i]|,    r2_i = max |W2[:, i]|

    so that both ranges become sqrt(r1_i r2_i). The network computes the same function. Chains of
    layers are gone over until no scale moves. Batch norms are folded first. Depthwise convolutions
    take part on both sides.

    Attributes:
        relu6: `"replace"` makes a ReLU6 between two such layers a ReLU, since a channel that is
            scaled would be cut off elsewhere: values above six pass from then on, which changes
            the function. `"keep"` leaves these layers alone.

    Raises:
        InputError: another word for `relu6`.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, section 4.1.
    """

    relu6: Literal["replace", "keep"] = "replace"

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.FLOAT})

    def __post_init__(self) -> None:
        if self.relu6 not in ("replace", "keep"):
            raise InputError(f"relu6 must be replace or keep; found {self.relu6!r}")

    def decide(self, network: Network, task: Task) -> Plan:
        """Fold on a copy, and find the scales."""
        folding = {"edit": "fold_batch_norm"}
        folded = carry_out(network, self._plan([folding]))
        chosen: list[Reach] = []
        left = []
        for node, reach in reaches(folded).items():
            why = reach if isinstance(reach, str) else ""
            if isinstance(reach, Reach) and reach.bounds and self.relu6 == "keep":
                why = BOUND
            if why:
                left.append(LeftAlone(str(node.meta["layer"]), why))
            else:
                chosen.append(cast(Reach, reach))
        scales = _scales(folded, chosen)
        if not scales:
            return self._plan(left_alone=left)
        lifted = [
            node.name for reach in chosen if reach.layer.name in scales for node in reach.bounds
        ]
        edits: list[Mapping[str, Any]] = [folding]
        if lifted:
            edits.append({"edit": "lift_bounds", "nodes": lifted})
        edits.append({"edit": "scale_channels", "scales": scales})
        summary = f"channels of {len(scales)} layers scaled"
        if lifted:
            summary += f", {len(lifted)} ReLU6 made ReLU"
        return self._plan(edits, summary, left)


def _scales(network: Network, chosen: list[Reach]) -> dict[str, list[float]]:
    """By layer's node, s of each channel; without the layers that are equalized already."""
    weights: dict[str, Tensor] = {}
    for reach in chosen:
        for node in (reach.layer, *(reader for reader, _ in reach.readers)):
            weights[_weight(node)] = (
                network.tensor(_weight(node)).detach().double().cpu().abs().contiguous()
            )
    totals = {
        reach.layer.name: torch.ones(len(weights[_weight(reach.layer)])).double()
        for reach in chosen
    }
    for _ in range(ROUNDS):
        moved = 0.0
        for reach in chosen:
            scale = _step(reach, weights)
            totals[reach.layer.name] *= scale
            moved = max(moved, float(scale.log().abs().max()))
        if moved < NEAR:
            break
    return {
        name: total.tolist()
        for name, total in totals.items()
        if float(total.log().abs().max()) >= NEAR
    }


def _step(reach: Reach, weights: dict[str, Tensor]) -> Tensor:
    """Equalize a layer with its readers, in the absolute weights, in place; gives the scales."""
    written = weights[_weight(reach.layer)]
    count = len(written)
    views = [by_channel(node, weights[_weight(node)], count) for node, _ in reach.readers]
    written_max = written.flatten(1).amax(1)
    read_max = torch.stack([view.amax((1, 3)).flatten() for view in views]).amax(0)
    alive = (written_max > 0) & (read_max > 0)
    scale = torch.where(alive, written_max / read_max, 1.0).sqrt()
    written /= scale.view(-1, *[1] * (written.dim() - 1))
    for view in views:
        view *= scale.view(view.shape[0], 1, view.shape[2], 1)
    return scale


def _weight(node: fx.Node) -> str:
    return Layer(node).weight_name
