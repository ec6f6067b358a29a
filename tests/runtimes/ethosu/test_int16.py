"""Values of 16 bits through LiteRT and Vela: the network's numbers, and all of it on the NPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.tasks.task import Task
from tests.passes.rounding.test_int16 import Branches, task_of
from tests.passes.rounding.test_quantize import Small
from tests.runtime_networks import gap

if ENTRIES["ethosu"].missing:
    pytest.skip(f"needs {', '.join(ENTRIES['ethosu'].missing)}", allow_module_level=True)

from penjing.quiet import quiet

with quiet():
    from penjing.runtimes.ethosu.by_tflite import EthosU
    from penjing.runtimes.tflite import file as tflite_file

CASES: list[tuple[Callable[[], nn.Module], tuple[str, ...]]] = [
    (Branches, ("last",)), (Branches, ("stem",)), (Branches, ("left",)),
    (Branches, ("right", "join")), (Branches, ("stem", "left", "right", "join", "last")),
    (Small, ("linear",)), (Small, ("conv1",)),
]  # fmt: skip


def _made(model: nn.Module, layers: tuple[str, ...]) -> tuple[Network, Task]:
    task = task_of(model)
    quantize = Quantize(samples=64, int16=layers, **EthosU.constraints)
    return quantize(capture(task.model, task.example), task), task


@pytest.mark.parametrize(("make", "layers"), CASES)
def test_the_file_gives_the_network_s_numbers_on_the_npu_alone(
    make: Callable[[], nn.Module], layers: tuple[str, ...], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network, task = _made(make(), layers)
    artifact = EthosU().lower(network, tmp_path / "a_vela.tflite")
    x = task.train[1][0]  # type: ignore[index]
    assert gap(network, EthosU().load(artifact), x) < 0.05
    assert {one.unit for one in EthosU().placement(artifact)} == {"npu"}


def test_layers_of_16_bits_have_weights_of_eight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, _ = _made(Branches(), ("join",))
    artifact = find_runtime("litert").lower(network, tmp_path / "a.tflite")
    model = tflite_file.read(artifact.path.read_bytes())
    tensors = model.subgraphs[0].tensors
    kinds = {
        operator.name.split("/")[0]: tuple(
            tflite_file.TYPES[tensors[place].type]
            for place in (*operator.inputs[:3], *operator.outputs)
        )
        for operator in tflite_file.operators(model)
        if operator.kind in ("CONV_2D", "FULLY_CONNECTED")
    }
    eight, sixteen = ("INT8", "INT8", "INT32", "INT8"), ("INT16", "INT8", "INT64", "INT16")
    assert kinds == {"stem": eight, "left": eight, "right": eight, "join": sixteen, "last": sixteen}


def test_outputs_of_16_bits_are_told(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, _ = _made(Branches(), ("last",))
    artifact = EthosU().lower(network, tmp_path / "a_vela.tflite")
    (output,) = EthosU().signature(artifact).outputs
    assert (output.dtype, output.zero_point) == ("int16", 0)
    assert np.isclose(output.scale or 0, network.tensor("linear_scale").item())


class Ends(nn.Module):
    """Two results of a function whose scale is the same everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.fine(x).tanh(), self.coarse(x).tanh()


def test_other_values_of_the_same_scale_keep_eight_bits(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, task = _made(Ends(), ("fine",))
    artifact = EthosU().lower(network, tmp_path / "a_vela.tflite")
    fine, coarse = EthosU().signature(artifact).outputs
    assert (fine.dtype, fine.scale, coarse.dtype, coarse.scale) == (
        "int16", 2**-15, "int8", 2**-7,
    )  # fmt: skip
    x = task.train[1][0]  # type: ignore[index]
    assert gap(network, EthosU().load(artifact), x) < 0.05


def test_an_ethos_u85_has_none(tmp_path: Path) -> None:
    """Vela ends with a segmentation fault; when a newer one doesn't, `EthosU.int16` can change."""
    network, _ = _made(Small(), ("linear",))
    content = find_runtime("litert").lower(network, tmp_path / "a.tflite").path.read_bytes()
    with pytest.raises(InputError, match=r"16 bits; ethosu keeps values in 8.*Ethos-U55 or U65"):
        EthosU("ethos-u85-256").lower(network, tmp_path / "b_vela.tflite")
    with pytest.raises(InputError, match="Vela can't compile"):
        EthosU("ethos-u85-256").compile(content, tmp_path / "b_vela.tflite")
    assert EthosU("ethos-u65-256").compile(content, tmp_path / "b_vela.tflite").file_bytes


def test_tosa_has_none(tmp_path: Path) -> None:
    if ENTRIES["executorch-ethosu"].missing:
        pytest.skip("needs executorch")
    network, _ = _made(Small(), ("linear",))
    with pytest.raises(InputError, match="16 bits; executorch-ethosu keeps values in 8"):
        find_runtime("executorch-ethosu").lower(network, tmp_path / "a_vela.pte")


def test_the_file_says_which_kernels_it_needs(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network, _ = _made(Branches(), ("last",))
    artifact = find_runtime("litert").lower(network, tmp_path / "a.tflite")
    model = tflite_file.read(artifact.path.read_bytes())
    versions = {
        operator.name: model.operatorCodes[code.opcodeIndex].version
        for operator, code in zip(
            tflite_file.operators(model), model.subgraphs[0].operators, strict=True
        )
    }
    assert (versions["stem/CONV_2D"], versions["last/FULLY_CONNECTED"]) == (3, 7)
