"""ExecuTorch on Ethos-U: all of it on the NPU, and what Vela is given computes as the network."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Array, Artifact
from penjing.errors import InputError
from penjing.measure.parity import parity
from penjing.network import Network, capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.registry import ENTRIES, runtime_of
from penjing.targets import find_target
from penjing.tasks.task import Task
from tests.passes.rounding.test_quantize import Small
from tests.runtime_networks import Gated, assert_damage_is_refused, assert_estimated_by_vela

if missing := ENTRIES["executorch-ethosu"].missing:
    pytest.skip(f"needs {', '.join(missing)}", allow_module_level=True)

from penjing.runtimes.ethosu.by_executorch import NOT_CODES, ExecuTorchEthosU
from penjing.runtimes.ethosu.by_tflite import EthosU

pytestmark = pytest.mark.filterwarnings("ignore")  # of ExecuTorch's own imports and exports


class Joined(nn.Module):
    """Two convolutions put together, a pool of maxima, a ReLU6, a mean with a scale of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(3, 4, 1)
        self.deep = nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.last = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.one(x).relu(), self.other(x)], 1)
        x = nn.functional.max_pool2d(nn.functional.relu6(self.deep(x) + x), 2)
        return self.last(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Clipped(nn.Module):
    """Activations that change the scale: after a pool, and of a value that has another reader."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.three, self.last = nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        x = self.two(x.relu()) + x
        return self.last(nn.functional.max_pool2d(self.three(x), 2).relu()).flatten(1)


class Curved(nn.Module):
    """Activations that are tables, a product and a difference, a layer behind each."""

    options: ClassVar[Mapping[str, Any]] = {"outputs": True}  # a table is one operator

    def __init__(self) -> None:
        super().__init__()
        self.one, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 8)
        self.some = nn.ModuleList(nn.Conv2d(8, 8, 1) for _ in range(9))

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        tables: list[Callable[[Tensor], Tensor]] = [
            nn.functional.hardswish, nn.functional.gelu, nn.functional.silu, torch.tanh,
            torch.sigmoid,
        ]  # fmt: skip
        for layer, table in zip(self.some, tables, strict=False):
            x = layer(table(x))
        x = self.some[5](x) * self.some[6](x)
        return self.last(self.some[7](x) - self.some[8](x)).flatten(1)


class Left(nn.Module):
    """What the NPU leaves: a norm after a concatenation, which nothing can be folded into, and an
    average whose scale changes and that isn't a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(7)
        self.last = nn.Conv2d(7, 5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(torch.cat([self.conv(x), x], 1)).relu()
        pooled = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        return self.last(pooled).flatten(1)


class Keeping(ExecuTorchEthosU):
    """Keeps what was given to Vela."""

    tosa: list[bytes]

    def run_vela(self, content: bytes, ending: str) -> Any:
        self.tosa.append(content)
        return super().run_vela(content, ending)


Made = tuple[Network, Task, Artifact, bytes]


def _rounded(model: nn.Module) -> tuple[Network, Task]:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5) for _ in range(4)]
    task = Task(model.eval(), batches[0][0][:2], batches, batches)
    options = getattr(model, "options", ExecuTorchEthosU.constraints)
    return Quantize(samples=64, **options)(capture(task.model, task.example), task), task


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Callable[[type[nn.Module], str], Made]:
    known: dict[tuple[type[nn.Module], str], Made] = {}

    def make(kind: type[nn.Module], accelerator: str) -> Made:
        if (kind, accelerator) not in known:
            torch.manual_seed(1)
            network, task = _rounded(kind())
            runtime = Keeping(accelerator)
            object.__setattr__(runtime, "tosa", [])
            path = tmp_path_factory.mktemp("file") / "a_vela.pte"
            artifact = runtime.lower(network, path)
            known[kind, accelerator] = network, task, artifact, runtime.tosa[0]
        return known[kind, accelerator]

    return make


CASES = [
    (Small, "ethos-u55-128"), (Small, "ethos-u85-256"), (Joined, "ethos-u65-256"),
    (Clipped, "ethos-u55-128"), (Curved, "ethos-u85-256"),
    (Gated, "ethos-u55-128"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "accelerator"), CASES)
