"""A fit whose trainings are counted in epochs: nothing in it hangs on a clock or a machine."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from penjing.errors import InputError
from penjing.search.strategies.cutting import CUTS
from penjing.trials.result import Result
from penjing.tune.options import TuneOptions
from tests.fits import fit
from tests.instruments import Direct, Told, only, small_task

TIMES = {
    "original": 1.0, "int8": 0.8, "prune 25 %": 0.9, "prune 25 % + int8": 0.7, "prune 50 %": 0.6,
    "prune 50 % + int8": 0.5, "prune 75 %": 0.4, "prune 75 % + int8": 0.3,
}  # fmt: skip


@pytest.fixture(autouse=True)
def one_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    only(monkeypatch, Direct)


def _fit(out: Path, told: Told, minutes: float = 1e-6) -> Result:
    """With next to no minutes, which don't count."""
    return fit(small_task(), "cpu", 60.0, minutes, out, epochs=2, instruments=told.instruments())


def test_a_fit_by_epochs_tries_everything_and_trains_exactly_so_long(tmp_path: Path) -> None:
    told = Told(TIMES.__getitem__)
    result = _fit(tmp_path / "out", told)
    assert result.finished
    assert {one.title for one in result.everything} == set(TIMES)
    assert {one.status for one in result.trials} == {"kept"}
    trained = [
        TuneOptions(**step["options"])
        for one in result.trials
        for step in one.candidate.recipe
        if step["method"] == "Tune"
    ]
    assert {one.epochs for one in trained} == {2}
    assert len(trained) == 2 * len(CUTS)
    assert result.chosen == "prune 75 % + int8"
    found = {one.title: one.measurement.latency for one in result.trials}
    assert {name: one.ratio for name, one in found.items() if one} == {
        name: ratio for name, ratio in TIMES.items() if name != "original"
    }


def test_the_same_fit_ends_alike_whatever_the_clock_says(tmp_path: Path) -> None:
    told, late = Told(TIMES.__getitem__), Told(TIMES.__getitem__)
    quick = _fit(tmp_path / "quick", told)

    def clock() -> float:
        late.now += 1e4
        return late.now

    real = replace(late.instruments(), clock=clock)
    slow = fit(small_task(), "cpu", 60.0, 1.0, tmp_path / "slow", epochs=2, instruments=real)
    without = [
        [replace(one, seconds=0.0).title for one in result.trials] for result in (quick, slow)
    ]
    assert without[0] == without[1]
    assert [one.sha256 for one in quick.trials] == [one.sha256 for one in slow.trials]
    assert json.dumps(quick.notes) == json.dumps(slow.notes)
    assert (quick.chosen, quick.reason) == (slow.chosen, slow.reason)
    assert quick.verdicts == slow.verdicts


def test_epochs_that_cannot_be_trained_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`epochs` must be a positive number; found 0"):
        fit("digits", out=tmp_path / "out", epochs=0)
