"""Blocks are found from operators and shapes, whatever the modules are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from penjing.network import capture
from penjing.network.analysis.blocks import common_path, find_blocks, stride_between
from tests.reference_networks import build

KINDS = {
    "resnet_a": {"branch": 6, "stage": 2},
    "resnet_b": {"branch": 8, "stage": 2},
    "mobilenet_v1": {"stage": 7},
    "vit_by_hand": {"branch": 4, "activation": 2},
    "vit_fused": {"branch": 4, "activation": 2},
    "plain_cnn": {"stage": 1, "activation": 1},
}
"""How many blocks of each kind a network has."""


class Gated(nn.Module):
    """Squeeze and excitation, the gate first."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.gate, self.last = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        x = self.gate(x.mean((2, 3), keepdim=True)).sigmoid() * x
        return self.last(x.mean((2, 3)))


@pytest.mark.parametrize("name", KINDS)
def test_the_blocks_of_reference_networks(name: str) -> None:
    model, x = build(name)
    blocks = find_blocks(capture(model, x[:2]))
    counts = {kind: sum(block.kind == kind for block in blocks) for kind in KINDS[name]}
    assert counts == KINDS[name]
    assert len({block.name for block in blocks}) == len(blocks)


def test_a_transformers_branches_are_named_after_what_goes() -> None:
    model, x = build("vit_by_hand")
    names = [block.name for block in find_blocks(capture(model, x[:2]))]
    assert names[:3] == ["blocks.0.attention", "blocks.0.mlp.1", "blocks.0.mlp"]


def test_a_gate_can_go_and_the_value_that_it_multiplies_stays() -> None:
    (gate, *_) = find_blocks(capture(Gated().eval(), torch.zeros(2, 3, 8, 8)))
    assert (gate.kind, gate.name, gate.start) == ("gate", "gate", "conv2d")


def test_nothing_is_found_where_every_layer_would_go() -> None:
    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.only = nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.only(x)

    assert find_blocks(capture(Whole(), torch.zeros(2, 4))) == []


@pytest.mark.parametrize(
    ("before", "after", "stride"),
    [
        ((2, 3, 8, 8), (2, 5, 4, 4), (2, 2)),
        ((2, 3, 9, 8), (2, 5, 5, 4), (2, 2)),
        ((2, 3, 8, 8), (2, 3, 8, 8), (1, 1)),
        ((2, 7, 8), (2, 7, 4), ()),
        ((2, 7, 8), (2, 6, 4), None),
        ((2, 3, 4, 4), (2, 3, 8, 8), None),
        ((2, 3, 8, 8), (2, 3), None),
    ],
)
def test_the_stride_between_two_shapes(
    before: tuple[int, ...], after: tuple[int, ...], stride: tuple[int, ...] | None
) -> None:
    assert stride_between(torch.zeros(before), torch.zeros(after)) == stride


def test_common_path_of_paths_that_share_nothing() -> None:
    assert common_path(["a.b", "c.b"]) == ""
    assert common_path([]) == ""
