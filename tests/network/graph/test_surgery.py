"""What edits do to a graph: it stays in order, computes what it should, and knows its layers."""

from __future__ import annotations

import pytest
import torch
from torch import fx, nn

from penjing.network import Network, capture
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.surgery import (
    become,
    divert,
    erase,
    insert_after,
    insert_before,
    leave_input_alone,
    replace,
)
from penjing.network.graph.tensors import add_bias, free_name, insert_tensor, set_parameter

aten = torch.ops.aten
X = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])


@pytest.fixture
def network() -> Network:
    torch.manual_seed(0)
    layers = nn.Linear(3, 4, bias=False), nn.ReLU(inplace=True), nn.Linear(4, 2)
    return capture(nn.Sequential(*layers), torch.zeros(2, 3))


def _layers(network: Network) -> list[fx.Node]:
    return [node for node in network.calls() if node.target in LAYERS]


def _relu(network: Network) -> fx.Node:
    return next(node for node in network.calls() if "relu" in node.name)


def _order(network: Network) -> list[str]:
    network.compile_graph()  # which refuses a node that reads what stands behind it
    return [node.name for node in network.graph.nodes]


def test_a_new_node_stands_beside_another_and_belongs_to_its_layer(network: Network) -> None:
    relu, first = _relu(network), _layers(network)[0]
    before = insert_before(relu, aten.neg.default, read_by(relu))
    after = insert_after(relu, aten.mul.Tensor, relu, 2.0)
    alike = insert_before(relu, aten.abs.default, before, like=first)
    names = _order(network)
    place = names.index(relu.name)
    assert names[place - 2 : place + 2] == [before.name, alike.name, relu.name, after.name]
    assert before.meta == after.meta == relu.meta
    assert alike.meta == first.meta != relu.meta
    before.meta["layer"] = "another"
    assert relu.meta["layer"] == "1"


def test_replaced_all_readers_read_the_new_node(network: Network) -> None:
    relu, want = _relu(network), network(X)
    replace(relu, insert_before(relu, aten.clamp.default, read_by(relu), 0.0))
    assert relu.name not in _order(network)
    assert torch.equal(network(X), want)


def test_diverted_all_readers_but_the_new_node_do(network: Network) -> None:
    relu, last = _relu(network), _layers(network)[-1]
    want = last_of(network, 2 * network_until_relu(network, X))
    double = insert_after(relu, aten.mul.Tensor, relu, 2.0)
    divert(relu, double)
    assert read_by(double) is relu
    assert Layer(last).data is double
    _order(network)
    torch.testing.assert_close(network(X), want)


def network_until_relu(network: Network, x: torch.Tensor) -> torch.Tensor:
    return torch.relu(x @ network.tensor("0.weight").T)


def last_of(network: Network, x: torch.Tensor) -> torch.Tensor:
    return x @ network.tensor("2.weight").T + network.tensor("2.bias")


def test_a_node_that_becomes_another_forgets_its_arguments(network: Network) -> None:
    relu = _relu(network)
    relu.kwargs = {"nothing": 1}
    become(relu, aten.clamp.default, read_by(relu), -1.0, 1.0)
    assert (relu.args[1:], relu.kwargs) == ((-1.0, 1.0), {})
    _order(network)
    hidden = (X @ network.tensor("0.weight").T).clamp(-1, 1)
    torch.testing.assert_close(network(X), last_of(network, hidden))


def test_what_writes_into_its_input_can_leave_it_alone(network: Network) -> None:
    relu = _relu(network)
    assert relu.target is aten.relu_.default
    leave_input_alone(relu)
    assert relu.target is aten.relu.default
    leave_input_alone(relu)
    assert relu.target is aten.relu.default
    relu.target = aten.__and__.Tensor
    leave_input_alone(relu)
    assert relu.target is aten.__and__.Tensor


def test_what_nothing_reads_is_erased_up_to_what_is_read(network: Network) -> None:
    relu = _relu(network)
    before = _order(network)
    one = insert_after(relu, aten.mul.Tensor, relu, 2.0)
    two = insert_after(one, aten.add.Tensor, one, one)
    erase(two)
    assert _order(network) == before


def test_tensors_are_stored_and_read(network: Network) -> None:
    relu = _relu(network)
    node = insert_tensor(network, relu, "0.shift", torch.ones(4), like=_layers(network)[0])
    assert node.meta["layer"] == "0"
    assert "0.shift" in dict(network.named_buffers())
    assert torch.equal(network.tensor("0.shift"), torch.ones(4))
    set_parameter(network, "0.shift", torch.zeros(4))
    assert "0.shift" in dict(network.named_parameters())
    assert "0.shift" not in dict(network.named_buffers())


def test_a_bias_gets_its_weights_neighbours_name_unless_that_is_taken(network: Network) -> None:
    first, last = _layers(network)
    add_bias(network, first, "0.weight", torch.ones(4))
    assert torch.equal(network.tensor("0.bias"), torch.ones(4))
    network.compile_graph()
    hidden = torch.relu(X @ network.tensor("0.weight").T + 1)
    torch.testing.assert_close(network(X), last_of(network, hidden))
    add_bias(network, last, "2.weight", torch.zeros(2))
    bias = Layer(last).bias
    assert bias is not None
    assert bias.target == "2.weight_bias"


def test_a_free_name_is_no_tensors(network: Network) -> None:
    assert free_name(network, "0.codes") == "0.codes"
    assert free_name(network, "0.weight") == "0.weight_"
    set_parameter(network, "0.weight_", torch.zeros(1))
    assert free_name(network, "0.weight") == "0.weight__"
