"""The model of times: exact where times are a sum over operators, and refused where they aren't."""

from __future__ import annotations

import random

import pytest
import torch

from penjing.errors import InputError
from penjing.network import Network, capture
from penjing.passes import PruneChannels
from penjing.search.predict.additive import Additive, Features
from penjing.search.predict.operators import features, stored_features
from tests.passes.test_passes import _task as task_of
from tests.reference_networks import NETWORKS, build


def _variants(name: str, count: int) -> list[Network]:
    """A network with random widths."""
    draw, (task, network) = random.Random(0), task_of(name)
    return [
        network if number == 0 else PruneChannels(draw.uniform(0.1, 0.8))(network, task)
        for number in range(count)
    ]


def _time(network: Features) -> float:
    """Times that are a sum: by kind, so much for one operator, a MAC and a value."""
    return sum(
        float((0.1 + len(kind) % 7) * (values[0] + 1e-4 * values[1] + 1e-3 * values[2]))
        for kind, values in network.items()
    )


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"])
def test_times_that_are_a_sum_are_predicted(name: str) -> None:
    known = [features(network) for network in _variants(name, 9)]
    model = Additive.fit(known, [_time(network) for network in known], held_out=3)
    assert len(model.errors) == 3
    assert max(map(abs, model.errors)) < 0.02
    model.require_additive("times")


def test_times_that_are_no_sum_are_refused() -> None:
    draw = random.Random(0)
    known = [features(network) for network in _variants("plain_cnn", 9)]
    model = Additive.fit(known, [draw.uniform(1, 10) for _ in known], held_out=3)
    with pytest.raises(InputError, match=r"times of whole files don't add up: .* is allowed"):
        model.require_additive("times")


@pytest.mark.parametrize("name", NETWORKS)
def test_stored_features_have_every_parameter(name: str) -> None:
    from penjing.measure.costs import costs

    model, x = build(name)
    network = capture(model, x[:2])
    params = sum(values[1] for values in stored_features(network).values())
    folded = sum(cost.params for cost in costs(network) if cost.operator == "batch_norm")
    assert 0 <= sum(cost.params for cost in costs(network)) - params <= folded


@pytest.mark.parametrize("name", NETWORKS)
def test_features_have_every_multiplication(name: str) -> None:
    from penjing.measure.costs import costs

    model, x = build(name)
    network = capture(model, x[:2])
    macs = sum(values[1] for values in features(network).values())
    assert macs == sum(cost.macs for cost in costs(network))


def test_what_becomes_part_of_a_layer_is_no_operator() -> None:
    layers = torch.nn.Conv2d(3, 8, 3), torch.nn.BatchNorm2d(8), torch.nn.ReLU(), torch.nn.ReLU()
    found = features(capture(torch.nn.Sequential(*layers).eval(), torch.zeros(2, 3, 8, 8)))
    assert {kind: values[0] for kind, values in found.items()} == {
        "conv2d 3x3 on 6x6": 1,
        "relu": 1,
    }
