"""MatMulNBits: four-bit groups are one node in the file, and the numbers are the graph's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import Tensor, nn

from penjing.network import Network, capture
from penjing.network.lowering.integers import INTEGERS
from penjing.runtimes.onnx.matmul_nbits import with_matmul_nbits
from penjing.runtimes.onnx.profile import seconds_by_layer, weight_bytes
from penjing.runtimes.onnx.runtime import OnnxRuntime


class Grouped(nn.Module):
    """A linear layer whose weight is codes in groups, padded to whole ones."""

    weight: Tensor
    kind: torch.dtype = torch.int8

    def __init__(
        self, inputs: int, outputs: int, size: int = 32, bias: bool = True,
        zeros: bool = True, codes: tuple[int, int] = (-8, 7),
    ) -> None:  # fmt: skip
        super().__init__()
        groups = -(-inputs // size)
        self.inputs, self.size = inputs, size
        low, high = codes
        draw = torch.Generator().manual_seed(0)  # made when this file is read, before any seed
        codes_of_all = torch.randint(low, high + 1, (outputs, groups * size), generator=draw)
        self.register_buffer("weight", codes_of_all.to(self.kind))
        scales = torch.rand(outputs, groups, generator=draw) * 0.1 + 0.01
        self.register_buffer("weight_scale", scales)
        ends = max(low, -8), min(high, 7) + 1
        middle = torch.randint(*ends, (outputs, groups), generator=draw).int()
        self.register_buffer("weight_zero_point", middle if zeros else None)
        self.bias = nn.Parameter(torch.randn(outputs)) if bias else None

    def real(self) -> Tensor:
        parts = (self.weight, self.weight_scale, self.weight_zero_point)
        limits = torch.iinfo(self.kind)
        found = INTEGERS.dequantize_per_channel_group.default(
            *parts, limits.min, limits.max, self.kind, self.size, torch.float32
        )
        padded = found.shape[1] != self.inputs
        return found[:, : self.inputs] if padded else found

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.real(), self.bias)


class Unsigned(Grouped):
    """The same with codes that have no sign."""

    kind = torch.uint8


class Named(nn.Sequential):
    """With a parameter, which a network has to have."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__(*layers)
        self.shift = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self:
            x = layer(x)
        return x + self.shift


def network_of(*layers: nn.Module, inputs: tuple[int, ...]) -> Network:
    return capture(Named(*layers).eval(), torch.randn(2, *inputs))


def lowered(network: Network, folder: Path) -> tuple[onnx.ModelProto, float, Path]:
    """The file, and how far its numbers are from the network's, relative to their spread."""
    artifact = OnnxRuntime().lower(network, folder / "a.onnx")
    shape = (5, *network.example.shape[1:])
    x = torch.randn(shape)
    with torch.no_grad():
        want = network(x).numpy()
    found = OnnxRuntime().load(artifact).run(x.numpy())
    assert found.shape == want.shape
    return onnx.load(artifact.path), float(np.abs(found - want).max() / want.std()), artifact.path


