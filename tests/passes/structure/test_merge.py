"""Merging: exact where channels are multiples of each other, and named where it can't be."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn
from torch.nn import functional

from penjing.arith.elimination import combinations, eliminated
from penjing.errors import InputError
from penjing.measure.costs import costs
from penjing.network import capture, carry_out, find_axes
from penjing.network.analysis.passage import passage
from penjing.network.edits.merge import read_by_index
from penjing.passes import Merge, PruneChannels
from penjing.passes.structure.channels.expectation import Known, written
from penjing.tasks.task import Task
from penjing.tune.recalibrate import recalibrate
from tests.reference_networks import NETWORKS, build


def _make_multiples(model: torch.nn.Module, prefix: str, norm: str | None) -> list[int]:
    """Turn the second half of a layer's channels into multiples of the first half."""
    state = model.state_dict()
    weight = state[f"{prefix}.weight"]
    half = len(weight) // 2
    scales = torch.linspace(0.5, 2.0, half)
    with torch.no_grad():
        weight[half:] = weight[:half]
        if norm is None:
            weight[half:] *= scales.view(-1, *[1] * (weight.dim() - 1))
            state[f"{prefix}.bias"][half:] = state[f"{prefix}.bias"][:half] * scales
        else:
            if f"{prefix}.bias" in state:
                state[f"{prefix}.bias"][half:] = state[f"{prefix}.bias"][:half]
            for name in ("running_mean", "running_var"):
                state[f"{norm}.{name}"][half:] = state[f"{norm}.{name}"][:half]
            for name in ("weight", "bias"):
                state[f"{norm}.{name}"][half:] = state[f"{norm}.{name}"][:half] * scales
    return list(range(half, 2 * half))


@pytest.mark.parametrize(
    ("name", "layer", "norm"),
    [
        ("plain_cnn", "conv1", None),
        ("plain_cnn", "conv2", None),
        ("plain_cnn", "fc1", None),
        ("resnet_a", None, "bn1"),
        ("vgg", None, "norm"),
    ],
)
@pytest.mark.parametrize("into", ["all", "nearest"])
def test_merged_equals_unmerged_where_channels_are_multiples(
    name: str, layer: str | None, norm: str | None, into: str
) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    task = Task(model, x[:2], [], [])
    axes = find_axes(network)
    mergeable = Merge(0.5).plan(network, task).edits[0]["axes"]
    axis = layer or next(iter(mergeable))
    assert axis in mergeable
    site = next(s for s in axes[axis].sites if s.dim == 0 and network.tensor(s.tensor).dim() > 1)
    norms = [s.tensor for s in axes[axis].sites if s.tensor.endswith("running_mean")]
    _make_multiples(
        model, site.tensor.removesuffix(".weight"),
        norms[0].removesuffix(".running_mean") if norms else None,
    )  # fmt: skip
    network = capture(model, x[:2])
    skip = tuple(one for one in axes.free if one != axis)
    merged = Merge(0.5, skip=skip, into=into)(network, task)
    torch.testing.assert_close(merged(x), network(x), rtol=1e-4, atol=1e-5)
    cut = PruneChannels(0.5, skip=skip)(network, task)
    assert not torch.allclose(cut(x), network(x), rtol=1e-2, atol=1e-3)


@pytest.mark.parametrize("selection", ["similarity", "importance"])
@pytest.mark.parametrize("name", NETWORKS)
def test_merging_loses_less_than_cutting_the_same_channels(name: str, selection: str) -> None:
    model, x = build(name)
    noise = torch.randn(64, *x.shape[1:], generator=torch.Generator().manual_seed(1))
    images = 3 * functional.avg_pool2d(noise, 3, 1, 1)  # neighbours are alike, as in images
    labels = torch.zeros(64, dtype=torch.long)
    network = recalibrate(capture(model, x[:2]), [(images, labels)])  # norms that say the truth
    merge = Merge(0.4, selection=selection)
    plan = merge.plan(network, Task(model, x[:2], [], []))
    merged, cut = merge.apply(network, plan, None), carry_out(network, plan)  # type: ignore[arg-type]
    with torch.no_grad():
        wanted = network(images)
        lost = [float((one(images) - wanted).square().mean()) for one in (merged, cut)]
    assert lost[0] < lost[1]
    assert [one.shape for one in merged.parameters()] == [one.shape for one in cut.parameters()]


