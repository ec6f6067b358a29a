"""The choice: the budget first, then the goal, and ties go to the smaller file. And on thousands of
random tables: what is chosen may be, and every sentence is true."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.passes import PruneChannels, Quantize, Tune
from penjing.report.table import rows
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.choice import choose, with_pareto
from penjing.trials.judgement.comparison import DISTURBED, told
from penjing.trials.judgement.promise import Promise
from penjing.trials.judgement.verdicts import verdicts
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial
from tests import fits

TABLES = 3000
ORIGINAL = fits.trial(
    "original", (), "baseline", "",
    Measurement(
        file_bytes=1000, latency=Latency(1.0, 1.0, 1.0, 1.0, 1.0, 20),
        drop=Drop(0.0, 0.0, 0.95, 1000),
    ),
)  # fmt: skip
CUT = (PruneChannels(0.5), Tune())
KINDS = {"int8": (Quantize(),), "prune": CUT, "prune + int8": (*CUT, Quantize()), "original": ()}
Choose = Callable[[Trial, Sequence[Trial], str, float], tuple[Trial, str]]


def _measured(
    title: str, ratio: float, drop: float = 0.0, kb: float = 100, status: str = "kept"
) -> Trial:
    times = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20)
    lost = Drop(drop, drop + 0.2, 0.95, 1000)
    figures = Measurement(file_bytes=int(kb * 1000), latency=times, drop=lost)
    return fits.trial(title, (), status, "", figures)


@pytest.mark.parametrize(
    ("trials", "goal", "chosen", "why"),
    [
        ([], "latency", "original", "no candidate was finished"),
        ([_measured("a", 0.5, 3.0, status="over budget")], "latency", "original",
         "nearest is a: drop 3.00, bound 3.20"),
        ([_measured("a", 0.5, 0.9, status="over budget")], "latency", "original",
         "more validation data"),
        ([_measured("a", 0.99)], "latency", "original", "is faster than the original"),
        ([_measured("a", 0.5), _measured("b", 0.6)], "latency", "a", "fastest of 2"),
        ([_measured("a", 0.5), _measured("b", 0.4, status="over budget")], "latency", "a",
         "fastest of 1"),
        ([_measured("a", 0.5), _measured("b", 0.505, kb=50)], "latency", "b",
         "can't be told from the fastest"),
        ([_measured("a", 0.5, kb=90), _measured("b", 0.9, kb=50)], "size", "b", "smallest of 2"),
        ([_measured("a", 0.5, kb=2000)], "size", "original", "is smaller than the original"),
    ],
)  # fmt: skip
def test_choose(trials: list[Trial], goal: str, chosen: str, why: str) -> None:
    original = _measured("original", 1.0, kb=1000, status="baseline")
    best, reason = choose(original, trials, goal, 1.0)
    assert best.title == chosen
    assert why in reason


def test_the_pareto_front_has_no_candidate_that_another_beats() -> None:
    trials = [
        _measured("original", 1.0, status="baseline"),
        _measured("fast", 0.3, 2.0),
        _measured("small", 0.8, 0.5, kb=20),
        _measured("beaten", 0.4, 2.5),
        fits.trial("unmeasured", (), "failed"),
    ]
    front = [marked.title for marked in with_pareto(trials) if marked.pareto]
    assert front == ["original", "fast", "small"]


def _latency(trial: Trial) -> Latency:
    assert trial.latency is not None
    return trial.latency


def _drop(trial: Trial) -> Drop:
    assert trial.drop is not None
    return trial.drop


def _bytes(trial: Trial) -> int:
    assert trial.measurement.file_bytes is not None
    return trial.measurement.file_bytes


def _table(seed: int) -> Result:
    draw = random.Random(seed)
    max_drop = draw.choice([0.5, 1.0, 2.0])
    trials = []
    for kind, recipe in KINDS.items():
        for runtime in ("onnxruntime", "twin", "third"):
            title = kind if runtime == "onnxruntime" else f"{kind} in {runtime}"
            if title != "original" and draw.random() < 0.5:
                candidate = Candidate.of(recipe, runtime)
                trials.append(_drawn(draw, Trial(candidate, title, Status.KEPT), max_drop))
    draw.shuffle(trials)
    goal = draw.choice(["latency", "latency", "size"])
    result = Result("t", "cpu", "m", goal, max_drop, 0.95, 0, {}, ORIGINAL, tuple(trials))
    return replace(result, verdicts=verdicts(result))


def _drawn(draw: random.Random, plain: Trial, max_drop: float) -> Trial:
    ratio = draw.choice([0.3, 0.5, 0.8, 0.97, 1.0, 1.1]) * draw.uniform(0.97, 1.03)
    wide = draw.random() < 0.3
    low, high = (draw.uniform(0.3, 1), draw.uniform(1, 2)) if wide else (0.98, 1.02)
    times = Latency(ratio, ratio, ratio, low * ratio, high * ratio, 20, draw.random() < 0.2)
    points = draw.uniform(-0.5, 2.5)
    size = draw.choice([200, 300, 300, 990, 1000, 1200])
    lost = Drop(points, points + draw.uniform(0, 1), 0.95, 1000)
    figures = Measurement(file_bytes=size, latency=times, drop=lost)
    what = draw.random()
    if what < 0.05:
        return replace(plain, status=Status.FAILED, reason="it can't be lowered")
    if what < 0.1:
        why = "it can't run there"
        return replace(plain, status=Status.FAILED, reason=why, measurement=figures)
    if what < 0.15:
        figures, why = replace(figures, drop=None), "no time was left for it"
        return replace(plain, status=Status.NOT_TUNED, reason=why, measurement=figures)
    status, why = Promise(max_drop).judge(lost)
    if status == "kept" and what < 0.2:
        status, why = "over on test", f"lost 3.00 points on test, budget {max_drop:g}"
    if what > 0.95:
        figures = replace(figures, latency=None)
    return replace(plain, status=Status(status), reason=why, measurement=figures)


def _eligible(trial: Trial, result: Result) -> bool:
    """By the definition, in words of its own."""
    m = trial.measurement
    if trial.status != "kept" or m.drop is None or m.drop.bound > result.max_drop:
        return False
    if result.goal == "size":
        return _bytes(trial) < 1000
    return m.latency is not None and m.latency.ratio_high < 1 and not m.latency.disturbed


def _require_a_right_choice(result: Result, choosing: Choose = choose) -> None:
    best, reason = choosing(ORIGINAL, result.trials, result.goal, result.max_drop)
    able = [trial for trial in result.trials if _eligible(trial, result)]
    assert (best is ORIGINAL) == (not able)
    if able:
        assert best in able
    for rival in able:
        if result.goal == "size":
            assert _bytes(best) <= _bytes(rival)
            continue
        assert not _latency(rival).ratio_high < _latency(best).ratio_low
    if result.goal == "latency" and able:
        fastest = min(able, key=lambda trial: _latency(trial).ratio)
        assert best is fastest or _is_tie(best, fastest)
        assert _bytes(best) <= _bytes(fastest)
    _require_true(reason, result, best, able)


def _is_tie(trial: Trial, other: Trial) -> bool:
    a, b = _latency(trial), _latency(other)
    return (
        a.ratio_low / b.ratio_high <= 1 <= a.ratio_high / b.ratio_low
        and b.ratio_low <= a.ratio <= b.ratio_high
        and a.ratio_low <= b.ratio <= a.ratio_high
    )


def _least_bytes(trials: Sequence[Trial]) -> int:
    return min(map(_bytes, trials))


def _require_true(reason: str, result: Result, best: Trial, able: list[Trial]) -> None:
    """What is said of the choice holds in the table."""
    kept = [trial for trial in result.trials if trial.status == "kept"]
    timed = [trial.latency for trial in kept]
    if match := re.fullmatch(r"the (fastest|smallest) of (\d+) that keep the budget", reason):
        assert int(match[2]) == len(kept)
        if match[1] == "smallest":
            assert _bytes(best) <= _least_bytes(kept)
        else:
            assert all(times and not times.disturbed for times in timed)
            assert all(_latency(best).ratio <= _latency(trial).ratio for trial in kept)
    elif match := re.fullmatch(
        r"the fastest of (\d+) that keep the budget and gain time beyond doubt", reason
    ):
        assert int(match[1]) == len(able)
        assert all(_latency(best).ratio <= _latency(trial).ratio for trial in able)
    elif match := re.fullmatch(
        r"the smallest of (\d+) whose latency can't be told from the fastest", reason
    ):
        fastest = min(able, key=lambda trial: _latency(trial).ratio)
        ties = [trial for trial in able if trial is fastest or _is_tie(trial, fastest)]
        assert int(match[1]) == len(ties)
        assert _bytes(best) <= _least_bytes(ties)
    elif match := re.fullmatch(
        r"no candidate that keeps the budget is (faster|smaller) than the original"
        r"(?: beyond doubt; (\d+) of (\d+) were disturbed while they were timed)?",
        reason,
    ):
        assert kept
        assert (match[1] == "smaller") == (result.goal == "size")
        assert not able
        if result.goal == "latency":
            disturbed = sum(times is not None and times.disturbed for times in timed)
            assert int(match[2] or 0) == disturbed
            assert int(match[3] or len(kept)) == len(kept)
    elif match := re.fullmatch(
        r"nothing keeps the budget of ([\d.]+) points; nearest is (.+): drop (-?[\d.]+), bound "
        r"(-?[\d.]+) on (\d+) validation samples(; more validation data.*)?",
        reason,
    ):
        assert not kept
        nearest = result.find(match[2])
        drop = _drop(nearest)
        assert (match[3], match[4]) == (f"{drop.drop:.2f}", f"{drop.bound:.2f}")
        over = [trial for trial in result.trials if trial.status == "over budget"]
        assert all(drop.bound <= _drop(trial).bound for trial in over)
        m = nearest.measurement
        by_data_alone = drop.drop <= result.max_drop < drop.bound and (
            _bytes(nearest) < 1000
            if result.goal == "size"
            else m.latency and m.latency.ratio_high < 1 and not m.latency.disturbed
        )
        assert bool(match[6]) == bool(by_data_alone)
    else:
        assert reason in ("no candidate was finished", "nothing else keeps the budget")
        statuses = {trial.status for trial in result.trials}
        assert not statuses & {"kept", "over budget"}
        assert ("over on test" in statuses) == (reason == "nothing else keeps the budget")


FIGURES = r"([\d.]+) of the time \(([\d.]+) - ([\d.]+)(, disturbed)?\)"


def _require_true_verdict(line: str, result: Result) -> None:
    if match := re.fullmatch(
        r"(.+) against (.+): ([-+][\d.]+) points(?: \(bound ([-+][\d.]+)\))?, " + FIGURES
        + r", ([\d.]+) of the bytes: (.+)",
        line,
    ):  # fmt: skip
        trial, rival = result.find(match[1]), result.find(match[2])
        faster, slower = _require_figures(match.groups()[4:8], trial, rival)
        assert match[3] == f"{_drop(rival).drop - _drop(trial).drop:+.2f}"
        assert match[9] == f"{_bytes(trial) / _bytes(rival):.3f}"
        _require_true_conclusion(match[10], trial, rival, faster, slower)
    elif match := re.fullmatch(
        r"(.+), the fastest integer file that keeps the budget, takes " + FIGURES
        + r" of (.+), the fastest float file: integers (gain little here|pay)",
        line,
    ):  # fmt: skip
        trial, rival = result.find(match[1]), result.find(match[6])
        faster, _ = _require_figures(match.groups()[1:5], trial, rival)
        able = [
            other for other in result.everything
            if other.status in ("kept", "baseline") and (times := other.latency)
            and not times.disturbed
        ]  # fmt: skip
        for file, integer in ((trial, True), (rival, False)):
            assert file in able
            same = [other for other in able if ("int8" in other.title) is integer]
            least = min(_latency(other).ratio for other in same)
            assert _latency(file).ratio == least
        ratio = _latency(trial).ratio / _latency(rival).ratio
        assert (match[7] == "pay") == (faster and ratio <= 0.9)
    else:
        match = re.fullmatch(r"(\w+): no verdict; (.+?): (.+)", line)
        assert match, line
        named = result.find(match[2])
        assert match[3] == (named.reason or named.status)


def _require_figures(
    told_figures: Sequence[str | None], trial: Trial, rival: Trial
) -> tuple[bool, bool]:
    """The figures are these two files'; whether the one is faster, or slower, beyond doubt."""
    a, b = _latency(trial), _latency(rival)
    low, high = a.ratio_low / b.ratio_high, a.ratio_high / b.ratio_low
    wanted = (f"{a.ratio / b.ratio:.3f}", f"{low:.3f}", f"{high:.3f}")
    assert tuple(told_figures[:3]) == wanted
    disturbed = a.disturbed or b.disturbed
    assert bool(told_figures[3]) == disturbed
    return high < 1 and not disturbed, low > 1 and not disturbed


