"""Fused parts compute what they computed before, borders included."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.network.graph.layers import layers_of
from penjing.passes import Compensate, Fuse
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task


class RepVgg(nn.Module):
    """Three parallel branches, each with a batch norm, then a ReLU."""

    def __init__(self, width: int, stride: int = 1) -> None:
        super().__init__()
        self.large = nn.Conv2d(width, width, 3, stride, 1, bias=False)
        self.small = nn.Conv2d(width, width, 1, stride, bias=False)
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(3))
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        y = self.norms[0](self.large(x)) + self.norms[1](self.small(x))
        return torch.relu(y + self.norms[2](x) if self.stride == 1 else y)


class Nested(nn.Module):
    """A shortcut that begins at a value inside of another one, all of it linear."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, bias=False)
        self.c = nn.Conv2d(4, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.a(x)
        return self.b(y + self.c(y))


def _lively(model: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            nn.init.uniform_(module.get_buffer("running_mean"), -0.5, 0.5)
            nn.init.uniform_(module.get_buffer("running_var"), 0.5, 1.5)
    return model.eval()


IMAGE, TOKENS, SIGNAL = (2, 4, 11, 9), (2, 5, 4), (2, 4, 12)
CHAINS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...], int]] = {
    "two linear": (lambda: nn.Sequential(nn.Linear(4, 16), nn.Linear(16, 3)), TOKENS, 1),
    "three linear": (
        lambda: nn.Sequential(nn.Linear(4, 9), nn.Dropout(), nn.Linear(9, 9), nn.Linear(9, 3)),
        TOKENS,
        1,
    ),
    "3x3 then 1x1": (lambda: nn.Sequential(nn.Conv2d(4, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)), IMAGE, 1),
    "1x1 without bias, then 3x3 that pads": (
        lambda: nn.Sequential(nn.Conv2d(4, 9, 1, bias=False), nn.Conv2d(9, 4, 3, 1, 1)),
        IMAGE,
        1,
    ),
    "3x3 then 3x3 that doesn't pad": (
        lambda: nn.Sequential(nn.Conv2d(4, 9, 3, padding=2), nn.Conv2d(9, 2, 3)),
        IMAGE,
        1,
    ),
    "strides and dilations": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 8, 3, 2, 2, dilation=2), nn.Conv2d(8, 3, (1, 2), (1, 2))
        ),
        IMAGE,
        1,
    ),
    "depthwise and norms": (
        lambda: nn.Sequential(
            nn.Conv2d(4, 4, 3, padding=1, groups=4), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)
        ),
        IMAGE,
        1,
    ),
    "two with groups": (
        lambda: nn.Sequential(nn.Conv2d(4, 8, 3, groups=4), nn.Conv2d(8, 4, 2, groups=2)),
        IMAGE,
        1,
    ),
    "signals": (lambda: nn.Sequential(nn.Conv1d(4, 8, 3, 1, 1), nn.Conv1d(8, 4, 1)), SIGNAL, 1),
    "volumes": (
        lambda: nn.Sequential(nn.Conv3d(4, 8, 2), nn.Conv3d(8, 2, 1)),
        (2, 4, 5, 6, 4),
        1,
    ),
    "parallel branches": (lambda: RepVgg(4), IMAGE, 1),
    "parallel branches with a stride": (lambda: RepVgg(4, 2), IMAGE, 1),
    "two blocks": (lambda: nn.Sequential(RepVgg(4), RepVgg(4, 2), nn.Flatten()), IMAGE, 2),
    "a shortcut within": (Nested, IMAGE, 1),
}
"""What is fused, the shape of its input, and the number of layers that stay."""


def _task(make: Callable[[], nn.Module], shape: tuple[int, ...]) -> tuple[Network, Task]:
    torch.manual_seed(1)
    model = _lively(make())
    data = Arrays(torch.randn(16, *shape[1:]), torch.zeros(16, dtype=torch.long))
    task = Task(model, data.x[:2], data, data)
    return capture(model, task.example), task


@pytest.mark.parametrize("name", CHAINS)
def test_a_fused_part_computes_the_same(name: str) -> None:
    make, shape, layers = CHAINS[name]
    network, task = _task(make, shape)
    fused = Fuse(most=100)(network, task)
    assert len(layers_of(fused)) == layers
    x = torch.randn(3, *shape[1:])
    torch.testing.assert_close(fused(x), network(x), rtol=1e-5, atol=1e-5)
    torch.export.export(fused, (x,))


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Sequential(nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, 1, 1)),
        lambda: nn.Sequential(nn.Conv2d(4, 4, 3, bias=False), nn.Conv2d(4, 4, 3, 1, 1)),
    ],
)
def test_a_layer_that_pads_is_fused_at_the_front_alone_where_that_changes_the_border(
    make: Callable[[], nn.Module],
) -> None:
    network, task = _task(make, IMAGE)
    assert not Fuse(most=100).plan(network, task).edits
    fused = Fuse(most=100, front=True)(network, task)
    x = torch.randn(2, *IMAGE[1:])
    inner = (..., slice(2, -2), slice(2, -2))
    torch.testing.assert_close(fused(x)[inner], network(x)[inner], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(fused(x), network(x), atol=1e-3)


def test_a_part_that_would_cost_more_stays_and_the_plan_says_so() -> None:
    network, task = _task(lambda: nn.Sequential(nn.Linear(4, 2), nn.Linear(2, 4)), TOKENS)
    plan = Fuse(most=0.9).plan(network, task)
    assert not plan.edits
    assert "1.00 times the MACs (at most 0.9)" in plan.left_alone[0].why
    assert Fuse(names=("1",), most=0.9).plan(network, task).edits


def test_what_an_activation_divides_or_two_layers_read_stays() -> None:
    network, task = _task(
        lambda: nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 4)), TOKENS
    )
    plan = Fuse().plan(network, task)
    assert "no two layers follow each other" in plan.left_alone[0].why


def test_what_was_fused_can_be_solved_again() -> None:
    network, task = _task(lambda: nn.Sequential(RepVgg(4), nn.Flatten(), nn.Linear(396, 3)), IMAGE)
    solved = Compensate(samples=16)(Fuse()(network, task), task)
    assert isinstance(task.train, Arrays)
    x = task.train.x
    torch.testing.assert_close(solved(x), network(x), rtol=1e-2, atol=1e-2)


def test_bad_options_are_refused() -> None:
    network, task = _task(lambda: nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 4)), TOKENS)
    with pytest.raises(InputError, match="most must be positive, as a ratio of MACs; found 0"):
        Fuse(most=0)
    with pytest.raises(InputError, match="names has '7', but no part ends there; parts end in 1"):
        Fuse(names=("7",)).plan(network, task)
