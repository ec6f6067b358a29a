"""Other runtimes in a fit: tried, timed beside the first one, chosen if faster, delivered whole."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import onnx
import pytest
import torch
from torch import nn

from penjing.contract import Artifact, Latency, Measurement, Session
from penjing.data import Arrays
from penjing.errors import MachineError
from penjing.files import write_atomically
from penjing.measure import latency
from penjing.network import Network, capture
from penjing.network.fake_quantized import value_grids
from penjing.passes import PruneChannels, Quantize
from penjing.runtimes import registry
from penjing.runtimes.onnxruntime import OnnxRuntime
from penjing.runtimes.registry import Entry
from penjing.search.elsewhere import Elsewhere, Way
from penjing.search.fit import fit
from penjing.search.fixed_list import FixedList
from penjing.search.ledger import Ledger
from penjing.search.result import Candidate, Result
from penjing.search.workshop import BASELINE, Workshop
from penjing.targets import this_machine
from penjing.task import Task

pytestmark = pytest.mark.alone

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


@pytest.fixture(autouse=True)
def short_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is timed here means nothing, so that a tenth of the seconds is enough."""
    whole = latency.compare

    def compare(
        sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
    ) -> dict[str, Latency]:
        return whole(sessions, inputs, baseline, 0.1 * seconds, seed)

    monkeypatch.setattr(latency, "compare", compare)


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
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    data = Arrays(x, y, batch_size=20)
    train = data.subset(torch.arange(0, 120, 2))  # the rest judges; a test needs no more of it
    judge = data.subset(torch.arange(1, 120, 2))
    return Task(model.eval(), x[:2], train, judge, judge)


@pytest.mark.usefixtures("twin")
def test_a_fit_tries_the_original_and_int8_in_every_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    demands = {"outputs": True}
    monkeypatch.setattr("penjing.search.fixed_list.ELSEWHERE_SHARE", 100.0)
    monkeypatch.setattr(Twin, "demands", demands)
    result = fit(_task(), "cpu", 5.0, 0.1, tmp_path / "out")
    found = {one.name: one for one in result.candidates}
    for base in ("original", "int8"):
        mine, usual = found[f"{base} in twin"], result.find(base)
        assert mine.runtime == "twin"
        rounding = demands if base == "int8" else {}
        assert list(mine.recipe) == [{**step, **rounding} for step in usual.recipe]
        if not rounding:  # else it is another file
            assert mine.measurement.score == usual.measurement.score
        assert mine.measurement.latency is not None
        assert any(line.startswith(f"{mine.name} against {base}: ") for line in result.verdicts)
    chosen = result.find(result.chosen)
    ending = ".twin" if chosen.runtime == "twin" else ".onnx"
    assert result.artifact == f"model{ending}"
    files = registry.find_runtime(chosen.runtime).files(tmp_path / "out" / result.artifact)
    assert all(one.exists() for one in files)
    assert Result.load(tmp_path / "out") == result


def test_what_is_cut_and_rounded_is_rounded_anew_as_a_runtime_demands(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Twin, "demands", {"symmetric": True})
    task = _task()
    original = capture(task.model, task.example)
    result = Result(
        "t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, Candidate(BASELINE, (), "baseline")
    )
    search = FixedList(
        Ledger(tmp_path, result),
        Workshop(task, tmp_path, 0.95, 0, OnnxRuntime()),
        this_machine(),
        original,
        0.0,
        1.0,
        lambda *_: None,
        lambda: None,
    )
    cut = PruneChannels(0.5)
    search.cuts["cut"], search.networks["cut"] = (cut,), cut(original, task)
    search.networks["cut + int8"] = Quantize(samples=32)(search.networks["cut"], task)
    search.elsewhere.made["cut + int8 in twin"] = ("cut + int8", Way(Twin()))
    found = search._as_demanded("cut + int8 in twin")
    values = value_grids(found)
    assert values
    assert all(grid.zero_point == 128 for grid in values)
    assert found.tensor("0.weight").shape == search.networks["cut"].tensor("0.weight").shape
    steps = search._recipe("cut + int8 in twin")
    assert [step["method"] for step in steps] == ["PruneChannels", "Quantize"]
    assert steps[-1]["symmetric"]
    assert not search._recipe("cut + int8")[-1]["symmetric"]


def _timed(name: str, low: float, high: float, status: str = "kept") -> Candidate:
    latency = Latency(1, 1, (low + high) / 2, low, high, 20)
    return Candidate(name, (), status, "", Measurement(latency=latency), runtime="twin")


