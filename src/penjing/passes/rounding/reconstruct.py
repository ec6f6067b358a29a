"""Reconstruct: round weights up or down anew, so that outputs stay what they were."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, fx, nn

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.segments import Segment, between, bottlenecks
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.qparams import QParams, qparams_in, weight_qparams
from penjing.passes.conditions import Condition
from penjing.passes.in_turn import InTurn, Work
from penjing.tasks.task import Task

STRETCH = 1.2  # of the sigmoid, so that 0 and 1 are reached
WARM_UP = 0.2  # share of the steps without the pull to 0 and 1
BETA = (20.0, 2.0)  # at first, and in the end
HEIGHT_LR, SCALE_LR = 1e-2, 4e-5


@dataclass(frozen=True)
class Reconstruct(InTurn):
    """Learn the rounding of weights, and the scales of values, part by part, without labels.

    Each weight lies between two integers. A number h from 0 to 1 says how far up it goes, is
    learned so that the part's output comes near the unrounded network's, on the inputs that it
    really gets, and is drawn to 0 or 1 in the end: min |y - y'|^2 + pull sum(1 - |2h - 1|^beta).
    Values are rounded or not at random meanwhile, which makes the result less dependent on the
    calibration data.

    Attributes:
        parts: `"blocks"` (between values through which everything goes) or `"layers"`.
        samples: calibration images.
        steps: of Adam, for each part.
        batch: samples in a step.
        drop: share of values that aren't rounded, drawn anew each step; 0 rounds all.
        pull: weight of the second term.

    Raises:
        InputError: an option is out of range; calibration data of another shape.

    Source: M. Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization", 2020
    (h); Y. Li et al., "BRECQ: Pushing the Limit of Post-Training Quantization by Block
    Reconstruction", 2021; X. Wei et al., "QDrop: Randomly Dropping Quantization for Extremely
    Low-bit Post-Training Quantization", 2022.
    """

    parts: Literal["blocks", "layers"] = "blocks"
    samples: int = 1024
    steps: int = 1000
    batch: int = 32
    drop: float = 0.5
    pull: float = 0.01
    seed: int = 0

    requires: ClassVar[frozenset[Condition]] = frozenset({Condition.CALIBRATION, Condition.ROUNDED})
    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REFINED, Condition.LEARNED})
    doing: ClassVar[str] = "rounding up to"

    def __post_init__(self) -> None:
        if self.parts not in ("blocks", "layers"):
            raise InputError(f"parts must be blocks or layers; found {self.parts!r}")
        if self.samples < 2 or self.steps < 1 or self.batch < 1:
            raise InputError(
                "samples must be 2 or more, steps and batch 1 or more; found "
                f"{self.samples}, {self.steps} and {self.batch}"
            )
        if not (0 <= self.drop < 1 and math.isfinite(self.pull) and self.pull >= 0):
            raise InputError(
                f"drop must be in [0, 1) and pull 0 or more; found {self.drop} and {self.pull}"
            )

    def decide(self, network: Network, task: Task) -> Plan:
        """The parts; the graph itself stays as it is."""
        layers = weight_qparams(network)
        candidates = _blocks(network) if self.parts == "blocks" else _layers(network)
        segments = [
            segment for segment in candidates if any(node in layers for node in segment.nodes)
        ]
        inside = {node for segment in segments for node in segment.nodes}
        alone = [
            LeftAlone(str(node.meta["layer"]), "no part has it alone with one input")
            for node in layers
            if node not in inside
        ]
        count = len(layers) - len(alone)
        return self._plan(
            summary=f"rounding of {count} layers learned in {len(segments)} {self.parts}",
            left_alone=alone,
            parts=[(segment.start.name, segment.end.name) for segment in segments],
        )

    def in_memory(self, network: Network) -> int:
        """All of them."""
        return self.samples

    def teacher(self, student: Network, task: Task) -> Network:
        """The same network without any rounding."""
        return unrounded(student)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Learn the rounding of a part's weights on what it reads, as it is and as it was."""
        draw = torch.Generator().manual_seed(self.seed)

        def work(start: fx.Node, end: fx.Node) -> fx.Node:
            segment = self.known(between(start, end), end)
            given = torch.cat(student.value(start))
            usual = torch.cat(teacher.value_of(start.name))
            target = torch.cat(teacher.value_of(end.name))
            _Rounding(student.network, segment, self, draw).learn(given, usual, target)
            return segment.nodes[0]

        return work


def _blocks(network: Network) -> Iterator[Segment]:
    """From one bottleneck to the next, where rounded values count as what is read, not made."""
    rounded = {qparams.node for qparams in qparams_in(network)}
    places = [node for node in bottlenecks(network) if node not in rounded]
    layers = set(weight_qparams(network))
    start = places[0] if places else None
    for end in places[1:]:
        assert start is not None
        segment = between(start, end)
        if segment is None or layers.isdisjoint(segment.nodes) or _goes_on(end):
            continue  # together with what follows
        yield segment
        start = end


