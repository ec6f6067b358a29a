"""The choice among candidates: the budget first, then the goal, and ties go to the smaller file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from penjing.contract import Array, Drop, Latency, Measurement
from penjing.measure.scores import drop
from penjing.search.ledger import Ledger
from penjing.search.looks import prove
from penjing.search.result import Candidate, Result, choose, with_pareto


def _candidate(
    name: str, ratio: float, drop: float = 0.0, kb: float = 100, status: str = "kept"
) -> Candidate:
    times = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20)
    found = Drop(drop, drop + 0.2, 0.95, 1000)
    return Candidate(
        name, (), status, "", Measurement(file_bytes=int(kb * 1000), latency=times, drop=found)
    )


ORIGINAL = _candidate("original", 1.0, status="baseline")
ORIGINAL_SIZE = _candidate("original", 1.0, kb=1000, status="baseline")


@pytest.mark.parametrize(
    ("candidates", "goal", "chosen", "why"),
    [
        ([], "latency", "original", "no candidate was finished"),
        ([_candidate("a", 0.5, 3.0, status="over budget")], "latency", "original",
         "nearest is a: drop 3.00, bound 3.20"),
        ([_candidate("a", 0.5, 0.9, status="over budget")], "latency", "original",
         "more validation data"),
        ([_candidate("a", 0.99)], "latency", "original", "is faster than the original"),
        ([_candidate("a", 0.5), _candidate("b", 0.6)], "latency", "a", "fastest of 2"),
        ([_candidate("a", 0.5), _candidate("b", 0.4, status="over budget")], "latency", "a",
         "fastest of 1"),
        ([_candidate("a", 0.5), _candidate("b", 0.505, kb=50)], "latency", "b",
         "can't be told from the fastest"),
        ([_candidate("a", 0.5, kb=90), _candidate("b", 0.9, kb=50)], "size", "b", "smallest of 2"),
        ([_candidate("a", 0.5, kb=2000)], "size", "original", "is smaller than the original"),
    ],
)  # fmt: skip
def test_choose(candidates: list[Candidate], goal: str, chosen: str, why: str) -> None:
    best, reason = choose(ORIGINAL_SIZE, candidates, goal, 1.0)
    assert best.name == chosen
    assert why in reason


def test_the_pareto_front_has_no_candidate_that_another_beats() -> None:
    some = [
        ORIGINAL,
        _candidate("fast", 0.3, 2.0),
        _candidate("small", 0.8, 0.5, kb=20),
        _candidate("beaten", 0.4, 2.5),
        Candidate("unmeasured", (), "failed"),
    ]
    assert [one.name for one in with_pareto(some) if one.pareto] == ["original", "fast", "small"]


def _ledger(folder: Path) -> Ledger:
    for name in ("original", "a", "b"):
        (folder / "candidates" / name).mkdir(parents=True)
        (folder / "candidates" / name / f"{name}.onnx").write_text(name)
    result = Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, ORIGINAL)
    return Ledger(folder, result)


def test_a_ledger_is_on_disk_after_every_step(tmp_path: Path) -> None:
    ledger = _ledger(tmp_path)
    ledger.record(replace(ORIGINAL, artifact="candidates/original/original.onnx"))
    assert Result.load(tmp_path).chosen == "original"
    ledger.record(replace(_candidate("a", 0.5), artifact="candidates/a/a.onnx"))
    assert Result.load(tmp_path).artifact == "candidates/a/a.onnx"
    ledger.record(replace(_candidate("b", 0.4), artifact="candidates/b/b.onnx"))
    ledger.record(replace(_candidate("b", 0.6), artifact="candidates/b/b.onnx"))
    assert [one.name for one in Result.load(tmp_path).candidates] == ["a", "b"]
    ledger.set_latencies({"a": _candidate("a", 0.9).measurement.latency})  # type: ignore[dict-item]
    assert Result.load(tmp_path).chosen == "b"
    ledger.finish(ledger.result)
    assert (tmp_path / "b.onnx").read_text() == "b"
    assert ledger.result.artifact == "b.onnx"
    assert Result.load(tmp_path) == ledger.result
    assert ledger.result.finished


def _tested(
    losses: dict[str, int], *candidates: Candidate, goal: str = "latency"
) -> tuple[Result, list[str]]:
    """What becomes of candidates that get so many of 1000 test samples wrong; and who was asked."""
    best, why = choose(ORIGINAL_SIZE, candidates, goal, 1.0)
    result = Result(
        "t", "cpu", "m", goal, 1.0, 0.95, 0, {}, ORIGINAL_SIZE, candidates, best.name, why
    )
    asked = []

    def score(name: str) -> Array:
        asked.append(name)
        return _right(losses.get(name, 0))

    return prove(result, score), asked


def _right(wrong: int) -> Array:
    return np.repeat([0.0, 1.0], [wrong, 1000 - wrong])


FASTEST, SECOND, INT8, SLOW = (
    _candidate("fastest", 0.3), _candidate("second", 0.5, kb=300), _candidate("int8", 0.7, kb=50),
    _candidate("slow", 0.99),
)  # fmt: skip


def test_one_look_that_passes_costs_nothing() -> None:
    result, asked = _tested({"fastest": 5}, FASTEST, INT8)
    assert asked == ["original", "fastest"]
    assert (result.chosen, result.test_looks, result.notes) == ("fastest", 1, ())
    assert result.reason == "the fastest of 2 that keep the budget"
    assert result.test_drop == drop(_right(0), _right(5), 0.95)
    assert (result.test_baseline, result.test_score) == (1.0, 0.995)


def test_what_fails_on_test_makes_way_for_the_next_best_with_a_wider_bound() -> None:
    losses = {"fastest": 23, "second": 40, "int8": 5}
    result, asked = _tested(losses, INT8, SLOW, FASTEST)
    assert asked == ["original", "fastest", "int8"]
    assert (result.chosen, result.test_score) == ("int8", 0.995)
    assert result.test_drop == drop(_right(0), _right(5), 0.975)
    assert result.reason == (
        "the fastest of 2 that keep the budget; "
        "fastest kept the budget on validation but lost 2.30 points on test"
    )
    assert result.notes == (
        "looks at the test data: 2; several looks weaken a claim, so the bound on test is at 97.5% "
        "instead of 95%",
    )
    assert result.find("fastest").status == "over on test"
    assert result.find("fastest").reason == "lost 2.30 points on test, budget 1"

    result, asked = _tested(losses, INT8, SECOND, FASTEST)
    assert (result.chosen, asked[1:]) == ("int8", ["fastest", "second", "int8"])
    assert result.test_drop == drop(_right(0), _right(5), 1 - 0.05 / 3)
    assert "lost 2.30 points on test; second kept" in result.reason
    _, asked = _tested(losses, FASTEST, SECOND, INT8, goal="size")
    assert asked[1:] == ["int8"]


@pytest.mark.parametrize(
    ("candidates", "looks", "why"),
    [
        ([], 0, "no candidate was finished"),
        ([INT8], 1, "nothing else keeps the budget; int8 kept the budget on validation but lost 4"),
        ([INT8, SLOW], 1, "no candidate that keeps the budget is faster than the original; int8"),
        ([INT8, SECOND, FASTEST], 3, "nothing else keeps the budget; fastest kept"),
        ([INT8, SECOND, FASTEST, _candidate("fourth", 0.9)], 3, "no more than 3 candidates are"),
    ],
)
def test_where_all_fail_on_test_the_original_is_the_answer(
    candidates: list[Candidate], looks: int, why: str
) -> None:
    result, asked = _tested({one.name: 40 for one in candidates[:3]}, *candidates)
    assert (result.chosen, result.test_looks, len(asked)) == ("original", looks, looks + 1)
    assert result.test_score == result.test_baseline == 1.0
    assert result.test_drop is None
    assert result.reason.startswith(why)
    assert result.notes == ((f"looks at the test data: {looks}",) if looks else ())