def test_every_operator_runs_on_the_npu(
    kind: type[nn.Module], accelerator: str, made: Callable[..., Made]
) -> None:
    _, task, artifact, _ = made(kind, accelerator)
    runtime = ExecuTorchEthosU(accelerator)
    places = runtime.placement(artifact)
    assert {one.unit for one in places} == {"npu"}
    layers = {name for name, one in task.model.named_modules() if hasattr(one, "weight")}
    assert {one.name for one in places} >= {one for one in layers if not one.startswith("bn")}
    assert_estimated_by_vela(runtime.estimate(artifact), accelerator)
    assert runtime.weight_bytes(artifact) > 0


@pytest.mark.parametrize(("kind", "accelerator"), CASES)
def test_what_vela_is_given_computes_as_the_network_does(
    kind: type[nn.Module], accelerator: str, made: Callable[..., Made]
) -> None:
    """Arm's reference model of TOSA, from int8 to int8 with the file's own scales."""
    network, task, artifact, tosa = made(kind, accelerator)
    told = _scales(artifact)
    inputs = next(iter(task.test))[0]
    with torch.no_grad():
        want = network(inputs).numpy()
    found = np.concatenate([_tosa(tosa, one[None], told) for one in inputs.numpy()])
    step = told["output0_scale"]
    assert np.abs(found - want).max() <= 1.01 * step
    assert want.std() > 5 * step
    here = ExecuTorchEthosU().load(artifact).run(inputs.numpy())
    assert np.abs(here - want).max() <= 1.01 * step
    assert parity(network, ExecuTorchEthosU().load(artifact), task.test).same_decisions > 0.95  # type: ignore[operator]


def _scales(artifact: Artifact) -> dict[str, float]:
    from executorch.runtime import Runtime

    program = Runtime.get().load_program(artifact.path.read_bytes())
    names = program.method_names - {"forward"}
    return {name: program.load_method(name).execute(())[0] for name in names}


def _tosa(tosa: bytes, one: Array, told: dict[str, float]) -> Array:
    import tosa_reference_model

    codes = np.round(one / np.float32(told["input0_scale"])) + told["input0_zp"]
    codes = codes.clip(told["input0_quant_min"], told["input0_quant_max"]).astype(np.int8)
    (found,), status = tosa_reference_model.run(
        tosa, [codes], verbosity="LOW", initialize_variable_tensor_from_numpy=True
    )
    assert status == tosa_reference_model.GraphStatus.TOSA_VALID
    assert found.dtype == np.int8
    return (found.astype(np.float32) - told["output0_zp"]) * np.float32(told["output0_scale"])


def test_what_falls_back_is_named_with_the_reason(tmp_path: Path) -> None:
    network, _ = _rounded(Left())
    runtime = ExecuTorchEthosU()
    artifact = runtime.lower(network, tmp_path / "a_vela.pte")
    places = runtime.placement(artifact)
    why = {one.operator: one.why for one in places if one.unit == "cpu"}
    assert why.pop("aten._native_batch_norm_legit_no_training.default").startswith("Not included")
    assert why.pop("aten.avg_pool2d.default") == NOT_CODES
    assert why
    assert all(why.values())
    assert {one.unit for one in places if "convolution" in one.operator} == {"npu"}
    assert (runtime.estimate(artifact).cycles or 0) > 0


def test_a_changed_file_is_refused(
    made: Callable[..., Made], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert_damage_is_refused(ExecuTorchEthosU(), made(*CASES[0])[2], monkeypatch)


def test_the_file_is_the_runtimes_and_its_twin_executorchs(made: Callable[..., Made]) -> None:
    first, twin, report = ExecuTorchEthosU().files(made(*CASES[0])[2].path)
    assert runtime_of(first).name == "executorch-ethosu"
    assert runtime_of(twin).name == "executorch"
    litert = EthosU().files(first.with_suffix(".tflite"))
    assert not {first, twin, report} & set(litert)


@pytest.mark.parametrize(
    ("rounding", "text"),
    [
        (None, r"computes on int8.*Quantize\(outputs=True\)"),
        (Quantize(activations=None), r"the network isn't quantized"),
        (Quantize(activations=4, outputs=True), r"values have 4 bits; executorch-ethosu keeps"),
    ],
)
def test_what_the_npu_has_no_integers_for_is_refused(
    rounding: Quantize | None, text: str, tmp_path: Path
) -> None:
    _, task = _rounded(Small())
    network = capture(task.model, task.example)
    network = network if rounding is None else rounding(network, task)
    with pytest.raises(InputError, match=text):
        ExecuTorchEthosU().lower(network, tmp_path / "a_vela.pte")
    found = ExecuTorchEthosU().problems(network, find_target("arm-corstone-300"))
    assert any(re.search(text, one) for one in found)
    assert not list(tmp_path.iterdir())
