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
from penjing.trials.judgement.aim import Aim
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
Choose = Callable[[Trial, Sequence[Trial], Aim], tuple[Trial, str]]


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
         "nearest is a, which on 1000 validation samples loses 3.00 points, and with 95 % "
         "confidence at most 3.20"),
        ([_measured("a", 0.5, 0.9, status="over budget")], "latency", "original",
         "more validation data"),
        ([_measured("a", 0.99)], "latency", "original", "is faster than the original"),
        ([_measured("a", 0.5), _measured("b", 0.6)], "latency", "a", "fastest of 2"),
        ([_measured("a", 0.5), _measured("b", 0.4, status="over budget")], "latency", "a",
         "only candidate that keeps the budget"),
        ([_measured("a", 0.5), _measured("b", 0.505, kb=50)], "latency", "b",
         "that are equally fast"),
        ([_measured("a", 0.5, kb=90), _measured("b", 0.9, kb=50)], "size", "b", "smallest of 2"),
        ([_measured("a", 0.5, kb=2000)], "size", "original", "is smaller than the original"),
    ],
)  # fmt: skip
def test_choose(trials: list[Trial], goal: str, chosen: str, why: str) -> None:
    original = _measured("original", 1.0, kb=1000, status="baseline")
    best, reason = choose(original, trials, Aim(goal))
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
    if draw.random() < 0.3:
        max_ms, max_kb = draw.choice([None, 0.6, 0.9]), draw.choice([None, 0.25, 0.5])
        result = replace(result, max_ms=max_ms, max_kb=max_kb)
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
        status, why = "over on test", f"loses 3.00 points on test, and the budget is {max_drop:g}"
    if what > 0.95:
        figures = replace(figures, latency=None)
    return replace(plain, status=Status(status), reason=why, measurement=figures)


def _is_too_much(trial: Trial, result: Result) -> bool:
    times, size = trial.latency, trial.measurement.file_bytes
    slow = result.max_ms is not None and (
        times is None or times.disturbed or times.latency_ms > result.max_ms
    )
    large = size is not None and result.max_kb is not None and size > 1000 * result.max_kb
    return slow or large


def _eligible(trial: Trial, result: Result) -> bool:
    """By the definition, in words of its own."""
    m = trial.measurement
    if trial.status != "kept" or m.drop is None or m.drop.bound > result.max_drop:
        return False
    if _is_too_much(trial, result):
        return False
    is_known = m.latency is not None and not m.latency.disturbed
    if _is_too_much(ORIGINAL, result):
        return result.goal == "size" or is_known
    if result.goal == "size":
        return _bytes(trial) < 1000
    return m.latency is not None and m.latency.ratio_high < 1 and not m.latency.disturbed


def _require_it_in_spite_of_load(result: Result, best: Trial, reason: str) -> None:
    """A choice where all are disturbed: the fastest of those that are faster by a wide margin."""
    kept = [t for t in result.trials if t.status == "kept" and not _is_too_much(t, result)]
    sure = [trial for trial in kept if trial.latency and trial.latency.ratio_high < 0.8]
    assert sure
    assert result.goal == "latency"
    assert not _is_too_much(ORIGINAL, result)
    assert all(_latency(trial).disturbed for trial in sure)
    assert _latency(best).ratio == min(_latency(trial).ratio for trial in sure)
    assert reason.endswith(
        "far faster than the original, though other programs disturbed the timing of all"
    )


def _require_a_right_choice(result: Result, choosing: Choose = choose) -> None:
    best, reason = choosing(ORIGINAL, result.trials, result.aim)
    able = [trial for trial in result.trials if _eligible(trial, result)]
    if not able and best is not ORIGINAL:
        _require_it_in_spite_of_load(result, best, reason)
        return
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
    if not _is_beyond_limits(reason, result):
        _require_true(_without_limits(reason, result), result, best, able)


def _is_tie(trial: Trial, other: Trial) -> bool:
    a, b = _latency(trial), _latency(other)
    return (
        a.ratio_low / b.ratio_high <= 1 <= a.ratio_high / b.ratio_low
        and b.ratio_low <= a.ratio <= b.ratio_high
        and a.ratio_low <= b.ratio <= a.ratio_high
    )


def _least_bytes(trials: Sequence[Trial]) -> int:
    return min(map(_bytes, trials))


