"""Scores: a metric sample by sample on the artifact, and paired drops with a confidence bound."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist

import numpy as np

from penjing.contract import Array, Drop, Session, as_arrays
from penjing.errors import InputError
from penjing.task import Batches, Metric, scored


def score(
    session: Session,
    batches: Batches,
    metric: Metric,
    progress: Callable[[int], None] | None = None,
) -> Array:
    """The metric's score of every sample; shape (N,).

    Args:
        progress: called with the number of samples done, after each batch.

    Raises:
        InputError: the metric raises, or gives anything but one finite number per sample.
    """
    parts: list[Array] = []
    done = 0
    for inputs, targets in batches:
        outputs = session.run(as_arrays(inputs))
        found = scored(metric, outputs, as_arrays(targets))
        parts.append(found)
        done += len(found)
        if progress is not None:
            progress(done)
    if not parts:
        raise InputError("the data is empty; give at least one batch")
    return np.concatenate(parts)


def drop(original: Array, candidate: Array, confidence: float = 0.95) -> Drop:
    """How much the candidate scores below the original on the same samples, in points.

    For scores of 0 and 1 the bound is the upper end of Tango's score interval for paired
    proportions; otherwise mean + z standard errors.

    Source: T. Tango, "Equivalence test and confidence interval for the difference in proportions
    for the paired-sample design", Statistics in Medicine, 1998.

    >>> round(drop(np.ones(100), np.ones(100)).bound, 2)
    2.63
    """
    difference = original - candidate
    n = len(difference)
    z = NormalDist().inv_cdf(confidence)
    mean = float(difference.mean())
    if set(np.unique(original)) | set(np.unique(candidate)) <= {0.0, 1.0}:
        lost, won = int((difference > 0).sum()), int((difference < 0).sum())
        bound = _tango(lost, won, n, z)
    else:
        bound = mean + z * float(difference.std(ddof=1)) / math.sqrt(n) if n > 1 else math.inf
    return Drop(100 * mean, 100 * bound, confidence, n)


def _tango(lost: int, won: int, n: int, z: float) -> float:
    """The largest difference that the score test does not reject, by bisection."""
    low, high = (lost - won) / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        a = 2 * n
        b = -lost - won + (2 * n - lost + won) * middle
        c = -won * middle * (1 - middle)
        p = (math.sqrt(max(b * b - 4 * a * c, 0.0)) - b) / (2 * a)
        variance = n * (2 * p + middle * (1 - middle))
        statistic = (lost - won - n * middle) / math.sqrt(max(variance, 1e-30))
        low, high = (middle, high) if statistic > -z else (low, middle)
    return high


def chance(targets: Array) -> float:
    """The accuracy of always answering the commonest class.

    >>> chance(np.array([0, 1, 1, 1]))
    0.75
    """
    return float(np.unique(targets, return_counts=True)[1].max() / len(targets))


def is_at_chance(scores: Array, targets: Array) -> bool:
    """Whether an accuracy can't be told from chance: its lower 95 % bound doesn't exceed it."""
    n, mean = len(scores), float(scores.mean())
    return mean - 1.645 * math.sqrt(max(mean * (1 - mean), 1e-9) / n) <= chance(targets)