def nodes_of(model: onnx.ModelProto) -> list[str]:
    return [one.op_type for one in model.graph.node]


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("zeros", [True, False])
def test_a_layer_is_one_node_and_its_weight_four_bits(
    size: int, zeros: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    first, last = Grouped(50, 70, size, zeros=zeros), Grouped(70, 9, size, zeros=zeros)
    model, error, path = lowered(network_of(first, nn.ReLU(), last, inputs=(50,)), tmp_path)
    assert nodes_of(model) == ["MatMulNBits", "Relu", "MatMulNBits", "Add"]
    assert error < 1e-5
    assert [one.name for one in model.graph.node if one.name] == ["0/MatMulNBits", "2/MatMulNBits"]
    assert {"0", "2"} <= set(seconds_by_layer(path, np.zeros((1, 50), np.float32), runs=4))
    groups = [(70, -(-50 // size)), (9, -(-70 // size))]
    codes = sum(rows * count * size // 2 for rows, count in groups)
    scales = sum(4 * rows * count for rows, count in groups)
    packed = sum(rows * -(-count // 2) for rows, count in groups) if zeros else 0
    assert weight_bytes(path) == codes + scales + packed + 4 * (70 + 9 + 1)


@pytest.mark.parametrize(
    "layer",
    [
        Grouped(64, 5, bias=False), Grouped(96, 5), Grouped(33, 7),
        Grouped(1, 1, 16, codes=(1, 7), zeros=False),
        Grouped(40, 6, codes=(-1, 1), zeros=False), Unsigned(40, 6, codes=(0, 7)),
    ],
    ids=["no bias", "odd groups", "33 inputs", "one weight", "ternary", "unsigned"],
)  # fmt: skip
@pytest.mark.parametrize("rank", [2, 3])
def test_shapes_and_kinds(layer: Grouped, rank: int, tmp_path: Path) -> None:
    torch.manual_seed(0)
    shape = (*[3] * (rank - 2), layer.inputs)
    model, error, _ = lowered(network_of(layer, inputs=shape), tmp_path)
    assert nodes_of(model) == ["MatMulNBits", "Add"]
    assert error < 1e-5
    assert all(numpy_helper.to_array(one).dtype != np.int8 for one in model.graph.initializer)


@pytest.mark.parametrize(
    "layer",
    [
        Grouped(48, 90, 24),
        Grouped(96, 90, codes=(-128, 127)),
        Grouped(96, 90, codes=(-31, 31)),
        Unsigned(96, 90, codes=(0, 200)),
    ],
    ids=["groups of 24", "eight bits", "six bits", "unsigned"],
)
def test_what_does_not_fit_gives_the_same_numbers(layer: Grouped, tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, error, _ = lowered(network_of(layer, inputs=(layer.inputs,)), tmp_path)
    assert "MatMulNBits" not in nodes_of(model)
    assert "DequantizeLinear" in nodes_of(model)
    assert error < 1e-5
    weight = max(model.graph.initializer, key=lambda one: one.ByteSize())
    assert numpy_helper.to_array(weight).dtype in (np.int8, np.uint8)


class Shared(nn.Module):
    """A weight that a layer, something else than a layer, and a layer as its input read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.other = Grouped(64, 48), nn.Linear(64, 1)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.layer.real()
        y = nn.functional.linear(x, weight, self.layer.bias)
        return y + self.other(weight).flatten() + weight.sum(1)


def test_another_reader_of_the_weight(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = capture(Shared().eval(), torch.randn(2, 64))
    model, error, _ = lowered(network, tmp_path)
    assert nodes_of(model).count("MatMulNBits") == 1
    assert error < 1e-5


def test_the_network_is_as_it_was() -> None:
    torch.manual_seed(0)
    network = network_of(Grouped(40, 8), inputs=(40,))
    before = {name: one.clone() for name, one in network.state_dict().items()}
    code = str(network.graph)
    assert with_matmul_nbits(network) is not network
    assert str(network.graph) == code
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())
    plain = network_of(nn.Linear(4, 2), inputs=(4,))
    assert with_matmul_nbits(plain) is plain


def test_four_bits_worked_by_hand() -> None:
    """Codes -8, 7, 0, 1 are stored as 0, 15, 8, 9: the bytes f0 and 98, and 88 where there is
    padding."""
    layer = Grouped(4, 1, 16, bias=False, zeros=False)
    layer.weight[0, :4] = torch.tensor([-8, 7, 0, 1])
    found = with_matmul_nbits(network_of(layer, inputs=(4,)))
    codes = next(one for name, one in found.state_dict().items() if name.endswith("nbits"))
    assert codes.shape == (1, 1, 8)
    assert codes.flatten().tolist() == [0xF0, 0x98, *[0x88] * 6]