def _without_limits(reason: str, result: Result) -> str:
    """The reason as it would be without limits; that there are any is true."""
    if "and the limits" in reason:
        assert result.max_ms or result.max_kb
        reason = reason.replace("the budget and the limits", "the budget")
    if "a reliable time" in reason:
        assert _is_too_much(ORIGINAL, result)
        reason = reason.replace("have a reliable time", "are clearly faster than the original")
        reason = reason.replace("has a reliable time", "is clearly faster than the original")
    return reason


def _is_beyond_limits(reason: str, result: Result) -> bool:
    """Whether the reason is that limits are exceeded, and all that is said of that is true."""
    match = re.fullmatch(
        r"no candidate that keeps the budget keeps the other limits; the nearest is (.+), which .*",
        reason,
    )
    if match:
        kept = [trial for trial in result.trials if trial.status == "kept"]
        assert kept
        assert all(_is_too_much(trial, result) for trial in kept)
        assert _is_too_much(result.find(match[1]), result)
    return bool(match)


def _require_true(reason: str, result: Result, best: Trial, able: list[Trial]) -> None:
    """What is said of the choice holds in the table."""
    every_kept = [trial for trial in result.trials if trial.status == "kept"]
    kept = [trial for trial in every_kept if not _is_too_much(trial, result)]
    timed = [trial.latency for trial in kept]
    if reason == "it is the only candidate that keeps the budget":
        assert kept == able == [best]
    elif match := re.fullmatch(
        r"it is the (fastest|smallest) of (\d+) candidates that keep the budget", reason
    ):
        assert int(match[2]) == len(kept) > 1
        if match[1] == "smallest":
            assert _bytes(best) <= _least_bytes(kept)
        else:
            assert all(times and not times.disturbed for times in timed)
            assert all(_latency(best).ratio <= _latency(trial).ratio for trial in kept)
    elif reason == (
        "it is the only candidate that keeps the budget and is clearly faster than the original"
    ):
        assert able == [best]
        assert len(kept) > 1
    elif match := re.fullmatch(
        r"it is the fastest of (\d+) candidates that keep the budget and are clearly faster than "
        r"the original",
        reason,
    ):
        assert int(match[1]) == len(able) > 1
        assert all(_latency(best).ratio <= _latency(trial).ratio for trial in able)
    elif match := re.fullmatch(
        r"it is the smallest of (\d+) candidates that are equally fast", reason
    ):
        fastest = min(able, key=lambda trial: _latency(trial).ratio)
        ties = [trial for trial in able if trial is fastest or _is_tie(trial, fastest)]
        assert int(match[1]) == len(ties)
        assert _bytes(best) <= _least_bytes(ties)
    elif match := re.fullmatch(
        r"no candidate that keeps the budget is (?:clearly )?(faster|smaller) than the original"
        r"(?:; (?:its timing|the timing of (?:all|(\d+) of these) (\d+)) is unreliable, because "
        r"other programs were running)?",
        reason,
    ):
        assert kept
        assert (match[1] == "smaller") == (result.goal == "size")
        assert not able
        if result.goal == "latency":
            disturbed = sum(times is not None and times.disturbed for times in timed)
            every = len(kept) if "unreliable" in reason else 0
            assert int(match[2] or every) == disturbed
            assert int(match[3] or len(kept)) == len(kept)
    elif match := re.fullmatch(
        r"no candidate keeps the budget of [\d.]+ points?; the nearest is (.+), which on (\d+) "
        r"validation samples (.*?)(; more validation data.*)?",
        reason,
    ):
        assert not every_kept
        nearest = result.find(match[1])
        drop = _drop(nearest)
        assert (int(match[2]), match[3]) == (drop.samples, _lost(drop))
        over = [trial for trial in result.trials if trial.status == "over budget"]
        assert all(drop.bound <= _drop(trial).bound for trial in over)
        m = nearest.measurement
        by_data_alone = drop.drop <= result.max_drop < drop.bound and (
            _bytes(nearest) < 1000
            if result.goal == "size"
            else m.latency and m.latency.ratio_high < 1 and not m.latency.disturbed
        )
        assert bool(match[4]) == bool(by_data_alone)
    else:
        assert reason in ("no candidate was finished", "no other candidate keeps the budget")
        statuses = {trial.status for trial in result.trials}
        assert not statuses & {"kept", "over budget"}
        assert ("over on test" in statuses) == (reason == "no other candidate keeps the budget")


