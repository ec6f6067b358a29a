"""Capture keeps what the model was, and says in one line what it cannot keep."""

from __future__ import annotations

import copy
import importlib
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from penjing.errors import CaptureError, InputError
from penjing.network import capture
from tests.reference_networks import NETWORKS, build


@pytest.mark.parametrize("name", NETWORKS)
def test_a_captured_network_is_the_model(name: str) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    assert list(network.state_dict())
    assert set(network.state_dict()) == set(model.state_dict())
    torch.testing.assert_close(network(x), model(x), rtol=0, atol=0)
    assert torch.equal(copy.deepcopy(network)(x), network(x))
    model.load_state_dict(network.state_dict())


def test_a_network_owns_its_weights_and_leaves_the_mode_of_the_model() -> None:
    model, x = build("resnet_b")
    model.train()
    network = capture(model, x)
    assert model.training
    assert not network.training
    before = network(x)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(network(x), before)


def test_training_mode_is_that_of_the_class() -> None:
    model, x = build("resnet_a")
    network = capture(model, x).train()
    model.train()
    torch.testing.assert_close(network(x), model(x), rtol=0, atol=0)
    for name, buffer in network.named_buffers():
        if "running" in name:
            torch.testing.assert_close(buffer, model.get_buffer(name), rtol=0, atol=0)


class TwoInputs(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(5, 4)

    def forward(self, a: Tensor, b: Tensor) -> dict[str, Tensor]:
        return {"sum": self.left(a) + self.right(b), "left": self.left(a)}


@pytest.mark.parametrize("keywords", [False, True])
def test_several_inputs_and_a_dict_out(keywords: bool) -> None:
    model, a, b = TwoInputs(), torch.randn(6, 3), torch.randn(6, 5)
    example = {"a": a[:2], "b": b[:2]} if keywords else (a[:2], b[:2])
    network = capture(model, example)
    found = network(a=a, b=b) if keywords else network(a, b)
    assert found.keys() == {"sum", "left"}
    assert torch.equal(found["sum"], model(a, b)["sum"])


class DataDependent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return self.linear(x)
        return x


class FixedBatch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x.view(2, 12))


def test_a_line_of_the_users_is_named_whatever_its_folder_is_called(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as `penjing`, where the project is cloned to."""
    folder = tmp_path / "penjing" / "torch"
    folder.mkdir(parents=True)
    lines = ["def branch(x):", "    return x if x.sum() > 0 else -x"]
    (folder / "of_the_user.py").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(folder))
    branch = importlib.import_module("of_the_user").branch

    class Branching(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return branch(super().forward(x))

    with pytest.raises(CaptureError, match=r"at of_the_user\.py:2: its control flow"):
        capture(Branching(3, 3), torch.randn(2, 3))


def test_what_cannot_be_captured_is_said_in_one_line() -> None:
    x = torch.randn(2, 3)
    with pytest.raises(CaptureError, match=r"test_capture\.py:\d+.*depends on the data") as e:
        capture(DataDependent(), x)
    assert "\n" not in str(e.value)
    with pytest.raises(CaptureError, match="fixes the batch size"):
        capture(FixedBatch(), torch.randn(2, 3, 4))
    with pytest.raises(InputError, match="batch size of 1"):
        capture(nn.Linear(3, 3), x[:1])
    with pytest.raises(InputError, match="no parameters"):
        capture(nn.ReLU(), x)
    bad = nn.Linear(3, 3)
    with torch.no_grad():
        bad.weight[1, 1] = torch.nan
    with pytest.raises(InputError, match=r"weight weight has NaN or infinite values \(1 of 9\)"):
        capture(bad, x)


class _OddNames(nn.Module):
    """Layers and tensors with names that a Network uses itself, and a mask of infinities."""

    example: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.tensor = nn.Linear(4, 6)
        self.source = nn.Linear(6, 3)
        self.register_buffer("example", torch.full((6,), -math.inf))
        self.history = nn.Parameter(torch.ones(6))

    def forward(self, x: torch.Tensor, edges: torch.Tensor, scale: torch.Tensor) -> torch.Tensor:
        y = self.tensor(x)[edges[0]] * self.history + torch.where(self.example < 0, 1.0, 0.0)
        return x.sum(1, keepdim=True) + scale * self.source(y).mean(0)


def test_names_of_its_own_infinite_masks_and_inputs_without_a_batch() -> None:
    model = _OddNames().eval()
    x = torch.randn(5, 4), torch.randint(5, (2, 7)), torch.tensor(2.0)
    network = capture(model, x)
    assert list(network.state_dict()) == list(model.state_dict())
    torch.testing.assert_close(network(*x), model(*x))
    more = torch.randn(9, 4), x[1], x[2]
    torch.testing.assert_close(copy.deepcopy(network)(*more), model(*more))
