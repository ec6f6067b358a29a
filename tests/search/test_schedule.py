"""The order of a fit, which of its files goes on, and what it does with its time: told, not waited
for."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.contract import Array, Latency, Session
from penjing.measure import scores
from penjing.report.answer import gains
from penjing.search.schedule import Schedule
from penjing.tasks.task import Task
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.judgement.choice import is_faster
from penjing.trials.judgement.comparison import DISTURBED
from penjing.trials.result import Result
from penjing.trials.trial import Trial
from tests.fits import fit
from tests.instruments import Another, Direct, Slowly, Told, only, small_task

EVERYWHERE = ["original", "original in another", "int8 in direct", "int8 in another"]


def _cut(name: str) -> float:
    """The harsher a cut the faster; int8 takes three quarters."""
    share = re.match(r"prune (\d+)", name)
    return (1 - int(share[1]) / 100 if share else 1.0) * (0.75 if "int" in name else 1.0)


def _losing(monkeypatch: pytest.MonkeyPatch, wrong: Callable[[str], int]) -> None:
    """Let each candidate get so many of 1,000 validation samples wrong, by its name."""

    def measured(evaluator: FileEvaluator, trial: Trial, *rest: Any) -> Trial:
        trial = whole(evaluator, trial, *rest)
        drop = scores.drop(_right(0), _right(wrong(trial.title)), evaluator.confidence)
        return replace(trial, measurement=replace(trial.measurement, drop=drop))

    whole = FileEvaluator._measured
    monkeypatch.setattr(FileEvaluator, "_measured", measured)
    monkeypatch.setattr(FileEvaluator, "test", lambda *_: scores.Means(_right(0)))


def _right(wrong: int) -> Array:
    return np.repeat([0.0, 1.0], [wrong, 1000 - wrong])


def _fit(out: Path, told: Told, **options: Any) -> Result:
    given: dict[str, Any] = {"max_drop": 1.0, "epochs": 1, "task": small_task()} | options
    return fit(out=out / "out", instruments=told.instruments(), **given)


def _in_order(result: Result) -> list[str]:
    return [one.title for one in result.everything]


def test_the_original_and_int8_are_tried_in_every_runtime_before_anything_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct, Another)
    _losing(
        monkeypatch, lambda name: 30 if name == "int8 in direct" or name.startswith("prune") else 0
    )
    times = {"int8 in direct": 0.7, "int8 in another": 0.6, "original in another": 0.65}
    result = _fit(tmp_path, Told(lambda name: times.get(name, _cut(name))))
    assert _in_order(result)[:4] == EVERYWHERE
    assert result.find("int8 in direct").status == "over budget"
    assert result.chosen == "int8 in another"
    assert not [name for name in _in_order(result) if "percentile" in name or "equal" in name]
    assert "prune 50 % + int8 in another" in _in_order(result)  # the way that goes on


def test_int8_is_tried_even_when_there_is_no_time_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct, Another)
    _losing(monkeypatch, lambda _: 0)
    result = _fit(tmp_path, Told(_cut), epochs=None, minutes=0.01)
    measured = [one.title for one in result.everything if one.measurement.drop]
    assert measured == ["original", "int8 in direct"]
    assert result.chosen == "int8 in direct"
    assert any(one.startswith("0.01 minutes allow hardly any tuning") for one in result.notes)
    assert "no time was left to try original in another" in result.notes
    assert "int8 in another wasn't tried, because no time was left" in result.notes
    assert {one.status for one in result.trials if "prune" in one.title} == {"not tried"}
    assert all(one.measurement.latency is None for one in result.trials if "prune" in one.title)
    late = [line for line in result.notes if line.startswith("the fit took ")]
    assert len(late) == 1
    stage = r".+ \(0\.\d\)"
    wanted = rf"the fit took 0\.\d minutes instead of 0\.01; its longest stages were {stage}"
    assert re.match(wanted, late[0])


@pytest.mark.parametrize(("times", "tried"), [(3.9, True), (4.1, False)])
def test_int8_is_left_out_where_it_cannot_make_up_for_a_slow_runtime(
    times: float, tried: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct, Another)
    _losing(monkeypatch, lambda _: 0)
    told = Told(lambda name: times * _cut(name) if "another" in name else _cut(name))
    result = _fit(tmp_path, told)
    why = (
        "int8 in another wasn't tried, because original in another takes more than 4 times as long "
        "as original"
    )
    assert ("int8 in another" in _in_order(result)) == tried
    assert (why in result.notes) == (not tried)
    small = _fit(tmp_path / "small", told, goal="size")
    assert "int8 in another" in _in_order(small)


@pytest.mark.parametrize(
    ("times", "tried", "chosen"),
    [
        # int8 keeps the budget in another, and there it is fast: nothing else is needed
        ({"int8 in direct": 0.7, "int8 in another": 0.6}, [], "int8 in another"),
        # in the first runtime it would be faster still, if only it kept the budget
        (
            {"int8 in direct": 0.5, "int8 in another": 0.8},
            ["int8 by percentile in direct"],
            "int8 by percentile in direct",
        ),
        # it keeps the budget in another, but gains nothing there
        (
            {"int8 in direct": 0.7, "int8 in another": 1.2},
            ["int8 by percentile in direct"],
            "int8 by percentile in direct",
        ),
    ],
)
def test_the_climb_comes_after_int8_was_tried_everywhere_and_where_it_can_win(
    times: dict[str, float],
    tried: list[str],
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    only(monkeypatch, Direct, Another)
    _losing(monkeypatch, lambda name: 30 if name == "int8 in direct" or "prune" in name else 0)
    times["int8 by percentile in direct"] = times["int8 in direct"]
    result = _fit(tmp_path, Told(lambda name: times.get(name, _cut(name))))
    names = _in_order(result)
    assert names[:4] == EVERYWHERE
    assert names[4 : 4 + len(tried)] == tried
    assert names[4 + len(tried)].startswith("prune")
    assert result.chosen == chosen


def _equalized_with_one_in_float(
    ratio: float, wrong: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Result:
    """A fit in which every scheme breaks the budget, all of them faster than what has one layer in
    float, which gets `wrong` of 1,000 wrong."""
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.trials.evaluation.evaluator.sensitive_layers", lambda *_: [])
    variant = "int8 equalized with 1 in float"
    lost = {"int8": 16, "int8 by percentile": 19, "int8 equalized": 14, variant: wrong}
    _losing(monkeypatch, lambda name: 40 if "prune" in name else lost.get(name, 0))
    told = Told(lambda name: ratio if name == variant else _cut(name) * 0.85, slow=("0",))
    return _fit(tmp_path, told)


def test_what_keeps_the_budget_is_not_refused_for_a_rival_that_breaks_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _equalized_with_one_in_float(0.718, 2, tmp_path, monkeypatch)
    variant = result.find("int8 equalized with 1 in float")
    assert variant.status == "kept"
    assert result.chosen == variant.title
    assert is_faster(result.find("int8 equalized"), variant)
    steps = result.find("prune 25 % + int8").candidate.recipe
    assert [one["layers"] for one in steps if one["method"] == "Quantize"] == [{"0": 0}]
    assert not [one for one in result.trials if "validation data" in one.reason]


def test_of_schemes_that_all_break_the_budget_the_one_that_loses_least_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = _equalized_with_one_in_float(0.5, 15, tmp_path, monkeypatch)
    assert result.chosen == "original"
    assert "more validation data" not in result.reason  # its drop is over the budget itself
    steps = result.find("prune 25 % + int8").candidate.recipe
    assert [one["layers"] for one in steps if one["method"] == "Quantize"] == [{}]


@pytest.mark.parametrize(("ratio", "chosen"), [(0.5, "int8"), (0.9, "original")])
def test_if_load_disturbs_all_only_what_is_far_faster_is_chosen(
    ratio: float, chosen: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 40 if "prune" in name else 0)
    told = Told(lambda name: ratio if name == "int8" else 1.0, disturbed=("int8", "original"))
    result = _fit(tmp_path, told)
    assert result.chosen == chosen
    assert ("disturbed" in result.reason) is (chosen == "int8")
    assert ("less than 0.5" in gains(result)) is (chosen == "int8")


def test_a_figure_that_stays_disturbed_is_taken_twice_and_never_chosen(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)
    told = Told(_cut, disturbed=("prune 75 % + int8",))
    result = _fit(tmp_path, told)
    assert result.chosen == "prune 75 %"
    found = result.find("prune 75 % + int8")
    assert found.status == "kept"
    assert found.reason == DISTURBED
    last = told.sittings[-1]
    assert len(last) == 8
    assert told.sittings[-2] == last  # once more


def test_a_disturbed_figure_is_taken_again_before_it_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 in another is disturbed while it is measured, and good when it is timed again."""
    only(monkeypatch, Direct, Another)
    _losing(monkeypatch, lambda name: 30 if "prune" in name else 0)
    times = {"int8 in direct": 0.7, "int8 in another": 0.6}
    told = Told(lambda name: times.get(name, _cut(name)), disturbed=["int8 in another"])

    def progress(stage: str, *_: Any) -> None:
        if stage == "timing again what other programs disturbed":
            told.disturbed = ()

    result = _fit(tmp_path, told, progress=progress)
    assert "prune 25 % + int8 in another" in _in_order(result)
    assert result.chosen == "int8 in another"