def _lost(drop: Drop) -> str:
    """A drop in words, by the definition."""
    if drop.bound < 0:
        return f"gains {-drop.drop:.2f} points, and with 95 % confidence at least {-drop.bound:.2f}"
    lost = f"with 95 % confidence {'loses ' if drop.drop < 0 else ''}at most {drop.bound:.2f}"
    return f"{'gains' if drop.drop < 0 else 'loses'} {abs(drop.drop):.2f} points, and {lost}"


TIME = r"takes ([\d.]+) (of the time|times as long)(?: (?:of|as) (.+?))? \(([\d.]+) to ([\d.]+)\)"
SIZE = (
    r"is ([\d.]+) times smaller|is ([\d.]+) times as large|is ([\d.]+) % (smaller|larger)"
    r"|has .*size"
)


def _require_true_verdict(line: str, result: Result) -> None:
    if match := re.fullmatch(
        rf"(?P<trial>.+), compared with (?:the )?(?P<rival>.+): (?:(?P<time>{TIME}), )?"
        rf"(?P<size>{SIZE}) and (?P<score>(?:has|loses|gains) .+?accuracy)"
        r"(?P<bound> \((?:and loses )?at most [\d.]+(?: points)?\))?\."
        r"(?P<unsure> The timing is unreliable, because other programs were running\.)?"
        r" (?P<end>.+)\.",
        line,
    ):  # fmt: skip
        title = match["rival"].removesuffix(" in onnxruntime")
        trial = result.find(match["trial"])
        rival = ORIGINAL if title == "original" else result.find(match["rival"])
        faster, slower, disturbed = _beside(trial, rival)
        assert (match["time"] is None) == disturbed == (match["unsure"] is not None)
        if match["time"]:
            _require_time(match["time"], trial, rival)
        _require_size(match["size"], _bytes(trial) / _bytes(rival))
        gain = _drop(rival).drop - _drop(trial).drop
        _require_score(match["score"], gain)
        if match["bound"]:
            assert rival is ORIGINAL
            assert f"{_drop(trial).bound:.2f}" in match["bound"]
        _require_true_conclusion(match["end"], trial, rival, (faster, slower, disturbed))
    elif match := re.fullmatch(
        r"Integers (gain little|are worth it) here: (.+), the fastest integer file that keeps the "
        r"budget, (takes .+?\)), compared with (.+), the fastest float file\.",
        line,
    ):
        trial = result.find(match[2])
        rival = ORIGINAL if match[4].startswith("original in onnx") else result.find(match[4])
        _require_time(match[3], trial, rival)
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
        assert (match[1] == "are worth it") == (_beside(trial, rival)[0] and ratio <= 0.9)
    else:
        match = re.fullmatch(r"Nothing can be said about \w+: (.+)\.", line)
        assert match, line
        assert match[1] in {
            f"{trial.title} {trial.status.words}{f' ({trial.reason})' if trial.reason else ''}"
            for trial in result.trials
        }


def _beside(trial: Trial, rival: Trial) -> tuple[bool, bool, bool]:
    """Whether the one is faster beyond doubt, or slower; and whether that can't be told."""
    low, high = _interval(trial, rival)
    disturbed = _latency(trial).disturbed or _latency(rival).disturbed
    return high < 1 and not disturbed, low > 1 and not disturbed, disturbed


def _interval(trial: Trial, rival: Trial) -> tuple[float, float]:
    a, b = _latency(trial), _latency(rival)
    return a.ratio_low / b.ratio_high, a.ratio_high / b.ratio_low


def _require_time(text: str, trial: Trial, rival: Trial) -> None:
    """The figures are these two files'."""
    match = re.fullmatch(TIME, text)
    assert match, text
    ratio = _latency(trial).ratio / _latency(rival).ratio
    for said, figure in zip(match.group(1, 4, 5), (ratio, *_interval(trial, rival)), strict=True):
        assert float(said) == pytest.approx(figure, abs=0.0051)
    assert (match[2] == "of the time") == (ratio < 1)