def _require_true_conclusion(
    text: str, trial: Trial, rival: Trial, faster: bool, slower: bool
) -> None:
    smaller = _bytes(trial) < _bytes(rival)
    disturbed = _latency(trial).disturbed or _latency(rival).disturbed
    kept = trial.status == "kept"
    if match := re.fullmatch(r"(faster|smaller|no gain), but (.+) is (.+) already", text):
        assert (match[2], match[3]) == (rival.title, rival.status)
        assert trial.status == rival.status != "kept"
        assert {"faster": faster, "smaller": smaller, "no gain": not faster and not smaller}[
            match[1]
        ]
    elif text.startswith("not worth it: neither"):
        assert kept
        assert not faster
        assert not smaller
    elif text.startswith("not worth it"):
        assert text == f"not worth it: {trial.status}"
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


def _require_true_reason(text: str, trial: Trial, rival: Trial) -> None:
    """What is said of a file beside a rival quotes its own figures, and rightly."""
    a, b = _latency(trial), _latency(rival)
    if a.disturbed:
        assert text == DISTURBED
        return
    if b.disturbed:
        assert text == f"not compared with {rival.title}, which was disturbed by other load"
        return
    match = re.fullmatch(
        rf"(.+) than {re.escape(rival.title)}(| beyond doubt): ([\d.]+) of its time "
        r"\(([\d.]+) - ([\d.]+)\)",
        text,
    )
    assert match, text
    faster, slower = _require_figures([*match.groups()[2:], None], trial, rival)
    wanted = "faster" if faster else "slower" if slower else "neither faster nor slower"
    assert match[1] == wanted