def _goes_on(node: fx.Node) -> bool:
    """Whether all that reads it is a function that its block should end with."""
    readers = list(node.users)
    return len(readers) == 1 and "relu" in str(readers[0].target)


def _layers(network: Network) -> Iterator[Segment]:
    for layer in weight_qparams(network):
        data, end = layer.args[0], layer
        assert isinstance(data, fx.Node)
        start = data.args[0] if data in {qparams.node for qparams in qparams_in(network)} else data
        assert isinstance(start, fx.Node)
        if _goes_on(layer):
            end = next(iter(layer.users))
        segment = between(start, end)
        if segment is not None:
            yield segment


class _Rounding:
    """The learning of one segment."""

    def __init__(
        self, network: Network, segment: Segment, options: Reconstruct, draw: torch.Generator
    ) -> None:
        self.network, self.segment, self.options, self.draw = network, segment, options, draw
        inside = set(segment.nodes)
        self.weights = [
            qparams for qparams in weight_qparams(network).values() if qparams.node in inside
        ]
        others = inside - {qparams.node for qparams in self.weights}
        self.values = [qparams for qparams in qparams_in(network) if qparams.node in others]
        self.heights = {
            qparams.node: nn.Parameter(self._start(qparams)) for qparams in self.weights
        }

    def learn(self, given: Tensor, usual: Tensor, target: Tensor) -> None:
        """Put the learned rounding into the weights.

        Args:
            given, usual: the segment's input as it is now, and as it was without rounding.
            target: its output as it was.
        """
        options = self.options
        scales = [self.network.tensor(qparams.scale) for qparams in self.values if qparams.bits < 8]
        optimizer = torch.optim.Adam(
            [
                {"params": list(self.heights.values()), "lr": HEIGHT_LR},
                {"params": [*dict.fromkeys(scales)], "lr": SCALE_LR},
            ]
        )
        instead: dict[fx.Node, Callable[..., Any]] = {
            node: partial(_soft, height) for node, height in self.heights.items()
        }
        if options.drop:
            instead |= {qparams.node: self._sometimes for qparams in self.values}
        for step in range(options.steps):
            index = torch.randint(len(given), (options.batch,), generator=self.draw)
            x = given[index]
            if options.drop:
                x = torch.lerp(x, usual[index], self._lot(x))
            output = self.segment.run(self.network, x, instead)
            error = (output - target[index]).square()
            loss = error.mean() * (error.shape[1] if error.dim() > 1 else 1)
            loss = loss + options.pull * self._undecided(step / options.steps)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        with torch.no_grad():
            for qparams in self.weights:
                weight, scale = self._tensors(qparams)
                hard = (self.heights[qparams.node] >= 0).to(weight.dtype)
                weight.copy_(_at_height(hard, weight, scale, qparams.low, qparams.high))

    def _tensors(self, qparams: QParams) -> tuple[Tensor, Tensor]:
        return self.network.tensor(qparams.source_name), self.network.tensor(qparams.scale)

    def _start(self, qparams: QParams) -> Tensor:
        """What gives the weights as they are."""
        weight, scale = (tensor.detach() for tensor in self._tensors(qparams))
        steps = weight.reshape(*scale.shape, -1) / scale.unsqueeze(-1)
        share = ((steps - steps.floor()).view_as(weight) + (STRETCH - 1) / 2) / STRETCH
        return torch.logit(share)

    def _sometimes(self, x: Tensor, *qparams: Any) -> Tensor:
        rounded: Tensor = FAKE_QUANTIZE(x, *qparams)
        return torch.lerp(rounded, x, self._lot(x))

    def _lot(self, x: Tensor) -> Tensor:
        """1 or 0 for each number: twice as fast to blend by as true and false to choose by."""
        return (torch.rand(x.shape, generator=self.draw) < self.options.drop).to(x.dtype)

    def _undecided(self, done: float) -> Tensor | float:
        """How far the heights are from 0 and 1, ever more sharply."""
        if done < WARM_UP:
            return 0.0
        left = 1 - (done - WARM_UP) / (1 - WARM_UP)
        beta = BETA[1] + (BETA[0] - BETA[1]) * left
        heights = torch.cat([_height(height).flatten() for height in self.heights.values()])
        return (1 - (2 * heights - 1).abs().pow(beta)).sum()


def _height(learned: Tensor) -> Tensor:
    """0..1, both ends within reach."""
    return (torch.sigmoid(learned) * STRETCH - (STRETCH - 1) / 2).clamp(0, 1)


def _soft(
    learned: Tensor, weight: Tensor, scale: Tensor, zero_point: int, low: int, high: int
) -> Tensor:
    return _at_height(_height(learned), weight.detach(), scale.detach(), low, high)


def _at_height(height: Tensor, weight: Tensor, scale: Tensor, low: int, high: int) -> Tensor:
    """The weight rounded down, and up again by `height` of a step."""
    step = scale.unsqueeze(-1)
    down = (weight.reshape(*scale.shape, -1) / step).floor()
    rounded: Tensor = ((down + height.view_as(down)).clamp(low, high) * step).view_as(weight)
    return rounded
