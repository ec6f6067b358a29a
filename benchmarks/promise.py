"""How often a fit delivers a file whose true drop is over the budget: the promise, simulated.

    python benchmarks/promise.py [--fits 2000] [--seed 0] [--json FILE]

Whole fits on scores that are drawn: a budget of 1 point at 95 %, candidates that truly lose 1.05
points ("all over"; "alike": they do the same on 70 % of the samples; "half over": 32 of 64, the
faster ones, the others lose 0.3), and data of many sizes. Bounds, the choice, who certifies and
the evaluations on the test data are the package's own functions; nothing is trained or timed.

`old` and `now` are the share of fits, in percent, that deliver a file over the budget, for so many
candidates; `highest` is the 95 % interval of the largest of `now`. `old` is the rule before: a
bound by Tango's interval or the normal approximation on validation, not corrected for the number of
candidates, and the drop itself on test, three evaluations at most, the fastest candidate first.
`good, delivered`: how often a fit whose one candidate truly loses 0, and 0.3, delivers it; where
half are over, how often a good one is delivered.
"""

from __future__ import annotations

import argparse
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from harness import progress, table

from penjing.contract import Array, Drop, Latency, Measurement
from penjing.measure.bounds import upper_bound
from penjing.measure.scores import Means
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.certify import prove
from penjing.trials.judgement.choice import choose
from penjing.trials.judgement.promise import (
    TEST,
    VALIDATION,
    Promise,
    promise_of,
)
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

BUDGET, CONFIDENCE, OVER, GOOD = 1.0, 0.95, 1.05, 0.3
NUMBERS = (1, 3, 8, 16, 64)
SIZES = [(n, n) for n in (30, 100, 270, 450, 1000, 3000, 10_000)]
UNEQUAL = [(450, 3000), (3000, 450), (100, 3000), (10_000, 200)]
MIXED = [(450, 450), (3000, 3000)]
OLD, OLD_EVALUATIONS = (1, 8, 64), 3


@dataclass(frozen=True)
class Scores:
    """A metric and a way to lose: the original's scores, and what becomes of each.

    Attributes:
        original: the scores that samples have, shape (scores,), and `shares`, how many have each.
        losses: of the true drop (in the metric's unit): how much a sample of each score may lose,
            and how likely; both of shape (scores, losses).
    """

    name: str
    original: Array
    shares: Array
    losses: Callable[[float], tuple[Array, Array]]


def right_or_wrong(wins: float) -> Scores:
    """Accuracy, 90 % at first; a share of `wins` becomes right, and that and the drop wrong."""

    def losses(drop: float) -> tuple[Array, Array]:
        lost, won = (drop + wins) / 0.9, wins / 0.1
        return np.array([[1.0, 0.0], [-1.0, 0.0]]), np.array([[lost, 1 - lost], [won, 1 - won]])

    name = f"accuracy, {100 * wins:g} % won" if wins else "accuracy, losses alone"
    return Scores(name, np.array([1.0, 0.0]), np.array([0.9, 0.1]), losses)


def normal() -> Scores:
    """Scores near 0.8; differences with a standard deviation of 5 points."""
    steps = np.linspace(-3.5, 3.5, 15)
    likely = _normed(np.exp(-0.5 * steps**2))[None]
    return Scores(
        "normal", np.array([0.8]), np.ones(1), lambda drop: (drop + 0.05 * steps[None], likely)
    )


def skewed() -> Scores:
    """Errors, less than zero, from a lognormal distribution; each grows by its like share."""
    steps = np.linspace(-3.0, 3.0, 13)
    errors, shares = np.exp(steps), _normed(np.exp(-0.5 * steps**2))
    errors = 0.2 * errors / (errors @ shares)

    def losses(drop: float) -> tuple[Array, Array]:
        grows = drop / 0.2 + np.array([-0.05, 0.05])
        return errors[:, None] * grows, np.full((13, 2), 0.5)

    return Scores("lognormal", -errors, shares, losses)


def rare() -> Scores:
    """All scores 1; a few samples lose 0.7, the others nothing."""

    def losses(drop: float) -> tuple[Array, Array]:
        return np.array([[0.7, 0.0]]), np.array([[drop / 0.7, 1 - drop / 0.7]])

    return Scores("rare and large", np.ones(1), np.ones(1), losses)


