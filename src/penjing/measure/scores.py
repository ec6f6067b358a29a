"""Scores: what a metric says of a file, and paired drops with a confidence bound."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from penjing.contract import Array, Drop, Session, as_arrays
from penjing.errors import InputError
from penjing.measure.bounds import bootstrapped, least_samples, upper_bound
from penjing.tasks.metrics import ACCURACY, Kept, Metric, joined, scored
from penjing.tasks.targets import targets_as_arrays
from penjing.tasks.task import Batches

DRAWS = 1000
"""How often samples are drawn again for a bootstrap."""
GROUPS = 100
"""How many groups are left out, one after the other; with fewer samples, each sample is one."""
LEAST_SAMPLES = 50
"""With fewer samples a bootstrap says too little."""
SEED = 0


class Scores(ABC):
    """What a metric says of a file's answers, sample by sample."""

    @property
    @abstractmethod
    def figure(self) -> float:
        """The figure that is printed."""

    @abstractmethod
    def __len__(self) -> int:
        """The number of samples."""

    @abstractmethod
    def units_lost(self, by: Scores) -> float:
        """How much worse another file does on the same samples, in the metric's unit; negative if
        it is better."""

    @abstractmethod
    def lost(self, by: Scores, confidence: float = 0.95) -> Drop:
        """The same, with its bound."""

    @abstractmethod
    def least(self, max_drop: float, confidence: float) -> int | None:
        """How many samples certify that a file which answers as this one does keeps a budget; None
        if no number does."""


@dataclass(frozen=True, eq=False)
class Means(Scores):
    """Scores of which the mean counts.

    Attributes:
        values: of shape (N,).
        metric: what they are scores of.
    """

    values: Array
    metric: Metric = ACCURACY

    @property
    def figure(self) -> float:
        """See `Scores.figure`."""
        return float(self.values.mean())

    def __len__(self) -> int:
        return len(self.values)

    def units_lost(self, by: Scores) -> float:
        """See `Scores.units_lost`."""
        assert isinstance(by, Means)
        return self.metric.scale * float((self.values - by.values).mean())

    def lost(self, by: Scores, confidence: float = 0.95) -> Drop:
        """See `Scores.lost`, and `drop`."""
        assert isinstance(by, Means)
        return drop(self.values, by.values, confidence, self.metric)

    def least(self, max_drop: float, confidence: float) -> int | None:
        """See `Scores.least`."""
        greatest = greatest_loss(self.values, self.values)
        return least_samples(max_drop / self.metric.scale, greatest, confidence)


@dataclass(frozen=True, eq=False)
class Pooled(Scores):
    """What a metric keeps of samples, of which the figure is one of all.

    How much of it a file loses is bounded by the bootstrap. Both files' samples are drawn alike, so
    the difference is paired. A file that answers as the other one does loses nothing, and its bound
    is zero: a bootstrap only knows what samples have shown.

    >>> worst = Metric("worst", scores=lambda y, t: y, over=lambda kept: kept.min())
    >>> Pooled(worst, np.array([0.5, 0.25, 1.0])).figure
    0.25

    Raises:
        InputError: the figure of all samples isn't finite.
    """

    metric: Metric
    kept: Kept

    def __post_init__(self) -> None:
        if not math.isfinite(self.figure):
            raise InputError(
                f"metric {self.metric.name!r} is {self.figure} for {len(self)} samples; it must be "
                "a finite number"
            )

    @cached_property
    def figure(self) -> float:
        """See `Scores.figure`."""
        return self.metric.figure(self.kept)

    def __len__(self) -> int:
        return len(self.kept)

    @property
    def _sign(self) -> float:
        return self.metric.scale if self.metric.higher else -self.metric.scale

    def units_lost(self, by: Scores) -> float:
        """See `Scores.units_lost`."""
        return self._sign * (self.figure - by.figure)

    def lost(self, by: Scores, confidence: float = 0.95) -> Drop:
        """See `Scores.lost`.

        Raises:
            InputError: the figure of most samples that are drawn again is NaN.
        """
        assert isinstance(by, Pooled)
        lost = self.units_lost(by)
        drawn, without = (
            self._sign * (mine - theirs)
            for mine, theirs in ((self._drawn, by._drawn), (self._without, by._without))
        )
        drawn, without = drawn[np.isfinite(drawn)], without[np.isfinite(without)]
        if len(drawn) < DRAWS / 2 or not len(without):
            raise InputError(
                f"metric {self.metric.name!r} is NaN for most samples that are drawn again from "
                f"{len(self)}; give more samples"
            )
        bound = bootstrapped(lost, drawn, without, confidence)
        return Drop(lost, bound, confidence, len(self), self.metric.unit)

    def least(self, max_drop: float, confidence: float) -> int | None:
        """See `Scores.least`."""
        return LEAST_SAMPLES

    @cached_property
    def _drawn(self) -> Array:
        """The figure of samples drawn again, with replacement, so often."""
        draw = np.random.default_rng(SEED)
        return self._figures(draw.integers(0, len(self), len(self)) for _ in range(DRAWS))

    @cached_property
    def _without(self) -> Array:
        """The figure without one group after the other."""
        mixed = np.random.default_rng(SEED).permutation(len(self))
        groups = np.array_split(mixed, min(GROUPS, len(self)))
        return self._figures(np.delete(np.arange(len(self)), group) for group in groups)

    def _figures(self, picked: Iterator[Array]) -> Array:
        kept = self.kept
        return np.array([
            self.metric.figure(
                kept[places] if isinstance(kept, np.ndarray) else [kept[place] for place in places]
            )
            for places in picked
        ])  # fmt: skip


