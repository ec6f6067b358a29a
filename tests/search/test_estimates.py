"""Fits for devices that aren't here: estimates in place of times, and they are called so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest

from penjing.contract import Artifact, Estimate, Placement
from penjing.errors import InputError, MachineError
from penjing.measure import costs
from penjing.measure.work import work
from penjing.network import capture
from penjing.passes import Quantize
from penjing.report.answer import answer, how_measured
from penjing.report.table import headings
from penjing.report.write import write_report
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.registry import ENTRIES
from penjing.search.strategies import find_strategy
from penjing.targets import described, find_target
from penjing.trials.evaluation.estimates import Estimating
from penjing.trials.judgement.verdicts import BY_ESTIMATES
from penjing.trials.result import Result
from penjing.trials.trial import Status
from tests.fits import fit
from tests.instruments import small_task
from tests.reference_networks import NETWORKS, self_taught

QUANTIZED = ["plain_cnn", "resnet_a", "mobilenet_v2", "densenet", "vit_by_hand"]


@pytest.mark.parametrize("name", NETWORKS)
def test_work_is_the_macs_by_their_width(name: str) -> None:
    task = self_taught(name)
    network = capture(task.model, task.example)
    macs, _ = costs.totals(network)
    assert work(network) == macs
    assert work(network, halves=True) == macs / 2


@pytest.mark.parametrize("name", QUANTIZED)
def test_a_layer_of_integers_is_a_quarter(name: str) -> None:
    task = self_taught(name)
    network = capture(task.model, task.example)
    rounded = Quantize(samples=16)(network, task)
    assert 0.25 <= work(rounded) / work(network) < 0.5  # attention may stay in float


@pytest.fixture(scope="module")
def estimated(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("estimated") / "out"
    result = fit(
        small_task(), "raspberry-pi-5", 60.0, out=out, epochs=0.5, report=write_report,
        strategy=find_strategy("quick"),
    )  # fmt: skip
    return out, result


def test_what_is_counted_is_called_so(estimated: tuple[Path, Result]) -> None:
    out, result = estimated
    assert result.finished
    assert result.estimated_in == "million MACs"
    assert "nothing is timed" in result.notes[0]
    assert "is estimated to take" in answer(result)
    assert result.verdicts[0] == BY_ESTIMATES
    assert "not measured but estimated" in how_measured(result)
    assert "cost\nmillion MACs" in headings(result)
    assert "estimated cost" in (out / "report.html").read_text()
    assert "cost million MACs" in " ".join((out / "report.md").read_text().split())
    assert json.loads((out / "result.json").read_text())["estimated_in"] == "million MACs"
    assert Result.load(out) == result


def test_files_compare_by_their_estimates(estimated: tuple[Path, Result]) -> None:
    _, result = estimated
    whole = result.baseline.measurement
    for trial in result.everything:
        figures = trial.measurement
        if trial.status == Status.FAILED or figures.latency is None:
            continue
        assert figures.estimate is not None
        assert figures.latency.windows == 0
        assert figures.latency.ratio == pytest.approx(
            figures.estimate.latency_ms / whole.estimate.latency_ms  # type: ignore[union-attr,operator]
        )
    integers = next(trial for trial in result.trials if trial.methods == ["Quantize"])
    assert integers.latency is not None
    assert integers.latency.ratio == pytest.approx(0.25)
    assert all(layer.before is None or layer.before.latency_ms is None
               for layer in result.layers.rows)  # fmt: skip


def test_a_fit_that_was_interrupted_estimates_again(tmp_path: Path) -> None:
    """The original's estimate is made anew from its file, and is what it was."""
    seen: list[str] = []

    def stop(stage: str, *_: object) -> None:
        seen.append(stage)
        if stage.startswith("int8") and "measuring" in stage:
            raise KeyboardInterrupt

    options: dict[str, Any] = {"epochs": 0.5, "strategy": find_strategy("quick")}
    first = fit(small_task(), "x86-server", 60.0, out=tmp_path / "o", progress=stop, **options)
    assert not first.finished
    again = fit(small_task(), "x86-server", 60.0, out=tmp_path / "o", resume=True, **options)
    whole = fit(small_task(), "x86-server", 60.0, out=tmp_path / "whole", **options)
    times = [[t.latency for t in result.everything] for result in (again, whole)]
    assert times[0] == times[1]


def test_milliseconds_that_nobody_estimates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`max_ms` can't be kept on target raspberry-pi-5"):
        fit(small_task(), "raspberry-pi-5", out=tmp_path / "o", max_ms=5.0)
    assert not (tmp_path / "o" / "result.json").exists()


@pytest.mark.parametrize("name", described())
def test_every_described_device_has_a_way_or_says_why(name: str, tmp_path: Path) -> None:
    out = tmp_path / "o"
    if all(ENTRIES[runtime].absent for runtime in described()[name].runtimes):
        with pytest.raises(MachineError, match="nothing that holds floats and runs on target"):
            fit(small_task(), name, out=out)
        return
    result = fit(small_task(), name, 60.0, 0.001, out)
    assert result.estimated_in
    assert any(trial.latency is not None for trial in result.trials)


class Compiled(OnnxRuntime):
    """An NPU's compiler, which leaves some layers to the processor."""

    left: ClassVar[tuple[str, ...]] = ()
    milliseconds: ClassVar[float] = 0.5

    def estimate(self, artifact: Artifact) -> Estimate:
        return Estimate("a compiler", "a board", self.milliseconds, 500_000)

    def placement(self, artifact: Artifact) -> list[Placement]:
        rows = [Placement(name, "conv", "cpu", "unsupported") for name in self.left]
        return [*rows, Placement("features.0/CONV_2D", "conv", "npu", "")]


def test_what_an_npu_leaves_to_the_processor_counts() -> None:
    task = self_taught("plain_cnn")
    network = capture(task.model, task.example)
    layers = {cost.layer: cost.macs for cost in costs.costs(network) if cost.macs}
    first = next(iter(layers))
    estimating = Estimating(find_target("arm-corstone-300"), network, clock=1e9)
    nothing = Artifact(Path("f"), "onnxruntime", 1, "")

    def estimate(*left: str) -> float:
        compiler = type("One", (Compiled,), {"left": left})()
        told = estimating.of(compiler, nothing, network, "float32")
        assert told.source == "a compiler"
        assert told.latency_ms is not None
        return told.latency_ms

    assert estimate() == 0.5
    for name in (first, f"{first}/CONV_2D"):
        assert estimate(name) == pytest.approx(0.5 + 1e3 * layers[first] / 1e9)


def test_what_a_compiler_gives_no_time_for_is_counted() -> None:
    """An estimate of no time at all would be better than any."""
    task = self_taught("plain_cnn")
    network = capture(task.model, task.example)
    estimating = Estimating(find_target("arm-corstone-300"), network, clock=1e9)
    compiler = type("None", (Compiled,), {"milliseconds": 0.0})()
    told = estimating.of(compiler, Artifact(Path("f"), "onnxruntime", 1, ""), network, "float32")
    assert told.source == "counted by penjing"
    assert told.latency_ms is not None
    assert told.latency_ms > 0
