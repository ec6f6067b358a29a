"""Other runtimes in a fit: tried, timed beside the first one, chosen if faster, delivered whole."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import onnx
import pytest
import torch
from torch import nn

from penjing.contract import Artifact, Drop, Latency, Measurement
from penjing.errors import MachineError
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.graph.qparams import value_qparams
from penjing.runtimes import registry
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.registry import Entry
from penjing.search.schedule import Schedule
from penjing.search.strategies.rounding import Rounding
from penjing.search.study import Study
from penjing.search.ways import Way, Ways
from penjing.targets import this_machine
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials.ledger import Ledger
from penjing.trials.result import Result
from penjing.trials.trial import ORIGINAL, Status, Trial
from penjing.tune.options import TuneOptions
from tests.fits import fit
from tests.instruments import Another, Direct, Told, only, small_task

PRECISIONS = ("float32", "float16", "int8")


class Twin(OnnxRuntime):
    """ONNX Runtime under another name, with a second file."""

    name: ClassVar[str] = "twin"
    ending: ClassVar[str] = ".twin"

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        write_atomically(path.with_suffix(".extra"), b"more")
        return super().lower(network, path, floats)

    def files(self, path: Path) -> tuple[Path, ...]:
        return (path, path.with_suffix(".extra"))


@pytest.fixture
def twin(monkeypatch: pytest.MonkeyPatch) -> None:
    """This machine has it beside ONNX Runtime."""
    place = f"{__name__}:Twin"
    monkeypatch.setitem(registry.ENTRIES, "twin", Entry(place, ".twin", ("onnxruntime",), "", "x"))
    here = replace(this_machine(), runtimes=("onnxruntime", "twin"))
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: here)


def _task() -> Task:
    torch.manual_seed(0)
    x, y = torch.randn(120, 3, 8, 8), torch.arange(120) % 4
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    data = Arrays(x, y, batch_size=20)
    train = data.subset(torch.arange(0, 120, 2))  # the rest judges; a test needs no more of it
    judge = data.subset(torch.arange(1, 120, 2))
    return Task(model.eval(), x[:2], train, judge, judge)


def _fit(out: Path) -> Result:
    """One in which every file takes as long as the original."""
    told = Told(lambda _: 1.0).instruments()
    return fit(_task(), "cpu", 5.0, out=out, epochs=1, instruments=told)


@pytest.mark.usefixtures("twin")
def test_a_fit_tries_the_original_and_int8_in_every_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constraints = {"outputs": True}
    monkeypatch.setattr(Twin, "constraints", constraints)
    result = _fit(tmp_path / "out")
    found = {one.title: one for one in result.trials}
    for base in ("original", "int8"):
        titled = base if base == "original" else f"{base} in onnxruntime"
        mine, usual = found[f"{base} in twin"], result.find(titled)
        assert mine.runtime == "twin"
        rounding = constraints if base == "int8" else {}
        steps = [{**step, **rounding} for step in usual.candidate.recipe]
        assert list(mine.candidate.recipe) == steps
        if not rounding:  # else it is another file
            assert mine.measurement.score == usual.measurement.score
        assert mine.measurement.latency is not None
        beside = f"{'the ' if base == 'original' else ''}{result.named(usual)}"
        assert any(
            line.startswith(f"{mine.title}, compared with {beside}: ") for line in result.verdicts
        )
    chosen = result.find(result.chosen)
    ending = ".twin" if chosen.runtime == "twin" else ".onnx"
    assert result.artifact == f"model{ending}"
    files = registry.find_runtime(chosen.runtime).files(tmp_path / "out" / result.artifact)
    assert all(one.exists() for one in files)
    assert Result.load(tmp_path / "out") == result


def test_what_is_cut_and_rounded_is_rounded_as_its_runtime_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Another, "constraints", {"symmetric": True})
    only(monkeypatch, Direct, Another)
    told = Told(lambda name: 0.5 if name == "int8 in another" else 0.4 if "+" in name else 1.0)
    result = fit(
        small_task(), max_drop=60.0, out=tmp_path, epochs=1, instruments=told.instruments()
    )
    both = result.find("prune 25 % + int8 in another")
    assert [step["method"] for step in both.candidate.recipe] == [
        "PruneChannels", "Compensate", "Tune", "Quantize",
    ]  # fmt: skip
    assert both.candidate.recipe[-1]["symmetric"]
    assert not result.find("int8 in direct").candidate.recipe[-1]["symmetric"]
    values = value_qparams(Direct.networks[str(both.sha256)])
    assert values
    assert all(qparams.zero_point == 128 for qparams in values)
    plain = result.find("prune 25 % in direct")  # which gains nothing in another
    assert plain.candidate.recipe == both.candidate.recipe[:-1]


def _timed(ratio: float) -> Measurement:
    latency = Latency(1, 1, ratio, 0.98 * ratio, 1.02 * ratio, 20)
    return Measurement(latency=latency, drop=Drop(0.1, 0.2, 0.95, 1000), file_bytes=100)


@pytest.mark.parametrize(
    ("usual", "twin", "goes_on"),
    [
        ((0.5, Status.KEPT), (0.4, Status.KEPT), "twin"),
        ((0.4, Status.KEPT), (0.5, Status.KEPT), "onnxruntime"),
        ((0.5, Status.KEPT), (0.3, Status.OVER_BUDGET), "onnxruntime"),
        ((0.3, Status.OVER_BUDGET), (0.5, Status.KEPT), "twin"),
        ((1.3, Status.KEPT), (1.2, Status.KEPT), "twin"),
    ],
)
def test_the_way_that_goes_on_is_the_fastest_in_which_the_budget_is_kept(
    usual: tuple[float, Status], twin: tuple[float, Status], goes_on: str, tmp_path: Path
) -> None:
    ways = Ways(Way(OnnxRuntime()), [Way(Twin())])
    original = Trial(ways.usual.candidate(), ORIGINAL, Status.BASELINE, measurement=_timed(1.0))
    result = Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, original)
    ledger = Ledger.begin(tmp_path, result)
    ledger.record(original)
    study = Study(
        this_machine(), ways, Schedule(lambda: 0.0, 1e9), TuneOptions(), ledger,
        evaluator=None,  # type: ignore[arg-type]  # nothing is measured
    )  # fmt: skip
    rounding = Rounding(study)
    proposals, told = rounding.try_everywhere(), {"onnxruntime": usual, "twin": twin}
    trials = None
    with contextlib.suppress(StopIteration):
        while True:
            (proposal,) = proposals.send(trials)  # type: ignore[arg-type]
            ratio, status = told[proposal.candidate.runtime]
            trial = Trial(proposal.candidate, proposal.title, status, "", _timed(ratio))
            ledger.record(trial)
            trials = [trial]
    assert rounding.way.runtime.name == goes_on
    assert rounding.trial is not None
    assert rounding.trial.title == f"int8 in {goes_on}"


def test_what_is_rounded_is_not_made_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twin, "half_values", True)
    monkeypatch.setattr(OnnxRuntime, "half_values", True)
    usual, twin = OnnxRuntime(), Twin()
    ways = [Way(usual, "float16"), Way(twin), Way(twin, "float16")]
    every = Ways(Way(usual), ways)
    assert every.integer == [Way(usual), Way(twin)]
    assert [every.title("original", way) for way in (Way(usual), *ways)] == [
        "original in onnxruntime", "original in float16 in onnxruntime", "original in twin",
        "original in float16 in twin",
    ]  # fmt: skip


def test_a_fit_tries_float16_where_the_runtime_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntime, "half_values", True)  # it does, slowly
    only = replace(this_machine(), runtimes=("onnxruntime",), precisions=PRECISIONS)
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: only)
    result = _fit(tmp_path / "out")
    halves = [one for one in result.trials if one.candidate.floats == "float16"]
    assert "original in float16" in [one.title for one in halves]
    for one in halves:
        assert one.status != "failed", one.reason
        assert one.measurement.latency is not None
        usual = result.find(one.title.removesuffix(" in float16"))
        mine, its = one.measurement.file_bytes, usual.measurement.file_bytes
        assert mine is not None
        assert its is not None
        assert mine < 0.6 * its
        assert any(
            line.startswith(f"{one.title}, compared with {'the ' * (usual.title == 'original')}")
            and f"{usual.title}: " in line
            for line in result.verdicts
        )
    assert Result.load(tmp_path / "out") == result


@pytest.mark.usefixtures("twin")
def test_a_fit_is_made_in_the_targets_first_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Twin, "constraints", {"symmetric": True})
    there = replace(this_machine(), runtimes=("twin",))
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: there)
    result = _fit(tmp_path / "out")
    assert {one.status for one in result.trials} >= {"kept"}
    assert {one.runtime for one in result.everything} == {"twin"}
    assert all(one.artifact.endswith(".twin") for one in result.everything if one.artifact)
    assert not any("too little time to try" in line for line in result.notes)
    int8 = result.find("int8")
    assert int8.candidate.recipe[-1]["symmetric"]
    assert int8.artifact is not None
    graph = onnx.load(tmp_path / "out" / int8.artifact).graph
    known = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [known[one.input[2]] for one in graph.node if one.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero == 128 for zero in zeros)


def test_a_target_whose_runtimes_are_all_absent_is_refused_in_one_line() -> None:
    nowhere = replace(this_machine(), name="nowhere", runtimes=("onnxruntime-nnapi",))
    with pytest.raises(MachineError, match=r"target nowhere is here; onnxruntime-nnapi: .*; needs"):
        registry.first_runtime(nowhere)
