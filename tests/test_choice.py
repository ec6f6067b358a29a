"""The choice, on thousands of random tables: what is chosen may be, and every sentence is true."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.passes import PruneChannels, Quantize, Tune
from penjing.report.table import rows
from penjing.search import recipes
from penjing.search.comparison import DISTURBED, told
from penjing.search.promise import Promise
from penjing.search.result import Candidate, Result, choose, with_pareto
from penjing.search.verdicts import verdicts

TABLES = 3000
ORIGINAL = Candidate(
    "original", (), "baseline", "",
    Measurement(
        file_bytes=1000, latency=Latency(1.0, 1.0, 1.0, 1.0, 1.0, 20),
        drop=Drop(0.0, 0.0, 0.95, 1000),
    ),
)  # fmt: skip
CUT = (PruneChannels(0.5), Tune())
KINDS = {"int8": (Quantize(),), "prune": CUT, "prune + int8": (*CUT, Quantize()), "original": ()}
Choose = Callable[[Candidate, Sequence[Candidate], str, float], tuple[Candidate, str]]


def _table(seed: int) -> Result:
    draw = random.Random(seed)
    max_drop = draw.choice([0.5, 1.0, 2.0])
    found = []
    for kind, recipe in KINDS.items():
        for runtime in ("onnxruntime", "twin", "third"):
            name = kind if runtime == "onnxruntime" else f"{kind} in {runtime}"
            if name != "original" and draw.random() < 0.5:
                steps = tuple(recipes.to_json(recipe))
                found.append(
                    _candidate(draw, Candidate(name, steps, "", runtime=runtime), max_drop)
                )
    draw.shuffle(found)
    goal = draw.choice(["latency", "latency", "size"])
    result = Result("t", "cpu", "m", goal, max_drop, 0.95, 0, {}, ORIGINAL, tuple(found))
    return replace(result, verdicts=verdicts(result))


def _candidate(draw: random.Random, one: Candidate, max_drop: float) -> Candidate:
    ratio = draw.choice([0.3, 0.5, 0.8, 0.97, 1.0, 1.1]) * draw.uniform(0.97, 1.03)
    wide = draw.random() < 0.3
    low, high = (draw.uniform(0.3, 1), draw.uniform(1, 2)) if wide else (0.98, 1.02)
    times = Latency(ratio, ratio, ratio, low * ratio, high * ratio, 20, draw.random() < 0.2)
    drop = draw.uniform(-0.5, 2.5)
    found = Measurement(
        file_bytes=draw.choice([200, 300, 300, 990, 1000, 1200]),
        latency=times,
        drop=Drop(drop, drop + draw.uniform(0, 1), 0.95, 1000),
    )
    what = draw.random()
    if what < 0.05:
        return replace(one, status="failed", reason="it can't be lowered")
    if what < 0.1:
        return replace(one, status="failed", reason="it can't run there", measurement=found)
    if what < 0.15:
        found = replace(found, drop=None)
        return replace(one, status="not tuned", reason="no time was left for it", measurement=found)
    assert found.drop is not None
    status, why = Promise(max_drop).judge(found.drop)
    if status == "kept" and what < 0.2:
        status, why = "over on test", f"lost 3.00 points on test, budget {max_drop:g}"
    if what > 0.95:
        found = replace(found, latency=None)
    return replace(one, status=status, reason=why, measurement=found)


def _eligible(one: Candidate, result: Result) -> bool:
    """By the definition, in words of its own."""
    m = one.measurement
    if one.status != "kept" or m.drop is None or m.drop.bound > result.max_drop:
        return False
    if result.goal == "size":
        return m.file_bytes < 1000
    return m.latency is not None and m.latency.ratio_high < 1 and not m.latency.disturbed


def _require_a_right_choice(result: Result, choosing: Choose = choose) -> None:
    best, reason = choosing(ORIGINAL, result.candidates, result.goal, result.max_drop)
    able = [one for one in result.candidates if _eligible(one, result)]
    assert (best is ORIGINAL) == (not able)
    if able:
        assert best in able
    for rival in able:
        if result.goal == "size":
            assert best.measurement.file_bytes <= rival.measurement.file_bytes
            continue
        mine, theirs = best.measurement.latency, rival.measurement.latency
        assert not theirs.ratio_high < mine.ratio_low
    if result.goal == "latency" and able:
        fastest = min(able, key=lambda one: one.measurement.latency.ratio)
        assert best is fastest or _is_tie(best, fastest)
        assert best.measurement.file_bytes <= fastest.measurement.file_bytes
    _require_true(reason, result, best, able)


def _is_tie(one: Candidate, other: Candidate) -> bool:
    a, b = one.measurement.latency, other.measurement.latency
    return (
        a.ratio_low / b.ratio_high <= 1 <= a.ratio_high / b.ratio_low
        and b.ratio_low <= a.ratio <= b.ratio_high
        and a.ratio_low <= b.ratio <= a.ratio_high
    )


def _require_true(reason: str, result: Result, best: Candidate, able: list[Candidate]) -> None:
    """What is said of the choice holds in the table."""
    kept = [one for one in result.candidates if one.status == "kept"]
    timed = [one.measurement.latency for one in kept]
    if match := re.fullmatch(r"the (fastest|smallest) of (\d+) that keep the budget", reason):
        assert int(match[2]) == len(kept)
        if match[1] == "smallest":
            assert all(best.measurement.file_bytes <= one.measurement.file_bytes for one in kept)
        else:
            assert all(one and not one.disturbed for one in timed)
            assert all(best.measurement.latency.ratio <= one.ratio for one in timed)
    elif match := re.fullmatch(
        r"the fastest of (\d+) that keep the budget and gain time beyond doubt", reason
    ):
        assert int(match[1]) == len(able)
        assert all(best.measurement.latency.ratio <= one.measurement.latency.ratio for one in able)
    elif match := re.fullmatch(
        r"the smallest of (\d+) whose latency can't be told from the fastest", reason
    ):
        fastest = min(able, key=lambda one: one.measurement.latency.ratio)
        ties = [one for one in able if one is fastest or _is_tie(one, fastest)]
        assert int(match[1]) == len(ties)
        assert all(best.measurement.file_bytes <= one.measurement.file_bytes for one in ties)
    elif match := re.fullmatch(
        r"no candidate that keeps the budget is (faster|smaller) than the original"
        r"(?: beyond doubt; (\d+) of (\d+) were disturbed while they were timed)?",
        reason,
    ):
        assert kept
        assert (match[1] == "smaller") == (result.goal == "size")
        assert not able
        if result.goal == "latency":
            disturbed = sum(one is not None and one.disturbed for one in timed)
            assert int(match[2] or 0) == disturbed
            assert int(match[3] or len(kept)) == len(kept)
    elif match := re.fullmatch(
        r"nothing keeps the budget of ([\d.]+) points; nearest is (.+): drop (-?[\d.]+), bound "
        r"(-?[\d.]+) on (\d+) validation samples(; more validation data.*)?",
        reason,
    ):
        assert not kept
        nearest = result.find(match[2])
        found = nearest.measurement.drop
        assert (match[3], match[4]) == (f"{found.drop:.2f}", f"{found.bound:.2f}")
        over = [one for one in result.candidates if one.status == "over budget"]
        assert all(found.bound <= one.measurement.drop.bound for one in over)
        m = nearest.measurement
        by_data_alone = found.drop <= result.max_drop < found.bound and (
            m.file_bytes < 1000
            if result.goal == "size"
            else m.latency and m.latency.ratio_high < 1 and not m.latency.disturbed
        )
        assert bool(match[6]) == bool(by_data_alone)
    else:
        assert reason in ("no candidate was finished", "nothing else keeps the budget")
        statuses = {one.status for one in result.candidates}
        assert not statuses & {"kept", "over budget"}
        assert ("over on test" in statuses) == (reason == "nothing else keeps the budget")


FIGURES = r"([\d.]+) of the time \(([\d.]+) - ([\d.]+)(, disturbed)?\)"


def _require_true_verdict(line: str, result: Result) -> None:
    if match := re.fullmatch(
        r"(.+) against (.+): ([-+][\d.]+) points(?: \(bound ([-+][\d.]+)\))?, " + FIGURES
        + r", ([\d.]+) of the bytes: (.+)",
        line,
    ):  # fmt: skip
        one, rival = result.find(match[1]), result.find(match[2])
        faster, slower = _require_figures(match.groups()[4:8], one, rival)
        a, b = one.measurement, rival.measurement
        assert match[3] == f"{b.drop.drop - a.drop.drop:+.2f}"
        assert match[9] == f"{a.file_bytes / b.file_bytes:.3f}"
        _require_true_conclusion(match[10], one, rival, faster, slower)
    elif match := re.fullmatch(
        r"(.+), the fastest integer file that keeps the budget, takes " + FIGURES
        + r" of (.+), the fastest float file: integers (gain little here|pay)",
        line,
    ):  # fmt: skip
        one, rival = result.find(match[1]), result.find(match[6])
        faster, _ = _require_figures(match.groups()[1:5], one, rival)
        able = [
            other for other in result.everything
            if other.status in ("kept", "baseline") and (times := other.measurement.latency)
            and not times.disturbed
        ]  # fmt: skip
        for file, integer in ((one, True), (rival, False)):
            assert file in able
            same = [other for other in able if ("int8" in other.name) is integer]
            least = min(other.measurement.latency.ratio for other in same)
            assert file.measurement.latency.ratio == least
        ratio = one.measurement.latency.ratio / rival.measurement.latency.ratio
        assert (match[7] == "pay") == (faster and ratio <= 0.9)
    else:
        match = re.fullmatch(r"(\w+): no verdict; (.+?): (.+)", line)
        assert match, line
        named = result.find(match[2])
        assert match[3] == (named.reason or named.status)


def _require_figures(
    told_figures: Sequence[str | None], one: Candidate, rival: Candidate
) -> tuple[bool, bool]:
    """The figures are these two files'; whether the one is faster, or slower, beyond doubt."""
    a, b = one.measurement.latency, rival.measurement.latency
    low, high = a.ratio_low / b.ratio_high, a.ratio_high / b.ratio_low
    wanted = (f"{a.ratio / b.ratio:.3f}", f"{low:.3f}", f"{high:.3f}")
    assert tuple(told_figures[:3]) == wanted
    disturbed = a.disturbed or b.disturbed
    assert bool(told_figures[3]) == disturbed
    return high < 1 and not disturbed, low > 1 and not disturbed


