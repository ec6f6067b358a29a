"""Shapes are those of the values that a network really computes, also after it was changed."""

from __future__ import annotations

import copy

import pytest
import torch

from penjing.network import Network, capture, find_axes
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.edits.shrink import shrink
from penjing.network.graph.shapes import fake_values, shapes
from tests.reference_networks import self_taught

NAMES = ["plain_cnn", "resnet_a", "mobilenet_v2", "densenet", "vit_by_hand"]


def _require_true(network: Network) -> None:
    known = shapes(network)
    cache = ActivationCache(network, [network.example])
    cache.outputs()
    for node, values in cache.known.items():
        if isinstance(values[0], torch.Tensor):
            assert known[node] == tuple(values[0].shape), node.name


@pytest.mark.parametrize("name", NAMES)
def test_shapes_are_those_of_the_values(name: str) -> None:
    task = self_taught(name)
    network = capture(task.model, task.example)
    _require_true(network)
    smaller = copy.deepcopy(network)
    axis = next(iter(find_axes(smaller).free.values()))
    shrink(smaller, {axis.name: list(range(axis.size - 1))})
    _require_true(smaller)
    _require_true(network)
    assert {node.graph for node in shapes(smaller)} == {smaller.graph}


def test_another_type_is_another_network() -> None:
    task = self_taught("plain_cnn")
    network = capture(task.model, task.example)
    doubled = copy.deepcopy(network).double()
    doubled.example = torch.utils._pytree.tree_map(torch.Tensor.double, network.example)
    for one, wanted in ((network, torch.float32), (doubled, torch.float64)):
        found = {value.dtype for value in fake_values(one).values() if hasattr(value, "dtype")}
        assert found == {wanted}