def _require_size(text: str, ratio: float) -> None:
    match = re.fullmatch(SIZE, text)
    assert match, text
    if match[1]:
        assert 1 / float(match[1]) == pytest.approx(ratio, rel=0.05)
        assert ratio <= 0.5
    elif match[2]:
        assert float(match[2]) == pytest.approx(ratio, abs=0.051)
    elif match[3]:
        percent = float(match[3]) * (1 if match[4] == "larger" else -1)
        assert percent == pytest.approx(100 * (ratio - 1), abs=0.051)
    else:
        assert ratio == pytest.approx(1, abs=0.0006)


def _require_score(text: str, gain: float) -> None:
    if text == "has the same accuracy":
        assert abs(gain) < 0.0051
    else:
        verb, figure = text.split()[:2]
        assert text == f"{verb} {figure} points of accuracy"
        assert float(figure) == pytest.approx(abs(gain), abs=0.0051)
        assert (verb == "gains") == (gain > 0)


def _require_true_conclusion(
    text: str, trial: Trial, rival: Trial, times: tuple[bool, bool, bool]
) -> None:
    faster, slower, disturbed = times
    smaller = _bytes(trial) < _bytes(rival)
    kept = trial.status == "kept"
    if match := re.fullmatch(r"It (is faster|is smaller|gains nothing), but (.+) already", text):
        assert match[2] == f"{rival.title} {rival.status.words}"
        assert trial.status == rival.status != "kept"
        assert {
            "is faster": faster, "is smaller": smaller, "gains nothing": not faster and not smaller,
        }[match[1]]  # fmt: skip
    elif match := re.fullmatch(
        r"Not worth it: it is (not clearly faster|slower) and no smaller", text
    ):
        assert kept
        assert not faster
        assert not smaller
        assert (match[1] == "slower") == slower
    elif text.startswith("Not worth it"):
        assert text == f"Not worth it: it {trial.status.words}"
        assert not kept
    elif text == "Worth it: it is faster and keeps the budget":
        assert kept
        assert faster
    elif match := re.fullmatch(
        r"It is (not smaller|smaller); whether it is faster is unknown", text
    ):
        assert disturbed
        assert smaller == (match[1] == "smaller")
    else:
        match = re.fullmatch(r"It is smaller but (not clearly faster|slower)", text)
        assert match, text
        assert smaller
        assert not faster
        assert (match[1] == "slower") == slower


def _require_true_reason(text: str, trial: Trial, rival: Trial) -> None:
    """What is said of a file beside a rival quotes its own figures, and rightly."""
    a, b = _latency(trial), _latency(rival)
    if a.disturbed:
        assert text == DISTURBED
        return
    if b.disturbed:
        assert text == f"can't be compared with {rival.title}, whose timing is unreliable"
        return
    faster, slower, _ = _beside(trial, rival)
    unclear = f"is neither clearly faster nor clearly slower than {rival.title}: it "
    assert text.startswith(unclear) == (not faster and not slower)
    _require_time(text.removeprefix(unclear), trial, rival)
    assert f" {rival.title} (" in text or text.startswith(unclear)


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


def test_a_row_says_that_its_timing_is_unreliable_and_it_is_on_no_front() -> None:
    for seed in range(200):
        result = _table(seed)
        disturbed = {
            trial.title for trial in result.everything
            if trial.latency and trial.latency.disturbed
        }  # fmt: skip
        assert {row[0] for row in rows(result) if any("?" in cell for cell in row)} == disturbed
        front = {trial.title for trial in with_pareto(result.everything) if trial.pareto}
        assert not front & disturbed


def _by_the_fastest_ones_interval(
    baseline: Trial, trials: Sequence[Trial], aim: Aim
) -> tuple[Trial, str]:
    """A rule that looks right: whatever is faster than the original, and ties by the fastest one's
    own interval."""
    kept = [trial for trial in trials if trial.status == "kept" and trial.latency]
    fast = [trial for trial in kept if _latency(trial).verdict == "faster"]
    if not fast:
        return choose(baseline, trials, aim)
    limit = _latency(min(fast, key=lambda trial: _latency(trial).ratio)).ratio_high
    ties = [trial for trial in fast if _latency(trial).ratio <= limit]
    best = min(ties, key=_bytes)
    return best, f"it is the smallest of {len(ties)} candidates that are equally fast"


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
    best, _ = choose(ORIGINAL, [narrow, wide], Aim())
    assert best is wide
