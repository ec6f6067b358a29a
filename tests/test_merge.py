"""Merging: exact where channels are multiples of each other, and named where it can't be."""

from __future__ import annotations

import pytest
import torch

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import capture, carry_out, find_axes
from penjing.passes import Merge, PruneChannels
from penjing.task import Task
from tests.reference_networks import build


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
def test_merged_equals_unmerged_where_channels_are_multiples(
    name: str, layer: str | None, norm: str | None
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
    merged = Merge(0.5, skip=skip)(network, task)
    torch.testing.assert_close(merged(x), network(x), rtol=1e-4, atol=1e-5)
    cut = PruneChannels(0.5, skip=skip)(network, task)
    assert not torch.allclose(cut(x), network(x), rtol=1e-2, atol=1e-3)


def test_what_cannot_be_merged_is_named() -> None:
    model, x = build("vit_by_hand")
    plan = Merge(0.5).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    why = {one.what: one.why for one in plan.left_alone}
    assert any(
        "gelu" in reason and "not positively homogeneous" in reason for reason in why.values()
    )
    model, x = build("resnet_a")
    plan = Merge(0.5).plan(capture(model, x[:2]), Task(model, x[:2], [], []))
    assert any("layers write it" in one.why for one in plan.left_alone)


def test_an_index_cannot_be_merged_into_one_that_goes() -> None:
    model, x = build("plain_cnn")
    network = capture(model, x[:2])
    edit = {"edit": "merge", "axes": {"conv1": {"gone": [0, 1], "into": [1, 2], "scale": [1, 1]}}}
    with pytest.raises(InputError, match="'conv1': an index is merged into one that goes itself"):
        carry_out(network, Plan("test", {}, (edit,)))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"ratio": 1.0}, r"ratio must be in \[0, 1\)"),
        ({"selection": "best"}, "selection must be similarity or importance; found 'best'"),
        ({"threshold": 2}, r"threshold must be a cosine in \[0, 1\]; found 2"),
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
    assert why["conv1"] == "its 16 indices are narrower than the multiple of 64"
