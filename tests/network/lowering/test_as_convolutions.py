"""What only moves or averages values, as convolutions: the same numbers, rounded or not."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_args

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.network import Network, capture
from penjing.network.lowering.as_convolutions import AVERAGES, write_as_convolutions
from penjing.network.lowering.form import Kind
from penjing.passes.rounding.quantize import Quantize
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import build

aten = torch.ops.aten
ALL: tuple[Kind, ...] = get_args(Kind)
MOVES = {aten.slice.Tensor, aten.pad.default}


class Moving(nn.Module):
    """A convolution between an image and a shortcut of `kind`."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.kind = nn.Conv2d(3, 4, 3, padding=1), kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return {
            "rows": lambda: x[:, :, ::3],
            "both": lambda: x[:, :, ::2, ::2],
            "channels": lambda: functional.pad(x, (0, 0, 0, 0, 1, 3)),
            "all": lambda: functional.pad(x[:, :, ::2, ::4], (0, 0, 0, 0, 2, 0)),
            "from the second": lambda: x[:, :, 1::2],
            "not to the end": lambda: x[:, :, :4:2],
            "channels only": lambda: x[:, ::2],
            "ones": lambda: functional.pad(x, (0, 0, 0, 0, 1, 1), value=1.0),
            "rows padded": lambda: functional.pad(x, (0, 0, 1, 1)),
        }[self.kind]()


@pytest.mark.parametrize("kind", ["rows", "both", "channels", "all"])
def test_what_moves_becomes_a_convolution(kind: str) -> None:
    network = capture(Moving(kind).eval(), torch.randn(2, 3, 8, 8))
    new = write_as_convolutions(network, ALL)
    assert sum(node.target is aten.conv2d.default for node in new.calls()) == 2
    x = torch.randn(5, 3, 8, 8)
    assert torch.equal(new(x), network(x))


@pytest.mark.parametrize(
    "kind", ["from the second", "not to the end", "channels only", "ones", "rows padded"]
)
def test_what_is_something_else_stays(kind: str) -> None:
    network = capture(Moving(kind).eval(), torch.randn(2, 3, 8, 8))
    assert write_as_convolutions(network, ALL) is network


def _resnet() -> tuple[Network, Tensor]:
    model, x = build("resnet_a")
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10)
    task = Task(model, x[:2], data, data)
    return Quantize(samples=16)(capture(model, x[:2]), task), x


def test_rounded_numbers_stay_the_same() -> None:
    network, x = _resnet()
    before = {name: one.clone() for name, one in network.state_dict().items()}
    new = write_as_convolutions(network, ["moves"])
    strided = [one for one in new.calls() if one.target in MOVES and "::" in str(one)]
    assert not strided
    assert not any(node.target is aten.pad.default for node in new.calls())
    assert torch.equal(new(x), network(x))
    assert all(torch.equal(one, before[name]) for name, one in network.state_dict().items())


class Pooling(nn.Module):
    """A convolution, a pool of `kind`, a convolution."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.conv, self.last, self.kind = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 5, 1), kind

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        pools: dict[str, Callable[[], Tensor]] = {
            "average": lambda: functional.avg_pool2d(x, 2),
            "average, strides": lambda: functional.avg_pool2d(x, (3, 2), (1, 2), (1, 0)),
            "adaptive": lambda: functional.adaptive_avg_pool2d(x, (4, 2)),
            "mean": lambda: functional.adaptive_avg_pool2d(x, 1),
            "maximum": lambda: functional.max_pool2d(functional.relu(x), 3, 2, 1),
            "maximum, ceil": lambda: functional.max_pool2d(x.relu(), 3, 2, 1, ceil_mode=True),
            "not counted": lambda: functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            "of some parts": lambda: functional.adaptive_avg_pool2d(x, 3),
            "maximum of any sign": lambda: functional.max_pool2d(x, 3, 2, 1),
            "one more": lambda: functional.max_pool2d(x[..., 3:].relu(), 2, 2, 1, ceil_mode=True),
            "not padded": lambda: functional.max_pool2d(functional.relu(x), 2),
        }
        return self.last(pools[self.kind]())


def _pooling(kind: str) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(16, 3, 8, 8)
    data = Arrays(x, torch.arange(16) % 5)
    model = Pooling(kind).eval()
    return Quantize(samples=16)(capture(model, x[:2]), Task(model, x[:2], data, data)), x


@pytest.mark.parametrize(
    "kind", ["average", "average, strides", "adaptive", "mean", "maximum", "maximum, ceil"]
)
def test_pools_become_convolutions(kind: str) -> None:
    network, x = _pooling(kind)
    new = write_as_convolutions(network, ALL)
    assert sum(node.target is aten.conv2d.default for node in new.calls()) == 3
    assert not any(node.target in AVERAGES for node in new.calls())
    with torch.no_grad():
        apart = (new(x) - network(x)).abs()  # but for a mean on the edge between two integers
        assert float(apart.median()) < 1e-6
        assert float(apart.max()) < 0.02 * float(network(x).std())


@pytest.mark.parametrize(
    "kind",
    ["not counted", "of some parts", "maximum of any sign", "one more", "not padded"],
)
def test_pools_that_are_no_such_convolution_stay(kind: str) -> None:
    network, _ = _pooling(kind)
    assert write_as_convolutions(network, ALL) is network


@pytest.mark.parametrize(
    ("kind", "pool"), [("means", "mean"), ("averages", "average"), ("maxima", "maximum")]
)
def test_only_what_is_asked_for_is_written_anew(kind: Kind, pool: str) -> None:
    network, _ = _pooling(pool)
    others = [one for one in ALL if one != kind]
    assert write_as_convolutions(network, others) is network
    assert write_as_convolutions(network, [kind]) is not network
