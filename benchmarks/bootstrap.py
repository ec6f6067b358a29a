"""How often the bound of a figure of all samples holds: the bootstrap's coverage, simulated.

    python benchmarks/bootstrap.py [--draws 500] [--samples 200] [--seed 0] [--json FILE]

Two classifiers answer the same samples, and the second one is a little worse. What it truly loses
is known from a million samples. From so many samples penjing bounds the loss at 95 %; `held` is the
share of draws in which the bound is at or above the true loss, in percent, with its 95 % interval.
`mean bound` is how far the bound lies above the true loss on average, in points.

The figures are the area under the ROC curve, the macro F1 of three classes, a rate of wrong words
(of which fewer are better), and the coefficient of determination R2.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from harness import progress, table

from penjing.contract import Array
from penjing.measure.bounds import upper_bound
from penjing.measure.scores import Pooled
from penjing.tasks.metrics import Metric

TRUE_SAMPLES = 1_000_000
CONFIDENCE = 0.95
COLUMNS = ("figure", "samples", "draws", "true loss", "held", "low", "high", "mean bound")
Drawn = Callable[[np.random.Generator, int], tuple[Array, Array]]


@dataclass(frozen=True)
class Kind:
    """A metric, and what it keeps of samples that two classifiers answer."""

    metric: Metric
    drawn: Drawn


def area(kept: Array) -> float:
    """The area under the ROC curve of scores (column 0) and labels (column 1)."""
    _, places, counts = np.unique(kept[:, 0], return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[places]
    positive = kept[:, 1] > 0
    many, rest = int(positive.sum()), int((~positive).sum())
    if not many or not rest:
        return float("nan")
    return float((ranks[positive].sum() - many * (many + 1) / 2) / (many * rest))


def two_scores(draw: np.random.Generator, samples: int) -> tuple[Array, Array]:
    labels = (draw.random(samples) < 0.3) * 1.0
    known = draw.normal(size=samples) + 1.2 * labels
    better, worse = (known + noise * draw.normal(size=samples) for noise in (0.3, 0.6))
    return np.stack([better, labels], 1), np.stack([worse, labels], 1)


def macro_f1(kept: Array) -> float:
    """The mean over classes of F1, of answers (column 0) and classes (column 1)."""
    parts = []
    for label in range(3):
        said, true = kept[:, 0] == label, kept[:, 1] == label
        parts.append(2 * (said & true).sum() / max(1, said.sum() + true.sum()))
    return float(np.mean(parts))


def three_classes(draw: np.random.Generator, samples: int) -> tuple[Array, Array]:
    classes = draw.choice(3, samples, p=[0.6, 0.3, 0.1])
    luck = draw.random(samples)
    other = draw.integers(0, 3, samples)
    better, worse = (np.where(luck < right, classes, other) for right in (0.85, 0.82))
    return np.stack([better, classes], 1), np.stack([worse, classes], 1)


def rate(kept: Array) -> float:
    """The share of words that are wrong: counts of wrong ones (column 0) and of all (column 1)."""
    return float(kept[:, 0].sum() / kept[:, 1].sum())


def words(draw: np.random.Generator, samples: int) -> tuple[Array, Array]:
    many = draw.integers(3, 30, samples)
    hard = draw.beta(1, 8, samples)
    wrong = draw.binomial(many, hard)
    more = np.minimum(many, wrong + draw.binomial(many, 0.01))
    return np.stack([wrong, many], 1), np.stack([more, many], 1)


def determined(kept: Array) -> float:
    """R2 of predictions (column 0) and values (column 1)."""
    error, spread = kept[:, 0] - kept[:, 1], kept[:, 1] - kept[:, 1].mean()
    return float(1 - (error**2).sum() / max((spread**2).sum(), 1e-12))


def values(draw: np.random.Generator, samples: int) -> tuple[Array, Array]:
    true = draw.normal(size=samples)
    better, noise = true + 0.4 * draw.normal(size=samples), 0.15 * draw.standard_t(5, samples)
    return np.stack([better, true], 1), np.stack([better + noise, true], 1)


def _given(*_: Any) -> Array:
    raise AssertionError("what it keeps is drawn")


KINDS = (
    Kind(Metric("area under the curve", _given, area), two_scores),
    Kind(Metric("macro F1", _given, macro_f1), three_classes),
    Kind(Metric("word error rate", _given, rate, higher=False), words),
    Kind(Metric("R2", _given, determined), values),
)


def row(kind: Kind, samples: int, draws: int, seed: int) -> dict[str, Any]:
    """How often the bound held."""
    draw = np.random.default_rng([seed, len(kind.metric.name)])
    whole, other = (Pooled(kind.metric, kept) for kept in kind.drawn(draw, TRUE_SAMPLES))
    true = whole.units_lost(other)
    bounds = []
    say = progress(kind.metric.name)
    for number in range(draws):
        say("drawing samples", number / draws)
        mine, theirs = (Pooled(kind.metric, kept) for kept in kind.drawn(draw, samples))
        bounds.append(mine.lost(theirs, CONFIDENCE).bound)
    held = int(sum(bound >= true for bound in bounds))
    sides = np.array([[draws - held, held], [held, draws - held]])
    high, missed = upper_bound(np.array([0.0, 1.0]), sides, 1.0, 0.975)
    return {
        "figure": kind.metric.name, "samples": samples, "draws": draws, "true loss": true,
        "held": 100 * held / draws, "low": 100 * float(1 - missed), "high": 100 * float(high),
        "mean bound": float(np.mean(bounds)) - true,
    }  # fmt: skip


def cell(column: str, value: Any) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=500)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    rows = [row(kind, options.samples, options.draws, options.seed) for kind in KINDS]
    print(table(rows, COLUMNS, cell))
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
