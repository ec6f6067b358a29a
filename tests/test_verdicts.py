"""Verdicts: every method is held against what it was made from; and the rungs of quantization."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.contract import Drop, Latency, Measurement
from penjing.network import capture
from penjing.network.fake_quantized import weight_grids
from penjing.passes import PruneChannels, Quantize, Tune
from penjing.report.markdown import page
from penjing.runtimes.onnxruntime import OnnxRuntime
from penjing.search import recipes
from penjing.search.elsewhere import Elsewhere, Way
from penjing.search.float_layers import _profiles, clearly_slower, slower_layers
from penjing.search.ledger import Ledger
from penjing.search.result import Candidate, Result
from penjing.search.rungs import INT8, Rungs, in_float
from penjing.search.verdicts import verdicts
from penjing.search.workshop import BASELINE, Workshop
from penjing.targets import all_targets
from penjing.task import Task

CUT = (PruneChannels(0.5), Tune())


def _candidate(
    name: str, recipe: Any, ratio: float, drop: float, kb: int, status: str = "kept"
) -> Candidate:
    times = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20)
    found = Measurement(
        file_bytes=1000 * kb, latency=times, drop=Drop(drop, drop + 0.2, 0.95, 1000)
    )
    return Candidate(name, tuple(recipes.to_json(recipe)), status, "", found)


ORIGINAL = replace(
    _candidate("original", (), 1.0, 0.0, 1000, "baseline"),
    measurement=Measurement(
        file_bytes=1_000_000,
        latency=Latency(1.0, 1.0, 1.0, 1.0, 1.0, 20),
        drop=Drop(0.0, 0.0, 0.95, 1000),
    ),
)
INTEGERS = _candidate("int8", (Quantize(),), 0.5, 0.3, 300)
PRUNED = _candidate("prune", CUT, 0.8, 0.5, 500)


def _result(*candidates: Candidate) -> Result:
    return Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, ORIGINAL, candidates)


def test_one_method_is_held_against_the_original() -> None:
    (line,) = verdicts(_result(INTEGERS))
    assert line == (
        "int8 against original: -0.30 points (bound -0.50), 0.500 of the time (0.490 - 0.510), "
        "0.300 of the bytes: pays: faster, and keeps the budget"
    )


def test_two_methods_are_held_against_each_alone() -> None:
    both = _candidate("prune + int8", (*CUT, Quantize()), 0.45, 0.9, 160)
    lines = verdicts(_result(INTEGERS, PRUNED, both))
    assert [line.split(":")[0] for line in lines] == [
        "int8 against original",
        "prune against original",
        "prune + int8 against int8",
        "prune + int8 against prune",
    ]
    assert "-0.60 points, 0.900 of the time (0.865 - 0.937), 0.533 of the bytes: pays" in lines[2]
    assert "-0.40 points, 0.562 of the time" in lines[3]
    longer = _candidate("longer + int8", (*CUT, Tune(), Quantize()), 0.45, 0.9, 160)
    assert "longer + int8 against prune + int8" in verdicts(_result(both, longer))[1]


def test_what_adds_to_a_failure_is_not_blamed_for_it() -> None:
    worse = replace(PRUNED, status="over budget")
    both = _candidate("prune + int8", (*CUT, Quantize()), 0.45, 2.0, 160, "over budget")
    lines = verdicts(_result(INTEGERS, worse, both))
    assert lines[2].endswith("of the bytes: not worth it: over budget")
    assert lines[3].endswith("of the bytes: faster, but prune is over budget already")


@pytest.mark.parametrize(
    ("changes", "end"),
    [
        ({"status": "over budget"}, "not worth it: over budget"),
        ({"ratio": 1.0}, "bytes: smaller but not faster"),
        ({"ratio": 1.2}, "smaller but not faster, it is slower"),
        ({"ratio": 1.0, "kb": 1000}, "not worth it: neither faster nor smaller"),
    ],
)
def test_what_does_not_pay_is_said(changes: dict[str, Any], end: str) -> None:
    options = {"ratio": 0.5, "drop": 0.3, "kb": 300} | changes
    (line,) = verdicts(_result(_candidate("int8", (Quantize(),), **options)))
    assert line.endswith(end)


def test_the_best_integer_file_is_held_against_the_best_float_file_of_any_runtime() -> None:
    """int8 takes 0.72 of the original's time, but LiteRT runs the original nearly as fast."""
    litert = replace(_candidate("original in litert", (), 0.77, 0.0, 990), runtime="litert")
    int8 = replace(_candidate("int8 in litert", (Quantize(),), 0.72, 0.3, 300), runtime="litert")
    slow = _candidate("int8", (Quantize(),), 0.78, 0.3, 300)
    lines = verdicts(_result(litert, int8, slow))
    assert lines[-1] == (
        "int8 in litert, the fastest integer file that keeps the budget, takes 0.935 of the time "
        "(0.898 - 0.973) of original in litert, the fastest float file: integers gain little here"
    )
    broken = replace(int8, status="over budget")
    assert "int8, the fastest integer file that" in verdicts(_result(litert, broken, slow))[-1]
    assert "integers pay" in verdicts(_result(int8, slow))[-1]
    assert len(verdicts(_result(slow))) == 1  # it is held against the original already