def test_a_disturbed_figure_does_not_replace_a_good_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last sitting is disturbed throughout: what was seen before it decides."""
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)
    told = Told(_cut)
    whole = told.instruments()

    def compare(
        sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
    ) -> dict[str, Latency]:
        found = whole.timer(sessions, inputs, baseline, seconds, seed)
        if len(sessions) < 8:
            return found
        return {name: replace(one, ratio=1.5, disturbed=True) for name, one in found.items()}

    instruments = replace(whole, timer=compare)
    result = fit(small_task(), out=tmp_path / "out", epochs=1, instruments=instruments)
    assert result.chosen == "prune 75 % + int8"
    assert result.answer.latency is not None
    assert result.answer.latency.ratio == _cut(result.chosen)


def _timed_task(told: Told, step: float, **later: Any) -> Task:
    return replace(small_task(), loss=Slowly(told, step, **later))


def test_what_the_minutes_allow_is_said_and_nothing_is_cut_that_cannot_be_tuned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)
    told = Told(_cut)
    said: list[str] = []
    task = _timed_task(told, 10.0)  # an epoch of six steps takes a minute
    result = _fit(
        tmp_path, told, task=task, epochs=None, minutes=1.5,
        progress=lambda stage, *_: said.append(stage),
    )  # fmt: skip
    (line,) = [one for one in result.notes if "minutes allow" in one]
    allowed = re.fullmatch(r"1.5 minutes allow at most ([\d.]+) epochs of tuning in total", line)
    assert allowed
    assert line in said
    assert said.index(line) < said.index("int8")
    cut = [one for one in result.trials if one.title.startswith("prune")]
    tried = [one for one in cut if one.status != "not tried"]
    assert {one.title for one in tried} == {"prune 25 %", "prune 25 % + int8"}
    assert {one.status for one in tried} == {"kept"}
    trained = sum(
        step["options"]["epochs"]
        for one in tried for step in one.candidate.recipe if step["method"] == "Tune"
    ) / 2  # fmt: skip
    assert 0.5 <= trained <= float(allowed[1])
    (left,) = [one for one in result.notes if one.startswith("after measuring all runtimes")]
    assert trained <= float(left.split()[10]) <= float(allowed[1])
    late = [one for one in cut if one.status == "not tried"]
    assert {one.title for one in late} == {
        "prune 50 %", "prune 50 % + int8", "prune 75 %", "prune 75 % + int8",
    }  # fmt: skip
    for one in late:
        assert one.measurement.latency is None
        assert one.artifact is None
        assert re.fullmatch(
            r"not pruned, because there was time for only 0\.\d+ epochs of tuning", one.reason
        )
    timed = {name for names in told.sittings for name in names}
    assert not timed & {one.title for one in late}


def test_the_end_is_kept_when_steps_take_what_they_took_at_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)
    told = Told(_cut)
    result = _fit(tmp_path, told, task=_timed_task(told, 1.0), epochs=None, minutes=8.0)
    assert 0.8 * 480 < told.now <= 1.1 * 480
    assert not [line for line in result.notes if line.startswith("the fit took ")]


def test_the_clock_ends_a_training_whose_steps_become_slower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ten times slower from the 60th batch on, as under load."""
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)
    told = Told(_cut)
    task = _timed_task(told, 0.5, later=5.0, after=60)
    result = _fit(tmp_path, told, task=task, epochs=None, minutes=4.0)
    assert told.now <= 1.1 * 240
    assert not [line for line in result.notes if line.startswith("the fit took ")]
    assert result.finished


