"""The choice among candidates: the budget first, then the goal, and ties go to the smaller file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.search.ledger import Ledger
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
