"""Recovery: what a network will lose once it was tuned, as far as the trials so far tell."""

from __future__ import annotations

from dataclasses import dataclass, field

POINTS = 25.0
"""Points lost by a nat of loss, before anything was measured."""
TRUST = 0.03
"""In nats: a measured network with that loss left counts as much as `POINTS`."""
EPOCHS = 0.25
"""After so many epochs a part of the loss is made up for; likewise."""
POWER = 0.5
"""The longer a training, the less the next epoch brings: the loss falls by this power. ResNet-56
without 8 blocks lost 2.85 points on JPEG images, 1.26 after one epoch and 0.86 after 2.66."""


@dataclass(frozen=True)
class Tuned:
    """A network that was measured.

    Attributes:
        share: what it costs of the original, as predicted.
        loss: what it lost on training samples before it was tuned, in nats.
        epochs: for how long it was tuned.
        drop: what it loses then, in points.
    """

    share: float
    loss: float
    epochs: float
    drop: float


@dataclass
class Recovery:
    """Predicts a drop from a network's untuned loss and the length of its training.

        drop = floor + points x loss x (1 + epochs / EPOCHS)^-POWER

    `points` is fitted to the networks that were tuned, by least squares, and `POINTS` has a weight
    of its own. A network that was tuned is expected to lose what it lost, less what longer training
    brings, and one that costs less no less than that.

    >>> Recovery().predicted(0.5, 0.1, 0.0)
    2.5
    >>> Recovery(seen=[Tuned(0.6, 0.1, 2.0, 3.0)]).predicted(0.5, 0.05, 2.0)
    3.0

    Attributes:
        floor: points that are lost by rounding, without any cut.
        seen: what was measured.
    """

    floor: float = 0.0
    seen: list[Tuned] = field(default_factory=list)

    def predicted(self, share: float, loss: float, epochs: float) -> float:
        """The points that a network loses after so many epochs."""
        cut = self._points * max(loss, 0.0) * _left(epochs)
        known = [
            (tuned.share, (tuned.drop - self.floor) * _left(epochs) / _left(tuned.epochs))
            for tuned in self.seen
            if tuned.share >= share
        ]
        same = [more for of, more in known if of == share]
        if same:
            return self.floor + min(same)
        return self.floor + max(cut, 0.0, *(more for _, more in known))

    @property
    def _points(self) -> float:
        over, under = POINTS * TRUST**2, TRUST**2
        for tuned in self.seen:
            left = tuned.loss * _left(tuned.epochs)
            over += left * (tuned.drop - self.floor)
            under += left**2
        return max(over / under, 0.0)


def _left(epochs: float) -> float:
    """The share of a loss that is left after so many epochs."""
    return float((1 + epochs / EPOCHS) ** -POWER)