def _require_true_conclusion(
    text: str, one: Candidate, rival: Candidate, faster: bool, slower: bool
) -> None:
    smaller = one.measurement.file_bytes < rival.measurement.file_bytes
    disturbed = one.measurement.latency.disturbed or rival.measurement.latency.disturbed
    kept = one.status == "kept"
    if match := re.fullmatch(r"(faster|smaller|no gain), but (.+) is (.+) already", text):
        assert (match[2], match[3]) == (rival.name, rival.status)
        assert one.status == rival.status != "kept"
        assert {"faster": faster, "smaller": smaller, "no gain": not faster and not smaller}[
            match[1]
        ]
    elif text.startswith("not worth it: neither"):
        assert kept
        assert not faster
        assert not smaller
    elif text.startswith("not worth it"):
        assert text == f"not worth it: {one.status}"
        assert not kept
    elif text == "pays: faster, and keeps the budget":
        assert kept
        assert faster
    elif match := re.fullmatch(r"(not smaller|smaller); whether it is faster, other load.*", text):
        assert disturbed
        assert smaller == (match[1] == "smaller")
    else:
        match = re.fullmatch(r"smaller but not faster(, it is slower)?", text)
        assert match, text
        assert smaller
        assert not faster
        assert bool(match[1]) == slower