def test_a_scheme_that_is_too_slow_to_be_measured_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    told = Told(_cut)
    task = small_task()
    held_out = Slowly(told, 0.1, later=1000.0, after=10**9, batches=task.validation)  # type: ignore[arg-type]

    def wrong(name: str) -> int:
        if name == "int8":  # which was measured just now
            held_out.after = held_out.given
        return 30 if name == "int8" else 0

    _losing(monkeypatch, wrong)
    task = replace(task, validation=held_out)
    result = _fit(tmp_path, told, task=task, epochs=None, minutes=5.0)
    assert result.find("int8").measurement.drop is not None
    scheme = result.find("int8 by percentile")
    assert (scheme.status, scheme.measurement.drop) == ("not tried", None)
    assert scheme.reason == "the time was over before it was measured"
    assert result.finished
    assert told.now < 1100  # one batch of it, and not the two passes that measuring takes


def test_what_took_longer_than_it_may_is_said_with_what_took_longest() -> None:
    now = [0.0]
    schedule = Schedule(lambda: now[0], 180.0)
    for stage, seconds in (("int8", 60.0), ("int8 in litert", 120.0), ("cutting", 12.0)):
        schedule.enter(stage)
        now[0] += seconds
    assert schedule.overrun() == ""
    now[0] += 120.0
    assert schedule.overrun() == (
        "the fit took 5.2 minutes instead of 3; its longest stages were cutting (2.2), int8 in "
        "litert (2.0), int8 (1.0)"
    )


def test_where_nothing_can_be_tuned_nothing_is_cut_and_int8_is_still_the_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct)
    _losing(monkeypatch, lambda name: 0)

    def loss(outputs: Any, targets: Any) -> Any:
        if outputs.requires_grad:  # one that doesn't is refused at the start
            raise TypeError("targets of another kind")
        return outputs.sum()

    result = _fit(tmp_path, Told(_cut), task=replace(small_task(), loss=loss))
    assert result.chosen == "int8"
    why = "the task's loss raised TypeError: targets of another kind"
    assert f"the network can't be tuned, so it isn't pruned: {why}" in result.notes
    assert _in_order(result) == ["original", "int8"]
