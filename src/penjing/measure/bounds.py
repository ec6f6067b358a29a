"""Bounds: how large a mean can be, given samples of it and the largest value that there is."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np

from penjing.contract import Array

WIDEST = 25.0  # the natural logarithm of a tilt lies between this and its negative
HALVINGS, SECANTS = 9, 5  # steps that find it
FLAT = 1e-3  # deviations from the mean below which the tail is a half


def upper_bound(values: Array, counts: Array, greatest: float, confidence: float) -> Array:
    """Upper confidence bounds of means, of which nothing is known but the greatest value; (rows,).

    The samples and one more, of the greatest value, get weights from a flat Dirichlet distribution
    (gaps between uniform draws); the bound is the quantile of the weighted mean. What wasn't seen
    is thereby accounted for, whatever the distribution: where no sample has lost anything, the
    bound is (1 - (1 - c)^(1 / n)) * greatest. For values of 0 and 1 it is Clopper and Pearson's;
    for many samples of a smooth distribution it is that of the normal approximation.

    That it holds for any distribution is a conjecture which has withstood all attempts; for values
    of -1, 0 and 1 a test goes through all that may be drawn. The quantile is found by saddlepoint
    (Barndorff-Nielsen's r*); for a confidence of 0.8 and more that errs on the safe side, by a few
    hundredths of the error rate.

    Source: N. Gaffke, "Three test statistics for a nonparametric one-sided hypothesis on the mean
    of a nonnegative variable", Mathematical Methods of Statistics, 2005; E. Learned-Miller and
    P. S. Thomas, "A new confidence interval for the mean of a bounded random variable", 2019.

    >>> bound = upper_bound(np.array([0.0]), np.array([[270]]), 1.0, 0.95)[0]
    >>> bool(1 - 0.05 ** (1 / 270) < bound < 1.01 * (1 - 0.05 ** (1 / 270)))
    True

    Args:
        values: that samples have, shape (values,), none above `greatest`.
        counts: how many samples have each, shape (rows, values); each row is a set of samples.
    """
    below = np.append(greatest - np.asarray(values, np.float64), 0.0)
    scale = float(below.max()) or 1.0
    below = np.maximum(below / scale, 0.0)
    weights = np.concatenate([counts, np.ones((len(counts), 1))], axis=1).astype(np.float64)
    wanted = NormalDist().inv_cdf(confidence)
    low, high = np.full(len(weights), -WIDEST), np.full(len(weights), WIDEST)
    lack, excess = np.full(len(weights), wanted), np.ones(len(weights))
    distance = np.zeros(len(weights))
    for step in range(HALVINGS + SECANTS):
        share = 0.5 if step < HALVINGS else lack / (lack + excess)
        middle = low + share * (high - low)
        distance, deviation = _tilted(below, weights, np.exp(middle))
        short = deviation < wanted
        low, high = np.where(short, middle, low), np.where(short, high, middle)
        lack = np.where(short, wanted - deviation, lack)
        excess = np.where(short, excess, deviation - wanted + 1e-12)
    bound: Array = greatest - scale * distance
    return bound


def _tilted(below: Array, weights: Array, tilt: Array) -> tuple[Array, Array]:
    """Of weights divided by 1 + tilt * below: the mean of `below`, and how many standard deviations
    of a normal distribution the weighted mean is away from the flat one; each of shape (rows,).

    The weighted mean exceeds m where a sum of gamma variables, each times (value - m), exceeds
    zero. Its cumulants follow from the tilt, so that only the tilt has to be looked for.
    """
    total = weights.sum(axis=1)
    ratio = 1 + tilt[:, None] * below
    tilted = weights / ratio
    rest = tilted.sum(axis=1)
    distance = (tilted @ below) / rest
    lead = distance[:, None] - below
    cumulant = -total * np.log(rest / total) - (weights * np.log(ratio)).sum(axis=1)
    spread = np.sqrt((tilted * lead * lead / ratio).sum(axis=1)) * total / rest
    w = np.sqrt(np.maximum(-2 * cumulant, 0.0))
    u = tilt * rest / total * spread
    flat = w < FLAT
    safe_w, safe_u = np.where(flat, 1.0, w), np.where(flat, 1.0, u)
    deviation: Array = np.where(flat, 0.0, safe_w + np.log(safe_u / safe_w) / safe_w)
    return distance, deviation


def least_samples(largest: float, greatest: float, confidence: float) -> int | None:
    """How many samples, none above zero, bring the bound down to `largest`; None if none do.

    >>> least_samples(0.01, 1.0, 0.95), least_samples(0.0, 1.0, 0.95), least_samples(1.0, 1.0, 0.95)
    (300, None, 1)
    """
    if largest >= greatest:
        return 1
    if largest <= 0:
        return None
    samples = math.ceil(math.log(1 - confidence) / math.log1p(-largest / greatest))
    while (bound := _bound_if_unchanged(samples, greatest, confidence)) > largest:
        samples = max(samples + 1, int(samples * bound / largest))
    return samples


def _bound_if_unchanged(samples: int, greatest: float, confidence: float) -> float:
    return float(upper_bound(np.zeros(1), np.array([[samples]]), greatest, confidence)[0])
