"""Parts of concatenations that are left out, and what reads them then."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, capture, carry_out
from penjing.network.analysis.blocks import find_blocks
from penjing.passes import Compensate, Drop, PruneChannels
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import build


class Inception(nn.Module):
    """Three parallel branches, joined; one of them has no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.wide, self.narrow = nn.Conv2d(6, 5, 3, padding=1), nn.Conv2d(6, 4, 1)
        self.norm, self.join = nn.BatchNorm2d(15), nn.Conv2d(15, 7, 1)
        self.last = nn.Linear(7, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        parts = [self.wide(x).relu(), nn.functional.max_pool2d(x, 3, 1, 1), self.narrow(x)]
        return self.last(self.join(self.norm(torch.cat(parts, 1))).mean((2, 3)))


def _task(model: nn.Module, x: Tensor) -> tuple[Network, Task]:
    data = Arrays(torch.randn(24, *x.shape[1:]), torch.arange(24) % 4, batch_size=8)
    task = Task(model, x[:2], data, data)
    return capture(model, task.example), task


@pytest.mark.parametrize(("block", "first", "last"), [("wide", 0, 5), ("narrow", 11, 15)])
def test_a_part_that_nothing_weighs_can_go_without_a_change(
    block: str, first: int, last: int
) -> None:
    torch.manual_seed(0)
    model = Inception().eval()
    with torch.no_grad():
        model.join.weight[:, first:last] = 0
    network, task = _task(model, torch.randn(2, 3, 8, 8))
    names = [found.name for found in find_blocks(network) if found.kind == "part"]
    assert names == ["wide", "narrow"]
    left = Drop(names=(block,))(network, task)
    x = torch.randn(3, 3, 8, 8)
    torch.testing.assert_close(left(x), network(x), rtol=1e-5, atol=1e-5)
    assert left.get_parameter("join.weight").shape == (7, 15 - (last - first), 1, 1)
    assert left.get_parameter("norm.weight").shape == (15 - (last - first),)
    torch.export.export(left, (x,))


def test_a_dense_block_can_lose_its_layers_and_is_solved_again() -> None:
    model, x = build("densenet")
    network, task = _task(model, x)
    parts = [block.name for block in find_blocks(network) if block.kind == "part"]
    assert parts == [f"blocks.{stage}.{layer}" for stage in (0, 1) for layer in range(3)]
    cut = Drop(names=("blocks.0.1", "blocks.1.0"))(network, task)
    solved = Compensate(samples=24)(cut, task)
    with torch.no_grad():
        wanted = network(x)
        before, after = ((part(x) - wanted).square().mean() for part in (cut, solved))
    assert after < 0.1 * before
    pruned = PruneChannels(0.3)(solved, task)
    assert pruned(x).shape == wanted.shape


def test_the_plan_counts_what_later_layers_save() -> None:
    network, task = _task(Inception().eval(), torch.randn(2, 3, 8, 8))
    drop = Drop(names=("wide",))
    left = drop(network, task)
    share = sum(p.numel() for p in left.parameters()) / sum(p.numel() for p in network.parameters())
    assert f"{share:.1%} of the parameters are left" in drop.plan(network, task).notes[-1]


@pytest.mark.parametrize("name", ["conv2d", "max_pool2d", "nowhere", "linear", "cat"])
def test_what_is_no_part_is_refused(name: str) -> None:
    network, _ = _task(Inception().eval(), torch.randn(2, 3, 8, 8))
    with pytest.raises(InputError, match=f"'{name}' isn't a part of concatenations"):
        carry_out(network, Plan("Drop", {}, ({"edit": "leave_out", "values": [name]},)))
