"""Recovery: what a network will lose once it was tuned, as far as the trials so far tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

TRUST = 0.75
"""Of the budget: a tuned network that should have lost so much counts as much as untuned ones."""
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
        loss: what it lost on training samples before it was tuned, in units of the task's loss.
        epochs: for how long it was tuned.
        drop: what it loses then, in units of the metric.
    """

    share: float
    loss: float
    epochs: float
    drop: float


@dataclass
class Recovery:
    """Predicts a drop from a network's untuned loss and the length of its training.

        drop = floor + rate x loss x (1 + epochs / EPOCHS)^-POWER

    `rate` is fitted to the networks that were tuned, by least squares, and what was known before
    has a weight of its own. A network that was tuned is expected to lose what it lost, less what
    longer training brings, and one that costs less no less than that.

    >>> Recovery(rate=25.0).predicted(0.5, 0.1, 0.0)
    2.5
    >>> Recovery(rate=25.0, seen=[Tuned(0.6, 0.1, 2.0, 3.0)]).predicted(0.5, 0.05, 2.0)
    3.0

    Attributes:
        rate: what a unit of the task's loss costs, in units of the metric, before any training.
        trust: a tuned network with so much of its loss left counts as much as `rate`.
        floor: what is lost by rounding, without any cut, in units of the metric.
        seen: what was measured.
    """

    rate: float
    trust: float = 0.0
    floor: float = 0.0
    seen: list[Tuned] = field(default_factory=list)

    @classmethod
    def of_untuned(
        cls, losses: Sequence[float], drops: Sequence[float], max_drop: float, floor: float
    ) -> Recovery:
        """What to expect from cut networks alone, before any of them is tuned.

        >>> Recovery.of_untuned([0.1, 0.3], [2.0, 6.0], 1.0, 0.0)
        Recovery(rate=20.0, trust=0.0375, floor=0.0, seen=[])

        Args:
            losses: what they lose of the task's loss.
            drops: what they lose by the metric, likewise.
            max_drop: the budget.
            floor: see the class.
        """
        rate = max(0.0, sum(drops)) / max(sum(losses), 1e-12)
        most = max(losses, default=0.0)
        trust = min(TRUST * max_drop / rate, most) if rate > 0 else most
        return cls(rate, trust, floor)

    def predicted(self, share: float, loss: float, epochs: float) -> float:
        """What a network loses by the metric, after so many epochs."""
        cut = self._fitted * max(loss, 0.0) * left_after(epochs)
        known = [
            (tuned.share, (tuned.drop - self.floor) * left_after(epochs) / left_after(tuned.epochs))
            for tuned in self.seen
            if tuned.share >= share
        ]
        same = [more for of, more in known if of == share]
        if same:
            return self.floor + min(same)
        return self.floor + max(cut, 0.0, *(more for _, more in known))

    @property
    def _fitted(self) -> float:
        over, under = self.rate * self.trust**2, self.trust**2
        for tuned in self.seen:
            left = tuned.loss * left_after(tuned.epochs)
            over += left * (tuned.drop - self.floor)
            under += left**2
        return max(over / under, 0.0) if under > 0 else self.rate


def left_after(epochs: float) -> float:
    """The share of a loss that is left after so many epochs.

    >>> left_after(0.0), left_after(2.0)
    (1.0, 0.3333333333333333)
    """
    return float((1 + epochs / EPOCHS) ** -POWER)
