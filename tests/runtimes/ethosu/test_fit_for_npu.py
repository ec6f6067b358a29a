"""A fit for a board with an Ethos-U: the original on its processor, all else compiled by Vela."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.search.strategies import find_strategy
from penjing.targets import find_target
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
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
    assert "Ethos_U55_128" in estimate.machine
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
    cycles = whole.macs + 4 * whole.params  # type: ignore[operator]  # a cycle a byte of weights
    assert whole.estimate.latency_ms == pytest.approx(1e3 * cycles / clock, rel=0.01)


def test_an_original_that_is_too_large_is_only_the_measure(tmp_path: Path) -> None:
    """Its float weights exceed the board's flash, and integers don't."""
    torch.manual_seed(0)
    x, y = torch.randn(360, 3, 8, 8), torch.arange(360) % 4
    with torch.no_grad():
        x += 2 * torch.nn.functional.one_hot(y, 4).repeat(1, 48).view(360, 3, 8, 8)
    model = torch.nn.Sequential(
        torch.nn.Flatten(), torch.nn.Linear(192, 4096), torch.nn.ReLU(), torch.nn.Linear(4096, 4)
    )
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(20):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x[:120]), y[:120])
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    train, validation, test = (Arrays(x[at : at + 120], y[at : at + 120]) for at in (0, 120, 240))
    task = Task(model.eval(), x[:2], train, validation=validation, test=test)
    result = fit(task, "nucleo-h743zi", 20.0, 0.01, tmp_path / "out")
    assert result.estimated_in == "million MACs"
    assert result.chosen.startswith("int8")
    size = result.answer.measurement.file_bytes
    flash = find_target("nucleo-h743zi").flash_bytes
    assert size is not None
    assert flash is not None
    assert size < flash < (result.baseline.measurement.file_bytes or 0)