def test_merging_keeps_a_budget() -> None:
    model, x = build("resnet_a")
    network, task = capture(model, x[:2]), Task(model, x[:2], [], [])
    merged = Merge(budget={"what": "macs", "share": 0.7})(network, task)  # type: ignore[arg-type]
    left, whole = (sum(one.macs for one in costs(net)) for net in (merged, network))
    assert 0.6 * whole < left <= 0.7 * whole


@pytest.mark.parametrize("name", ["plain_cnn", "vgg"])
def test_what_is_skipped_stays_whole_and_still_says_what_the_next_axis_is_made_of(
    name: str,
) -> None:
    model, x = build(name)
    network, task = capture(model, x[:2]), Task(model, x[:2], [], [])
    stays = Merge(0.5).plan(network, task).edits[0]["axes"]
    first, *others = stays
    plan = Merge(0.5, skip=(first,)).plan(network, task)
    assert plan.edits[0]["axes"] == {one: stays[one] for one in others}
    assert [one.why for one in plan.left_alone if one.what == first] == ["it is listed in skip"]


def test_what_cannot_be_merged_is_named() -> None:
    model, x = build("mobilenet_v2")
    plan = Merge(0.5).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    assert any("2 layers write it" in one.why for one in plan.left_alone)
    model, x = build("densenet")
    plan = Merge(0.5).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    assert any("cat.default stands between it" in one.why for one in plan.left_alone)
    model, x = build("vit_by_hand")
    plan = Merge(0.5).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    assert any("only a part of a layer's output" in one.why for one in plan.left_alone)


def test_expected_moments_are_those_of_gaussian_inputs() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 5), nn.GELU(), nn.Linear(5, 2))
    network = capture(model, torch.zeros(2, 6))
    axes = find_axes(network).free
    known: dict[fx.Node, Known] = {}
    x = torch.randn(200_000, 6)
    for axis, depth in (("0", 2), ("2", 4)):
        way = passage(network, axes[axis])
        assert not isinstance(way, str)
        found = written(network, way, known)
        node, site = way.readers[0]
        known[node] = Known(found, read_by_index(network, axes[axis], site))
        with torch.no_grad():
            seen = model[:depth](x).double()
        torch.testing.assert_close(found.mean, seen.mean(0), rtol=0.05, atol=0.01)
        torch.testing.assert_close(found.covariance, seen.T.cov(), rtol=0.1, atol=0.01)


def test_what_goes_first_is_what_the_others_can_make_up_for() -> None:
    parts = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0], [0.0, 0.1]]).double()
    covariance = parts @ parts.T + 1e-9 * torch.eye(4).double()
    assert len(eliminated(covariance, torch.eye(4).double(), 2, 1e-9)) == 2
    kept = eliminated(covariance, torch.diag(torch.tensor([1.0, 1.0, 1.0, 0.0])).double(), 3, 1e-9)
    assert 3 not in kept  # nobody reads it
    made = combinations(covariance, [0, 1], 1e-12)
    torch.testing.assert_close(made[2], torch.ones(2).double(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ratio": 1.0}, r"ratio must be in \[0, 1\)"),
        ({"selection": "best"}, "selection must be similarity or importance; found 'best'"),
        ({"into": "one"}, "into must be all or nearest; found 'one'"),
        ({"keep": 0}, "keep and multiple must be 1 or more; found 0"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], text: str) -> None:
    with pytest.raises(InputError, match=text):
        Merge(**options)  # type: ignore[arg-type]


def test_a_multiple_wider_than_an_axis_leaves_it_alone_and_says_so() -> None:
    model, x = build("plain_cnn")
    plan = PruneChannels(0.5, multiple=64).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    assert list(plan.edits[0]["axes"]) == ["fc1"]
    why = {one.what: one.why for one in plan.left_alone}
    assert why["conv1"] == "it has 16 channels and multiple is 64"