def _normed(shares: Array) -> Array:
    found: Array = shares / shares.sum()
    return found


ALL = (
    right_or_wrong(0.0), right_or_wrong(0.01), right_or_wrong(0.1), normal(), skewed(), rare(),
)  # fmt: skip


@dataclass(frozen=True)
class Group:
    """What candidates of one true drop do on one split.

    Attributes:
        lost: by each original score, what a sample may lose; shape (scores, losses).
        counts: how many samples do, shape (fits, candidates, scores, losses).
    """

    kind: Scores
    lost: Array
    counts: Array

    @property
    def drops(self) -> Array:
        """Points lost, shape (fits, candidates)."""
        samples = self.counts[0, 0].sum()
        found: Array = 100 * (self.counts * self.lost).sum(axis=(2, 3)) / samples
        return found

    def distinct(self) -> tuple[Array, Array]:
        """Losses that differ, and how many samples have each, shape (fits x candidates, losses)."""
        values, which = np.unique(self.lost, return_inverse=True)
        rows = self.counts.reshape(-1, self.lost.size)
        return values, rows @ np.eye(len(values), dtype=rows.dtype)[which.ravel()]

    def greatest(self) -> Array:
        """See `greatest_loss`; shape (fits x candidates,)."""
        original = np.broadcast_to(self.kind.original[:, None], self.lost.shape)
        seen = self.counts.reshape(-1, self.lost.size) > 0
        best = np.where(seen, original.ravel(), -np.inf).max(axis=1)
        both = np.minimum(original, original - self.lost).ravel()
        worst = np.where(seen, both, np.inf).min(axis=1)
        found: Array = best - np.minimum(0.0, 2 * worst)
        return np.where(found == 0, 1.0, found)

    def bounds(self, confidence: float) -> Array:
        """In points, as `drop` has them; infinite above the budget's drop, where it can't pass."""
        values, rows = self.distinct()
        drops, greatest = self.drops.ravel(), self.greatest()
        found = np.full(len(rows), np.inf)
        low = drops <= BUDGET
        for most in np.unique(greatest[low]):
            here = np.flatnonzero(low & (greatest == most))
            some, which = rows[here], np.arange(len(here))
            if len(values) < 4:
                some, which = np.unique(some, axis=0, return_inverse=True)
            found[here] = 100 * upper_bound(values, some, most, confidence)[which]
        return found.reshape(self.drops.shape)

    def arrays(self, fit: int, candidate: int) -> tuple[Array, Array]:
        """Every sample's score, the original's and the candidate's."""
        counts = self.counts[fit, candidate]
        original = np.repeat(self.kind.original, counts.sum(axis=1))
        scores = (self.kind.original[:, None] - self.lost).ravel()
        return original, np.repeat(scores, counts.ravel())


def draw(
    kind: Scores, true: Sequence[tuple[float, int]], samples: int, fits: int, alike: float, rng: Any
) -> list[Group]:
    """The groups of candidates on one split, of a true drop and a number each.

    Args:
        alike: the share of samples in which all candidates of a group do the same.
    """
    original = rng.multinomial(samples, kind.shares, size=fits)
    shared = rng.binomial(original, alike)
    found = []
    for drop, number in true:
        lost, likely = kind.losses(drop / 100)
        own = np.broadcast_to((original - shared)[:, None], (fits, number, len(kind.shares)))
        counts = rng.multinomial(own, likely) + rng.multinomial(shared, likely)[:, None]
        found.append(Group(kind, lost, counts))
    return found


def _trial(candidate: Candidate, ratio: float, lost: Drop, status: str) -> Trial:
    times = Latency(ratio, ratio, ratio, 0.999 * ratio, 1.001 * ratio, 15)
    figures = Measurement(file_bytes=1, latency=times, drop=lost)
    return Trial(candidate, candidate.key, Status(status), measurement=figures)


CANDIDATES = [Candidate(({"number": k},)) for k in range(max(NUMBERS))]
NUMBER = {candidate.key: k for k, candidate in enumerate(CANDIDATES)}
ORIGINAL = _trial(Candidate(), 1.0, Drop(0.0, 0.0, CONFIDENCE, 1), "baseline")


