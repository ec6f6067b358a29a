"""A fit for a board with an Ethos-U: the original on its processor, all else compiled by Vela."""

from __future__ import annotations

from pathlib import Path

import pytest

from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.search.strategies import find_strategy
from penjing.targets import find_target
from penjing.trials.result import Result
from tests.fits import fit
from tests.reference_networks import self_taught

if ENTRIES["ethosu"].missing:
    pytest.skip(f"needs {', '.join(ENTRIES['ethosu'].missing)}", allow_module_level=True)

BOARD = "arm-corstone-300"


@pytest.fixture(scope="module")
def fitted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Result]:
    out = tmp_path_factory.mktemp("npu") / "out"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
        result = fit(
            self_taught("plain_cnn"), BOARD, 60.0, out=out, epochs=0.5,
            strategy=find_strategy("quick"),
        )  # fmt: skip
    return out, result


def test_it_ends_with_a_file_for_the_npu(fitted: tuple[Path, Result]) -> None:
    out, result = fitted
    assert result.estimated_in == "ms"
    assert result.baseline.runtime == "litert"
    answer = result.answer
    assert answer.runtime == "ethosu"
    assert result.artifact is not None
    assert (out / result.artifact).name.endswith("_vela.tflite")
    runtime = find_runtime("ethosu").on(find_target(BOARD))
    artifact = runtime.artifact(out / result.artifact)
    estimate = answer.measurement.estimate
    assert estimate is not None
    assert estimate == runtime.estimate(artifact)
    assert "Vela" in estimate.source
    assert "ethos-u55-128" in estimate.machine.lower()
    assert {place.unit for place in runtime.placement(artifact)} == {"npu"}


def test_a_time_is_cycles_by_the_clock(fitted: tuple[Path, Result]) -> None:
    _, result = fitted
    clock = find_runtime("ethosu").on(find_target(BOARD)).clock_hz
    assert clock == 500e6
    for trial in result.trials:
        estimate = trial.measurement.estimate
        if trial.runtime == "ethosu" and estimate is not None:
            assert estimate.cycles is not None
            assert estimate.latency_ms == pytest.approx(1e3 * estimate.cycles / clock, rel=0.01)
    whole = result.baseline.measurement
    assert whole.estimate is not None
    assert whole.estimate.latency_ms == pytest.approx(1e3 * whole.macs / clock)  # type: ignore[operator]