def test_what_was_not_measured_has_no_verdict_and_says_why() -> None:
    waiting = Candidate("prune", tuple(recipes.to_json(CUT)), "not tuned", "no faster than int8")
    lines = verdicts(_result(INTEGERS, waiting))
    assert len(lines) == 3
    assert lines[1] == "PruneChannels: no verdict; prune: no faster than int8"


def test_a_ledger_keeps_verdicts_and_the_report_shows_them(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path, _result())
    ledger.record(INTEGERS)
    again = Result.load(tmp_path)
    assert again.verdicts == verdicts(_result(INTEGERS))
    assert again == ledger.result
    assert again.verdicts[0] in page(again)
    old = {key: value for key, value in again.to_json().items() if key != "verdicts"}
    assert Result.from_json(old).verdicts == ()


class _Rungs:
    """Rungs whose files lose what they are told to, in one runtime, and a ledger."""

    def __init__(self, folder: Path, drops: list[Any], goal: str = "latency") -> None:
        result = replace(_result(), goal=goal)
        self.ledger, self.waiting = Ledger(folder, result), drops
        self.rungs = Rungs(Elsewhere(Way(OnnxRuntime()), []), self.ledger)

    def attempt(self, name: str, way: Way) -> Candidate:
        drop = self.waiting.pop(0)
        found = Candidate(name, (), "failed")
        if drop is not None:
            status = "kept" if drop < 1 else "over budget"
            found = _candidate(name, self.rungs.recipes[name], 0.5, drop, 300, status)
        self.ledger.record(found)
        return found


@pytest.mark.parametrize(
    ("drops", "chosen"),
    [([0.3], "int8"), ([1.5, 0.4], "int8 by percentile"), ([2.0, 1.5, 0.4], "int8 equalized"),
     ([2.0, 1.5, 1.6], "int8 by percentile"), ([1.5, 2.0, 2.0], "int8"), ([None], "int8")],
)  # fmt: skip
def test_rungs_are_tried_until_one_keeps_the_budget(
    drops: list[Any], chosen: str, tmp_path: Path
) -> None:
    told = _Rungs(tmp_path, drops)
    told.rungs.try_everywhere(told.attempt)
    told.rungs.climb(told.attempt, lambda _: True)
    assert not told.waiting
    assert told.rungs.chosen == chosen


@pytest.mark.parametrize(
    ("drops", "chosen", "after"),
    [([0.1, 1.5], "int8", "int8"), ([0.1, 0.2, 1.5], "int4 weights", "int4 weights"),
     ([0.1, 0.2, 0.9], "int3 weights", "int3 weights")],
)  # fmt: skip
def test_bits_are_taken_away_while_the_budget_is_kept(
    drops: list[float], chosen: str, after: str, tmp_path: Path
) -> None:
    told = _Rungs(tmp_path, drops, "size")
    told.rungs.try_everywhere(told.attempt)
    told.rungs.descend(told.attempt, lambda _: True)
    assert not told.waiting
    assert told.rungs.chosen == chosen
    assert told.rungs.after("prune 25 %") == f"prune 25 % + {after}"


