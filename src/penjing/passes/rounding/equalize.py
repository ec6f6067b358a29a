"""Equalize: balance the weight ranges of layers that follow each other, without data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, cast

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.analysis.held import STAY_EQUAL, held
from penjing.network.edits.scaling import Reach, by_channel, reaches
from penjing.network.graph.layers import Layer
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.tasks.task import Task

NEAR = 1e-3  # a chain is done once every scale is this close to one
ROUNDS = 200
BOUND = "a ReLU6 limits its channels from above; relu6='replace' removes the limit"


@dataclass(frozen=True)
class Equalize(Pass):
    """Scale channels so that a single scale for a whole tensor suits all of its channels.

    Let two layers compute y = W2 f(W1 x + b1), where f(s z) = s f(z) for every s > 0: ReLU,
    LeakyReLU, PReLU, pooling, or nothing at all. The pass divides channel i of the first layer by
    s_i and multiplies the weights with which the second layer reads it by s_i:

        s_i = sqrt(r1_i / r2_i),    r1_i = max |W1[i]|,    r2_i = max |W2[:, i]|

    Both ranges become sqrt(r1_i r2_i), and the network computes the same function. The pass
    repeats this along chains of layers until the scales settle. It folds batch norms first, and
    handles depthwise convolutions on both sides.

    The pass pays before `Quantize`, where a layer's channels have very different ranges, as in
    networks with depthwise convolutions. It needs a network that isn't quantized, and no data.

    Attributes:
        relu6: what to do with a ReLU6 between two such layers, which would cut a scaled channel off
            at another value. `"replace"` makes it a ReLU; this changes the function, because
            values above six then pass. `"keep"` leaves these layers alone.

    Raises:
        InputError: `relu6` is neither of these.

    Source: M. Nagel, M. van Baalen, T. Blankevoort, M. Welling, "Data-Free Quantization Through
    Weight Equalization and Bias Correction", 2019, section 4.1.

    >>> import penjing, torch
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> with torch.no_grad():
    ...     _ = model[0].weight[3].mul_(100)  # one channel with a far larger range
    >>> data = penjing.Arrays(torch.randn(32, 8), torch.arange(32) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> equalize = penjing.passes.Equalize()
    >>> print(equalize.plan(network, task).summary)
    scales the channels of 1 layer
    >>> equalized = equalize(network, task)
    >>> torch.allclose(equalized(data.x), network(data.x), rtol=1e-3, atol=1e-3)
    True
    """

    relu6: Literal["replace", "keep"] = "replace"

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.FLOAT})

    def __post_init__(self) -> None:
        if self.relu6 not in ("replace", "keep"):
            raise InputError(f"relu6 must be 'replace' or 'keep'; found {self.relu6!r}")

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Fold batch norms on a copy, and find the scales there."""
        folding = {"edit": "fold_batch_norm"}
        folded = carry_out(network, self._plan([folding]))
        chosen: list[Reach] = []
        left = []
        shared = {name for name, mark in held(network).items() if mark == "values"}
        for node, reach in reaches(folded).items():
            why = reach if isinstance(reach, str) else ""
            if isinstance(reach, Reach) and shared & set(map(_weight, _layers_of(reach))):
                why = STAY_EQUAL
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
        summary = f"scales the channels of {counted(len(scales), 'layer')}"
        if lifted:
            summary += f" and replaces {len(lifted)} ReLU6 by ReLU"
        return self._plan(edits, summary, left)


def _layers_of(reach: Reach) -> list[fx.Node]:
    """The layer whose channels are scaled, and those that read them."""
    return [reach.layer, *(node for node, _ in reach.readers)]


def _scales(network: Network, chosen: list[Reach]) -> dict[str, list[float]]:
    """The scales s of each layer's channels, by node; layers that are balanced are left out."""
    weights: dict[str, Tensor] = {}
    for reach in chosen:
        for node in _layers_of(reach):
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
    """Balance a layer with its readers, in place in the absolute weights; returns the scales."""
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