@pytest.mark.parametrize(
    ("found", "goes_on"),
    [
        ([_timed("int8 in twin", 0.3, 0.4)], True),
        ([_timed("int8 in twin", 0.45, 0.55)], False),
        ([_timed("int8 in twin", 0.3, 0.4, "over budget")], False),
        ([_timed("original in twin", 0.3, 0.4)], True),
    ],
)
def test_a_runtime_goes_on_only_if_it_is_faster_beyond_doubt(
    found: list[Candidate], goes_on: bool
) -> None:
    twin = Way(Twin())
    elsewhere = Elsewhere(Way(OnnxRuntime()), [twin])
    names = elsewhere.add_everywhere(["original", "int8"], ["int8"])
    assert names == ["original in twin", "int8 in twin"]
    elsewhere.choose(0.5, found)
    assert elsewhere.chosen is (twin if goes_on else None)
    made = elsewhere.add_in_chosen(["prune 25 %", "prune 25 % + int8"], ["prune 25 % + int8"])
    assert made == ["prune 25 % in twin", "prune 25 % + int8 in twin"] * goes_on


def test_what_is_rounded_is_not_made_in_half_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Twin, "half_values", True)
    monkeypatch.setattr(OnnxRuntime, "half_values", True)
    usual, twin = OnnxRuntime(), Twin()
    halves = [Way(usual, "float16"), Way(twin), Way(twin, "float16")]
    elsewhere = Elsewhere(Way(usual), halves)
    assert elsewhere.add_everywhere(["original", "int8"], ["int8"]) == [
        "original in float16", "original in twin", "int8 in twin", "original in float16 in twin",
    ]  # fmt: skip
    assert elsewhere.base("original in float16 in twin") == "original"
    assert elsewhere.way("original in float16") == halves[0]
    elsewhere.choose(0.9, [_timed("original in float16", 0.3, 0.4)])
    assert elsewhere.chosen == halves[0]
    assert elsewhere.add_in_chosen(["cut", "cut + int8"], ["cut + int8"]) == ["cut in float16"]


def test_a_fit_tries_float16_where_the_runtime_computes_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("penjing.search.fixed_list.ELSEWHERE_SHARE", 100.0)
    monkeypatch.setattr(OnnxRuntime, "half_values", True)  # it does, slowly
    only = replace(this_machine(), runtimes=("onnxruntime",), precisions=PRECISIONS)
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: only)
    result = fit(_task(), "cpu", 5.0, 0.1, tmp_path / "out")
    halves = [one for one in result.candidates if one.floats == "float16"]
    assert "original in float16" in [one.name for one in halves]
    for one in halves:
        assert one.status != "failed", one.reason
        assert one.measurement.latency is not None
        usual = result.find(one.name.removesuffix(" in float16"))
        assert one.measurement.file_bytes < 0.6 * usual.measurement.file_bytes
        assert any(
            line.startswith(f"{one.name} against {usual.name}: ") for line in result.verdicts
        )
    assert Result.load(tmp_path / "out") == result


@pytest.mark.usefixtures("twin")
def test_a_fit_is_made_in_the_targets_first_runtime(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Twin, "demands", {"symmetric": True})
    there = replace(this_machine(), runtimes=("twin",))
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: there)
    result = fit(_task(), "cpu", 5.0, 0.1, tmp_path / "out")
    assert {one.status for one in result.candidates} >= {"kept"}
    assert {one.runtime for one in result.everything} == {"twin"}
    assert all(one.artifact.endswith(".twin") for one in result.everything if one.artifact)
    assert not any("too little time to try" in line for line in result.notes)
    int8 = result.find("int8")
    assert int8.recipe[-1]["symmetric"]
    graph = onnx.load(tmp_path / "out" / int8.artifact).graph
    known = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    zeros = [known[one.input[2]] for one in graph.node if one.op_type == "QuantizeLinear"]
    assert zeros
    assert all(zero == 128 for zero in zeros)


def test_a_target_whose_runtimes_are_all_absent_is_refused_in_one_line() -> None:
    nowhere = replace(this_machine(), name="nowhere", runtimes=("onnxruntime-nnapi",))
    with pytest.raises(MachineError, match=r"target nowhere is here; onnxruntime-nnapi: .*; needs"):
        registry.first_runtime(nowhere)
