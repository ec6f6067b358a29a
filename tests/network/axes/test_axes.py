"""Axes: the algebra by hand, and pruned equals masked on every reference network."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import capture, carry_out, find_axes, mask
from penjing.network.axes.algebra import Axis, Concat, Pin, Product, join, kept, resolve, size
from penjing.passes import PruneChannels
from penjing.tasks.task import Task
from tests.reference_networks import NETWORKS, build

WHY = Pin("test")


def test_joining_a_flatten_binds_the_axis_to_the_product() -> None:
    flat, channels, space = Axis(12), Axis(3), Axis(4)
    join(flat, Product((channels, space)), WHY)
    assert kept(flat, {channels: [0, 2]}) == [0, 1, 2, 3, 8, 9, 10, 11]


def test_concatenations_cut_differently_are_refined() -> None:
    a, b, c, d = Axis(16), Axis(32), Axis(32), Axis(16)
    join(Concat((a, b)), Concat((c, d)), WHY)
    whole = resolve(Concat((a, b)))
    assert [size(part) for part in whole.parts] == [16, 16, 16]  # type: ignore[union-attr]
    assert whole == resolve(Concat((c, d)))


def test_products_cut_differently_are_refined() -> None:
    a, b, c, d = Axis(8), Axis(64), Axis(16), Axis(32)
    join(Product((a, b)), Product((c, d)), WHY)
    assert [size(part) for part in resolve(Product((c, d))).parts] == [8, 2, 32]  # type: ignore[union-attr]


def test_a_product_met_by_a_concatenation_shares_its_inner_part() -> None:
    three, inner = Axis(3), Axis(4)
    q, k, v = Axis(4), Axis(4), Axis(4)
    join(Product((three, inner)), Concat((q, k, v)), WHY)
    assert resolve(q) is resolve(k) is resolve(v) is resolve(inner)


def test_what_does_not_divide_is_pinned() -> None:
    a, b, c, d = Axis(2), Axis(3), Axis(3), Axis(2)
    join(Product((a, b)), Product((c, d)), WHY)
    assert all(axis.pins for axis in (a, b, c, d))


def _kept_at_random(axes, names, seed: int) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    draw = random.Random(seed)
    return {
        name: sorted(draw.sample(range(axes[name].size), max(1, int(axes[name].size * 0.6))))
        for name in names
    }


def _kept_by_rank(model, network, x) -> dict[str, list[int]]:  # type: ignore[no-untyped-def]
    task = Task(model, x[:2], [], [])
    edits = PruneChannels(0.4, importance="l1+l2", skip_mixed=True).plan(network, task).edits
    return edits[0]["axes"]


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("choice", ["ranked", 0, 1, 2])
def test_pruned_equals_masked(name: str, choice: str | int) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    axes = find_axes(network)
    assert not axes.trace.unknown
    names = [one for one, group in axes.free.items() if not group.mixed]
    assert names
    keep = (
        _kept_by_rank(model, network, x)
        if choice == "ranked"
        else _kept_at_random(axes, names, int(choice))
    )
    assert set(keep) == set(names)
    pruned = carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())
    expected = mask(network, keep)(x)
    assert not torch.equal(expected, model(x))
    torch.testing.assert_close(pruned(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
def test_every_free_axis_shrinks_runs_and_trains(name: str) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    axes = find_axes(network)
    keep = _kept_at_random(axes, axes.free, 0)
    pruned = carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))
    pruned.train()
    pruned(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())
    again = find_axes(pruned)
    assert list(again.free) == [one for one in axes.free if len(keep[one]) > 1]


@pytest.mark.parametrize(
    ("name", "expected"),
    [("plain_cnn", 3), ("resnet_a", 11), ("resnet_b", 9), ("vit_fused", 7)],
)
def test_the_number_of_free_axes(name: str, expected: int) -> None:
    model, x = build(name)
    assert len(find_axes(capture(model, x)).free) == expected


def test_only_layer_norm_mixes_the_embedding_of_a_vit() -> None:
    model, x = build("vit_fused")
    mixed = [name for name, group in find_axes(capture(model, x)).free.items() if group.mixed]
    assert mixed == ["patch"]


def test_shrinking_what_is_not_there_is_refused_by_name() -> None:
    model, x = build("plain_cnn")
    network = capture(model, x)
    with pytest.raises(InputError, match=r"no axis 'conv9'.*conv1"):
        mask(network, {"conv9": [0]})
    with pytest.raises(InputError, match=r"'fc2' can't shrink: it belongs to an output"):
        mask(network, {"fc2": [0]})
    with pytest.raises(InputError, match=r"'conv1' of size 16.*0..15; found \[\]"):
        mask(network, {"conv1": []})


class Tied(nn.Module):
    """One weight, used in two ways; `ways` takes the layer's output and the tied layer."""

    def __init__(self, ways: Callable[[Tensor, nn.Linear], Tensor]) -> None:
        super().__init__()
        self.up, self.tied, self.head = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.ways = ways

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.ways(self.up(x).relu(), self.tied))


def test_a_tied_weight_shrinks_in_one_way_or_not_at_all() -> None:
    def free(ways: Callable[[Tensor, nn.Linear], Tensor]) -> tuple[list[str], list[str]]:
        axes = find_axes(capture(Tied(ways).eval(), torch.randn(2, 6)))
        return list(axes.free), [f"{one.what}: {one.why}" for one in axes.left_alone()]

    # there and back: rows and columns keep meanings of their own
    back = free(lambda x, tied: functional.linear(tied(x).relu(), tied.weight.t()))
    assert back[0] == ["up", "tied"]
    # twice in a row: what comes out goes in, so that rows and columns are one axis
    assert free(lambda x, tied: tied(tied(x).relu()))[0] == ["up"]
    # as a table whose rows are looked up: they stay, and with them the columns that are one
    found = free(lambda x, tied: tied(tied(x)) + tied.weight[torch.tensor([1, 0])].sum(0))
    assert not found[0]
    assert any("indices are taken from it (test_axes.py:" in one for one in found[1])
