"""Scores: the metric of each sample on an artifact, and paired drops with a confidence bound."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from penjing.contract import Array, Drop, Session, as_arrays
from penjing.errors import InputError
from penjing.measure.bounds import upper_bound
from penjing.tasks.task import Batches, Metric, scored


def score(
    session: Session,
    batches: Batches,
    metric: Metric,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """The metric's score of each sample; shape (N,).

    Args:
        session: the artifact.
        batches: the data.
        metric: the metric.
        progress: a function that is called after each batch with the number of samples so far.

    Raises:
        InputError: the metric raises, or returns anything but one finite number per sample.
    """
    parts: list[Array] = []
    done = 0
    for inputs, targets in batches:
        outputs = session.run(as_arrays(inputs))
        part = scored(metric, outputs, as_arrays(targets))
        parts.append(part)
        done += len(part)
        if progress is not None:
            progress(done)
    if not parts:
        raise InputError("the data is empty; give at least one batch")
    return np.concatenate(parts)


def drop(original: Array, candidate: Array, confidence: float = 0.95) -> Drop:
    """How much the candidate scores below the original on the same samples, in points.

    The bound is the `upper_bound` of the differences, whose greatest possible value is
    `greatest_loss`. So it accounts for losses that no sample has shown.

    >>> round(drop(np.ones(100), np.ones(100)).bound, 2)
    2.97
    """
    differences, counts = np.unique(original - candidate, return_counts=True)
    greatest = max(greatest_loss(original, candidate), float(differences[-1]))
    bound = upper_bound(differences, counts[None], greatest, confidence)[0]
    n = len(original)
    return Drop(100 * float(counts @ differences) / n, 100 * float(bound), confidence, n)


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


def is_at_chance(scores: Array, targets: Array) -> bool:
    """Whether an accuracy is no better than chance: its lower 95 % bound doesn't exceed that."""
    n, mean = len(scores), float(scores.mean())
    return mean - 1.645 * math.sqrt(max(mean * (1 - mean), 1e-9) / n) <= chance(targets)
