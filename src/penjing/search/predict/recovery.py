"""Recovery: what a network will lose once it was tuned, as far as the trials so far tell."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

POINTS = 60.0
"""Points lost by a nat of loss, before anything was measured."""
EPOCHS = 0.3
"""After so many epochs a part of the loss is made up for; likewise."""
POWER = 0.6
"""The longer a training, the less the next epoch brings: the loss falls by this power."""

LEAST_LOSS, LEAST_DROP = 1e-3, 0.05
"""In nats and in points: less than that counts as that, since it is noise."""


@dataclass(frozen=True)
class Tuned:
    """A network that was measured.

    Attributes:
        time: that it takes, as predicted.
        loss: what it lost on training samples before it was tuned, in nats.
        epochs: for how long it was tuned.
        drop: what it loses then, in points.
    """

    time: float
    loss: float
    epochs: float
    drop: float


@dataclass
class Recovery:
    """Predicts a drop from a network's untuned loss and the length of its training.

        drop = floor + points x loss x (1 + epochs / EPOCHS)^-POWER

    `points` is the geometric mean over the networks that were tuned. A network is never expected to
    lose less than a slower one that was measured would after as much training.

    >>> Recovery().predicted(0.5, 0.1, 0.0)
    6.0
    >>> Recovery(seen=[Tuned(0.6, 0.1, 2.0, 3.0)]).predicted(0.5, 0.05, 2.0)
    3.0

    Attributes:
        floor: points that are lost by rounding, without any cut.
        seen: what was measured.
    """

    floor: float = 0.0
    seen: list[Tuned] = field(default_factory=list)

    def predicted(self, time: float, loss: float, epochs: float) -> float:
        """The points that a network loses after so many epochs."""
        cut = self._points * max(loss, LEAST_LOSS) * _left(epochs)
        slower = [
            (tuned.drop - self.floor) * _left(epochs) / _left(tuned.epochs)
            for tuned in self.seen
            if tuned.time >= time
        ]
        return self.floor + max(cut, *slower, 0.0)

    @property
    def _points(self) -> float:
        if not self.seen:
            return POINTS
        logs = [
            math.log(
                max(tuned.drop - self.floor, LEAST_DROP)
                / (max(tuned.loss, LEAST_LOSS) * _left(tuned.epochs))
            )
            for tuned in self.seen
        ]
        return math.exp(sum(logs) / len(logs))


def _left(epochs: float) -> float:
    """The share of a loss that is left after so many epochs."""
    return float((1 + epochs / EPOCHS) ** -POWER)