def fit(
    made: Promise,
    some: Sequence[int],
    drops: Array,
    bounds: Array,
    score: Callable[[int | None], Array],
) -> int | None:
    """The candidate that a fit delivers, of those that validation may select; the first is the
    fastest. The others are left out, for no function takes them into account.

    Args:
        score: gives the score of a candidate on every test sample, of the original for None.
    """
    trials = []
    for k in some:
        lost = Drop(float(drops[k]), float(bounds[k]), made.confidence, 1)
        trials.append(_trial(CANDIDATES[k], 0.2 + 0.01 * k, lost, made.judge(lost)[0]))
    best, why = choose(ORIGINAL, trials, Aim("latency", BUDGET))
    result = Result(
        "", "", "", "latency", BUDGET, CONFIDENCE, 0, {}, ORIGINAL, tuple(trials), best.key, why,
        certified_by=made.certified_by,
    )  # fmt: skip
    proven = prove(result, lambda trial: Means(score(NUMBER.get(trial.key))))
    return NUMBER.get(proven.best)


def fits_by_number(
    made: Promise, validation: list[Group], test: list[Group], numbers: Sequence[int]
) -> Iterator[tuple[int, int, int | None]]:
    """For every number of candidates and every fit, which of them is delivered."""
    drops = np.concatenate([one.drops for one in validation], axis=1)
    bounds = np.concatenate([one.bounds(made.confidence) for one in validation], axis=1)
    by_bound = made.by_bound and made.certified_by != TEST
    may = (bounds if by_bound else drops) <= BUDGET  # test data may certify what bounds don't
    where = [(group, k) for group in test for k in range(group.counts.shape[1])]
    for row in range(len(drops)):

        def score(number: int | None, row: int = row) -> Array:
            group, k = where[number or 0]
            return group.arrays(row, k)[0 if number is None else 1]

        before: tuple[list[int], int | None] = [], None
        for number in numbers:
            some = np.flatnonzero(may[row, :number]).tolist()
            if some != before[0]:
                before = some, fit(made, some, drops[row], bounds[row], score)
            yield number, row, before[1]


def old_fits(validation: list[Group], test: list[Group], number: int) -> Array:
    """Which of the first so many candidates the rule before delivered in each fit, or -1."""
    bounds = np.concatenate([old_bounds(one) for one in validation], axis=1)[:, :number]
    lost = np.concatenate([one.drops for one in test], axis=1)[:, :number]
    kept = bounds <= BUDGET
    passes = kept & (kept.cumsum(axis=1) <= OLD_EVALUATIONS) & (lost <= BUDGET)
    found: Array = np.where(passes.any(axis=1), passes.argmax(axis=1), -1)
    return found


def old_bounds(group: Group) -> Array:
    """By Tango's interval for scores of 0 and 1, by mean + z standard errors for others; points."""
    z, (values, rows) = 1.6448536269514722, group.distinct()
    n = rows[0].sum()
    if set(values) <= {-1.0, 0.0, 1.0}:
        lost, won = ((rows * (values == sign)).sum(axis=1) for sign in (1.0, -1.0))
        low, high = (lost - won) / n, np.ones(len(rows))
        for _ in range(40):
            middle = (low + high) / 2
            b = -lost - won + (2 * n - lost + won) * middle
            c = -won * middle * (1 - middle)
            p = (np.sqrt(np.maximum(b * b - 8 * n * c, 0.0)) - b) / (4 * n)
            variance = n * (2 * p + middle * (1 - middle))
            above = (lost - won - n * middle) / np.sqrt(np.maximum(variance, 1e-30)) > -z
            low, high = np.where(above, middle, low), np.where(above, high, middle)
        found = high
    else:
        mean = rows @ values / n
        variance = np.maximum(rows @ values**2 / n - mean**2, 0.0) * n / (n - 1)
        found = mean + z * np.sqrt(variance / n)
    bounds: Array = 100 * found.reshape(group.counts.shape[:2])
    return bounds


def remembered() -> Callable[..., Array]:
    """`upper_bound`, which finds the bounds of the same samples once."""
    known: dict[Any, Array] = {}

    def bound(values: Array, counts: Array, greatest: float, confidence: float) -> Array:
        key = values.tobytes(), counts.tobytes(), greatest, confidence
        if key not in known:
            known[key] = upper_bound(values, counts, greatest, confidence)
        return known[key]

    return bound


