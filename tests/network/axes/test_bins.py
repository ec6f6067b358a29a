"""The bins of a distribution keep their number: constants say what each of them stands for."""

from __future__ import annotations

import re

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import InputError
from penjing.network import capture, find_axes
from penjing.passes import PruneChannels
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task

BINS = 8


class Boxes(nn.Module):
    """Predicts how likely each distance of four sides is, and takes the mean distance."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.stem, self.sides = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4 * BINS, 1)
        distances = torch.arange(float(BINS))
        self.mean: Tensor | nn.Conv2d
        if kind == "buffer":
            self.register_buffer("mean", distances)
        elif kind == "tensor":
            self.mean = distances
        else:
            self.mean = layer = nn.Conv2d(BINS, 1, 1, bias=False)
            if kind != "trained":
                layer.weight.data[:] = distances.view(1, BINS, 1, 1)
            if kind == "frozen":
                layer.weight.data[:] = (distances**2).view(1, BINS, 1, 1)
                layer.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.sides(self.stem(x).relu()).flatten(2)
        likely = y.view(y.shape[0], 4, BINS, -1).transpose(1, 2).softmax(1)
        if isinstance(self.mean, nn.Module):
            return self.mean(likely).flatten(1, 2)
        return likely.permute(0, 2, 3, 1).matmul(self.mean)


@pytest.mark.parametrize("kind", ["buffer", "tensor", "frozen", "evenly spaced", "trained"])
def test_bins_that_constants_read_are_not_pruned(kind: str) -> None:
    x = torch.randn(4, 3, 6, 6)
    network = capture(Boxes(kind).eval(), x)
    axes = find_axes(network)
    assert "stem" in axes.free
    assert ("sides[1]" in axes.free) == (kind == "trained")
    data = Arrays(x, torch.zeros(4, 1))
    task = Task(Boxes(kind).eval(), x, data, data)
    left = network.tensor("sides.weight").shape[0]
    if kind != "trained":
        assert PruneChannels(ratio=0.5)(network, task).tensor("sides.weight").shape[0] == left
        reason = r"it holds the bins of a distribution: the constants mean\S* read a softmax over"
        plan = PruneChannels(ratio=0.5).plan(network, task)
        assert any(
            each.what == "sides[1]" and re.match(reason, each.why) for each in plan.left_alone
        )
        with pytest.raises(InputError, match=r"widths names 'sides\[1\]', which can't shrink"):
            PruneChannels(widths={"sides[1]": 4}, skip=("sides",)).plan(network, task)
    asked = PruneChannels(widths={"sides[1]": 4})(network, task)
    assert asked.tensor("sides.weight").shape[0] == left // 2
    assert asked(x).shape == network(x).shape