def judge(
    session: Session,
    batches: Batches,
    metric: Metric,
    progress: Callable[[int], None] | None = None,
) -> Scores:
    """What a metric says of a file.

    Args:
        session: the artifact.
        batches: the data.
        metric: the metric.
        progress: a function that is called after each batch with the number of samples so far.

    Raises:
        InputError: the metric raises, or returns something else than `penjing.Metric` says.
    """
    return judged(metric, _scored(session, batches, metric, progress))


def judged(metric: Metric, parts: Sequence[Kept]) -> Scores:
    """What a metric says of samples of which it kept this, batch by batch."""
    kept = joined(parts)
    return Means(np.asarray(kept, np.float64), metric) if metric.is_mean else Pooled(metric, kept)


def score(session: Session, batches: Batches, metric: Metric) -> Array:
    """The score of each sample, by a metric that is a mean of them; shape (N,).

    Raises:
        InputError: the metric raises, or returns anything but one finite number per sample.
    """
    assert metric.is_mean
    return np.concatenate(_scored(session, batches, metric))


def _scored(
    session: Session,
    batches: Batches,
    metric: Metric,
    progress: Callable[[int], None] | None = None,
) -> list[Kept]:
    parts: list[Kept] = []
    done = 0
    for inputs, targets in batches:
        parts.append(scored(metric, session.run(as_arrays(inputs)), targets_as_arrays(targets)))
        done += len(parts[-1])
        if progress is not None:
            progress(done)
    if not parts:
        raise InputError("the data is empty; give at least one batch")
    return parts


def drop(
    original: Array, candidate: Array, confidence: float = 0.95, metric: Metric = ACCURACY
) -> Drop:
    """How much the candidate scores below the original on the same samples, in a metric's unit.

    The bound is the `upper_bound` of the differences, whose greatest possible value is
    `greatest_loss`. So it accounts for losses that no sample has shown.

    >>> round(drop(np.ones(100), np.ones(100)).bound, 2)
    2.97
    """
    differences, counts = np.unique(original - candidate, return_counts=True)
    greatest = max(greatest_loss(original, candidate), float(differences[-1]))
    bound = upper_bound(differences, counts[None], greatest, confidence)[0]
    n = len(original)
    lost, most = metric.scale * float(counts @ differences) / n, metric.scale * float(bound)
    return Drop(lost, most, confidence, n, metric.unit)


def greatest_loss(original: Array, candidate: Array) -> float:
    """The most that a sample can lose: from the original's best score down to the worst possible.

    The worst possible score is taken to be 0. If scores are negative, it is taken to be twice the
    worst one that occurred, because scores without a lower end allow no certain bound.

    >>> greatest_loss(np.array([0.0, 1.0]), np.ones(2))
    1.0
    >>> greatest_loss(np.array([-1.0, -2.0]), np.array([-1.5, -2.0]))
    3.0
    """
    worst = min(0.0, 2 * float(min(original.min(), candidate.min())))
    return float(original.max()) - worst or 1.0


def chance(targets: Array) -> float:
    """The accuracy of always answering the most common class.

    >>> chance(np.array([0, 1, 1, 1]))
    0.75
    """
    return float(np.unique(targets, return_counts=True)[1].max() / len(targets))


def is_at_chance(mean: float, targets: Array) -> bool:
    """Whether an accuracy is no better than chance: its lower 95 % bound doesn't exceed that."""
    n = len(targets)
    return mean - 1.645 * math.sqrt(max(mean * (1 - mean), 1e-9) / n) <= chance(targets)