def interval(hits: int, fits: int) -> tuple[float, float]:
    """Of a share, at 95 %."""
    sides = np.array([[fits - hits, hits], [hits, fits - hits]])
    high, missed = upper_bound(np.array([0.0, 1.0]), sides, 1.0, 0.975)
    return float(1 - missed), float(high)


def cell(kind: Scores, case: str, sizes: tuple[int, int], fits: int, seed: int) -> dict[str, Any]:
    """One row: a metric, a case and the numbers of samples."""
    rng = np.random.default_rng([seed, zlib.crc32(f"{kind.name} {case} {sizes}".encode())])
    scores = np.repeat(kind.original, np.maximum(1, np.round(sizes[0] * kind.shares).astype(int)))
    made = promise_of(BUDGET, CONFIDENCE, *sizes, Means(scores).least)
    row: dict[str, Any] = {
        "scores": kind.name, "case": case, "validation": sizes[0], "test": sizes[1],
        "certified by": made.certified_by, "fits": fits,
    }  # fmt: skip
    half = case == "half over"
    true = [(OVER, 32), (GOOD, 32)] if half else [(OVER, 64)]
    alike = 0.7 if case == "alike" else 0.0
    validation, test = (draw(kind, true, n, fits, alike, rng) for n in sizes)
    numbers = (64,) if half else NUMBERS
    over, good = dict.fromkeys(numbers, 0), 0
    for number, _, delivered in fits_by_number(made, validation, test, numbers):
        if delivered is not None:
            over[number] += delivered < true[0][1]
            good += half and delivered >= true[0][1]
    row |= {str(number): hits / fits for number, hits in over.items()}
    row["highest"] = max(over.values()), *interval(max(over.values()), fits)
    for number in (64,) if half else OLD:
        found = old_fits(validation, test, number)
        row[f"old {number}"] = float(((found >= 0) & (found < true[0][1])).mean())
    if half:
        row["good of half"] = good / fits
    elif case == "all over":
        for drop in (0.0, GOOD):
            validation, test = (draw(kind, [(drop, 1)], n, fits, 0.0, rng) for n in sizes)
            done = fits_by_number(made, validation, test, (1,))
            row[f"delivered {drop:g}"] = sum(one is not None for *_, one in done) / fits
    return row


def shown(row: dict[str, Any]) -> dict[str, str]:
    """A row as the table has it, shares in percent."""

    def joined(*names: str) -> str:
        return " / ".join(f"{100 * row[one]:.1f}" for one in names if one in row)

    _, low, high = row["highest"]
    samples = f"{row['validation']}, {row['test']}"
    if row["certified by"] == VALIDATION:
        samples = f"{row['validation']} certify, {row['test']}"
    return {
        "scores": row["scores"], "case": row["case"], "validation, test": samples,
        "old, 1 / 8 / 64": joined(*(f"old {k}" for k in OLD)),
        "now, 1 / 3 / 8 / 16 / 64": joined(*map(str, NUMBERS)),
        "highest": f"{100 * low:.1f} - {100 * high:.1f}",
        "good, delivered": joined("delivered 0", f"delivered {GOOD:g}", "good of half"),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fits", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    cells = [(kind, "all over", sizes) for kind in ALL for sizes in [*SIZES, *UNEQUAL]]
    cells += [(kind, case, n) for kind in ALL for case in ("alike", "half over") for n in MIXED]
    say, rows = progress("promise"), []
    for done, (kind, case, sizes) in enumerate(cells):
        say(f"{kind.name}, {case}, {sizes}", done / len(cells))
        with mock.patch("penjing.measure.scores.upper_bound", remembered()):
            rows.append(cell(kind, case, sizes, options.fits, options.seed))
    say("done", 1.0)
    cells_shown = [shown(row) for row in rows]
    print("\n" + table(cells_shown, list(cells_shown[0]), lambda _, value: value))
    worst = max(rows, key=lambda row: row["highest"][0])
    figures = shown(worst)["highest"]
    print(
        f"\n{len(rows)} rows of {options.fits} fits for each number of candidates; the highest "
        f"share over the budget is {100 * worst['highest'][0] / options.fits:.2f} % ({figures}): "
        f"{worst['scores']}, {worst['case']}, {worst['validation']} and {worst['test']} samples"
    )
    if options.json:
        options.json.write_text(json.dumps({"seed": options.seed, "rows": rows}, indent=1))


if __name__ == "__main__":
    main()