@pytest.mark.parametrize("start", range(0, TABLES, TABLES // 10))
def test_what_is_chosen_may_be_and_every_sentence_is_true(start: int) -> None:
    for seed in range(start, start + TABLES // 10):
        result = _table(seed)
        _require_a_right_choice(result)
        for line in result.verdicts:
            _require_true_verdict(line, result)
        timed = [trial for trial in result.everything if trial.latency]
        for trial in timed:
            for rival in timed:
                text = told(_latency(trial), _latency(rival), rival.title)
                _require_true_reason(text, trial, rival)


def test_a_row_says_that_its_figure_is_disturbed_and_it_is_on_no_front() -> None:
    for seed in range(200):
        result = _table(seed)
        disturbed = {
            trial.title for trial in result.everything
            if trial.latency and trial.latency.disturbed
        }  # fmt: skip
        assert {row[0] for row in rows(result) if row[-1].endswith(", disturbed")} == disturbed
        front = {trial.title for trial in with_pareto(result.everything) if trial.pareto}
        assert not front & disturbed


def _by_the_fastest_ones_interval(
    baseline: Trial, trials: Sequence[Trial], goal: str, max_drop: float
) -> tuple[Trial, str]:
    """A rule that looks right: whatever is faster than the original, and ties by the fastest one's
    own interval."""
    kept = [trial for trial in trials if trial.status == "kept" and trial.latency]
    fast = [trial for trial in kept if _latency(trial).verdict == "faster"]
    if not fast:
        return choose(baseline, trials, goal, max_drop)
    limit = _latency(min(fast, key=lambda trial: _latency(trial).ratio)).ratio_high
    ties = [trial for trial in fast if _latency(trial).ratio <= limit]
    best = min(ties, key=_bytes)
    return best, f"the smallest of {len(ties)} whose latency can't be told from the fastest"


def test_these_tables_tell_a_wrong_rule() -> None:
    wrong = 0
    tables = [table for table in map(_table, range(500)) if table.goal == "latency"]
    for result in tables:
        try:
            _require_a_right_choice(result, _by_the_fastest_ones_interval)
        except AssertionError:
            wrong += 1
    assert wrong > len(tables) // 10


def test_a_wide_interval_makes_no_tie() -> None:
    def measured(title: str, ratio: float, low: float, high: float, size: int) -> Trial:
        times = Latency(ratio, ratio, ratio, low, high, 20)
        figures = Measurement(file_bytes=size, latency=times, drop=Drop(0.0, 0.1, 0.95, 1000))
        return fits.trial(title, (), "kept", "", figures)

    wide, narrow = measured("wide", 0.5, 0.4, 0.95, 500), measured("slow", 0.94, 0.92, 0.96, 100)
    best, _ = choose(ORIGINAL, [narrow, wide], "latency", 1.0)
    assert best is wide