def test_no_rung_is_tried_that_there_is_no_time_for(tmp_path: Path) -> None:
    told = _Rungs(tmp_path, [1.5], "size")
    told.rungs.try_everywhere(told.attempt)
    told.rungs.climb(told.attempt, lambda _: False)
    told.rungs.descend(told.attempt, lambda _: False)
    assert told.rungs.chosen == INT8
    assert told.ledger.result.notes == (
        "too little time to try int8 by percentile",
        "too little time to try int8 equalized",
        "too little time to look for fewer bits than int8's",
    )


class _Shop:
    """A workshop that says what it is told to."""

    def __init__(self, ratio: float) -> None:
        self.ratio = ratio
        self.artifacts = {BASELINE: None}

    def time(self, names: list[str], baseline: str) -> dict[str, Latency]:
        assert baseline == INT8
        return {name: Latency(1, 1, self.ratio, self.ratio, self.ratio, 20) for name in names}


@pytest.mark.parametrize(
    ("ratio", "drops", "chosen"),
    [
        (0.9, [0.2, 0.2], "int8 with 1 in float"),
        (1.0, [0.2, 0.2], "int8"),
        (1.5, [1.2, 0.2], "int8 with 1 in float"),
        (0.9, [0.2, 1.2], "int8"),
        (1.5, [1.3, 1.2], "int8 with 1 in float"),
        (0.9, [1.2, 1.3], "int8"),
    ],
)
def test_layers_in_float_go_on_if_that_keeps_the_budget_or_both_do_and_it_is_faster(
    ratio: float,
    drops: list[float],
    chosen: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("penjing.search.rungs.slower_layers", lambda *_: ["conv1"])
    told = _Rungs(tmp_path, list(drops))
    told.rungs.try_everywhere(told.attempt)
    told.rungs.leave_in_float(told.attempt, _Shop(ratio), None)  # type: ignore[arg-type]
    assert told.rungs.chosen == chosen
    found = told.ledger.result.find("int8 with 1 in float")
    assert found.status == ("kept" if drops[1] < 1 else "over budget")
    assert found.recipe[0]["layers"] == {"conv1": 0}
    assert "int8 is slower than float in conv1" in found.reason
    assert f"{ratio:.3f} of its time" in found.reason


def test_a_layer_is_slower_if_it_always_is_and_by_what_matters() -> None:
    theirs = {"a": [1.0, 1.1], "b": [1.0, 1.1], "c": [1.0, 1.1], "whole": [90.0, 90.0]}
    mine = {"a": [3.0, 3.1], "b": [0.9, 3.0], "c": [1.12, 1.12], "whole": [40.0, 40.0]}
    assert clearly_slower(mine, theirs, ["a", "b", "c", "d"]) == ["a"]
    assert clearly_slower(mine | {"whole": [400.0]}, theirs, ["a", "b", "c", "d"]) == []


def _task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)


def test_profiles_of_both_files_name_the_same_layers(tmp_path: Path) -> None:
    task = _task()
    network = capture(task.model, task.example)
    shop = Workshop(task, tmp_path, 0.95, 0, OnnxRuntime())
    shop.make(BASELINE, network)
    shop.make(INT8, Quantize(samples=8)(network, task))
    times = shop.time([INT8], 0.1)[INT8]
    assert set(slower_layers(shop, INT8, network, times)) <= {"0", "3"}
    profiles = _profiles(shop, (INT8, BASELINE), 8)
    assert all({"0", "3"} <= set(one) for one in profiles)
    (recipe,) = in_float((Quantize(samples=8),), ["3"])
    assert isinstance(recipe, Quantize)
    kept = recipe(network, task)
    assert [str(layer.meta["layer"]) for layer in weight_grids(kept)] == ["0"]


def test_a_target_without_int8_is_a_problem_of_quantized_networks() -> None:
    target, task = all_targets()["x86-server"], _task()
    network = Quantize(samples=8)(capture(task.model, task.example), task)
    assert OnnxRuntime().problems(network, target) == []
    target = replace(target, precisions=("float32",))
    (line,) = OnnxRuntime().problems(network, target)
    assert line == "the network is quantized, and x86-server has no int8; it has float32"
    assert OnnxRuntime().problems(capture(nn.Linear(3, 2), torch.randn(2, 3)), target) == []
