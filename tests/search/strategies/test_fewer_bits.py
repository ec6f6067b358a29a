"""Fewer bits: as few as keep the budget, found by few files, where they make a file smaller."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from penjing.search.schedule import Schedule
from penjing.search.strategies.beginning import begun
from penjing.search.strategies.quick import refined
from penjing.search.strategies.schemes import FEWER_BITS, INT4, in_float
from penjing.search.study import Proposals, Study
from tests.search.strategies.playing import FakeEvaluator, played


class Rounded:
    """A search that only rounds."""

    def propose(self, study: Study) -> Proposals:
        _, rounding = yield from begun(study, 2)
        yield from refined(study, rounding)


def _bits(title: str) -> float:
    """How many bits the weights of a file have."""
    known = {"original": 32.0, "int8": 8.0, INT4: 4.0}
    return known[title] if title in known else float(title.split()[2])


def _losing_below(bits: float) -> Callable[[str], float]:
    """What files lose if the budget of a point is kept from so many bits on."""
    return lambda title: 1 + bits - _bits(title) if title != "original" else 0.0


@pytest.mark.parametrize("least", [2.0, 2.3, 2.6, 3.1, 3.9, 4.0, 4.3, 6.2, 7.4, 7.9])
def test_the_fewest_bits_that_keep_the_budget_are_found(tmp_path: Path, least: float) -> None:
    evaluator = FakeEvaluator(lambda title: _bits(title) / 32, _losing_below(least))
    with played(tmp_path, Rounded(), evaluator, "size") as run:
        answer = _bits(run.result.chosen)
        assert least <= answer <= least + (0.25 if least <= 4 else 0.5)
        assert len(evaluator.asked) <= 5
    again = FakeEvaluator(evaluator.ratio, evaluator.drop)
    with played(tmp_path, Rounded(), again, "size") as resumed:
        assert resumed.result.trials == run.result.trials
    assert not again.asked


def test_none_is_looked_for_where_a_file_is_no_smaller(tmp_path: Path) -> None:
    """A runtime may store eight bits for each weight in any case."""
    evaluator = FakeEvaluator(lambda title: max(8.0, _bits(title)) / 32, _losing_below(2.0))
    with played(tmp_path, Rounded(), evaluator, "size") as run:
        assert [trial.title for trial in run.result.trials] == ["int8", INT4]


def test_what_takes_too_long_is_left_out_and_named(tmp_path: Path) -> None:
    """Widths by layer take hours on a large network, which is known before."""
    evaluator = FakeEvaluator(
        lambda title: _bits(title) / 32, _losing_below(2.0), scoring_seconds=3600.0
    )
    in_time = Schedule(lambda: 0.0, 3600.0)
    with played(tmp_path, Rounded(), evaluator, "size", schedule=in_time) as run:
        assert run.result.chosen == INT4
        assert "too little time to try weights of 3 bits" in run.result.notes


@pytest.mark.parametrize("scheme", list(FEWER_BITS))
def test_layers_can_be_left_in_float_with_any_bits(scheme: str) -> None:
    first, *_ = in_float(FEWER_BITS[scheme], ["conv1"])
    assert "conv1" in (getattr(first, "skip", ()) or getattr(first, "layers", {}))