def _require_true_reason(text: str, one: Candidate, rival: Candidate) -> None:
    """What is said of a file beside a rival quotes its own figures, and rightly."""
    a, b = one.measurement.latency, rival.measurement.latency
    if a.disturbed:
        assert text == DISTURBED
        return
    if b.disturbed:
        assert text == f"not compared with {rival.name}, which was disturbed by other load"
        return
    match = re.fullmatch(
        rf"(.+) than {re.escape(rival.name)}(| beyond doubt): ([\d.]+) of its time "
        r"\(([\d.]+) - ([\d.]+)\)",
        text,
    )
    assert match, text
    faster, slower = _require_figures([*match.groups()[2:], None], one, rival)
    wanted = "faster" if faster else "slower" if slower else "neither faster nor slower"
    assert match[1] == wanted


@pytest.mark.parametrize("start", range(0, TABLES, TABLES // 10))
def test_what_is_chosen_may_be_and_every_sentence_is_true(start: int) -> None:
    for seed in range(start, start + TABLES // 10):
        result = _table(seed)
        _require_a_right_choice(result)
        for line in result.verdicts:
            _require_true_verdict(line, result)
        timed = [one for one in result.everything if one.measurement.latency]
        for one in timed:
            for rival in timed:
                text = told(one.measurement.latency, rival.measurement.latency, rival.name)
                _require_true_reason(text, one, rival)


def test_a_row_says_that_its_figure_is_disturbed_and_it_is_on_no_front() -> None:
    for seed in range(200):
        result = _table(seed)
        disturbed = {
            one.name for one in result.everything
            if one.measurement.latency and one.measurement.latency.disturbed
        }  # fmt: skip
        assert {row[0] for row in rows(result) if row[-1].endswith(", disturbed")} == disturbed
        front = {one.name for one in with_pareto(result.everything) if one.pareto}
        assert not front & disturbed


def _by_the_fastest_ones_interval(
    baseline: Candidate, candidates: Sequence[Candidate], goal: str, max_drop: float
) -> tuple[Candidate, str]:
    """A rule that looks right: whatever is faster than the original, and ties by the fastest one's
    own interval."""
    kept = [one for one in candidates if one.status == "kept" and one.measurement.latency]
    fast = [one for one in kept if one.measurement.latency.verdict == "faster"]
    if not fast:
        return choose(baseline, candidates, goal, max_drop)
    limit = min(fast, key=lambda one: one.measurement.latency.ratio).measurement.latency.ratio_high
    ties = [one for one in fast if one.measurement.latency.ratio <= limit]
    best = min(ties, key=lambda one: one.measurement.file_bytes)
    return best, f"the smallest of {len(ties)} whose latency can't be told from the fastest"


def test_these_tables_tell_a_wrong_rule() -> None:
    wrong = 0
    tables = [one for one in map(_table, range(500)) if one.goal == "latency"]
    for result in tables:
        try:
            _require_a_right_choice(result, _by_the_fastest_ones_interval)
        except AssertionError:
            wrong += 1
    assert wrong > len(tables) // 10


def test_a_wide_interval_makes_no_tie() -> None:
    def candidate(name: str, ratio: float, low: float, high: float, size: int) -> Candidate:
        times = Latency(ratio, ratio, ratio, low, high, 20)
        found = Measurement(file_bytes=size, latency=times, drop=Drop(0.0, 0.1, 0.95, 1000))
        return Candidate(name, (), "kept", "", found)

    wide, narrow = candidate("wide", 0.5, 0.4, 0.95, 500), candidate("slow", 0.94, 0.92, 0.96, 100)
    best, _ = choose(ORIGINAL, [narrow, wide], "latency", 1.0)
    assert best is wide
