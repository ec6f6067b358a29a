"""Where tensors are stored: parameters, buffers, constants of the code and tied tensors alike."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from penjing.network import Network, capture, find_axes, mask
from penjing.network.edits.shrink import shrink
from penjing.network.graph.arguments import set_argument
from penjing.network.graph.layers import LAYERS
from penjing.network.graph.places import place_of, places
from penjing.network.graph.tensors import add_bias, drop_unused, free_name, set_tensor

X = torch.tensor([[1.0, -2.0, 3.0], [-4.0, 5.0, -6.0]])


class Shift(nn.Module):
    """Keeps its tensor as a plain attribute, which is neither a parameter nor a buffer."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.offset = torch.linspace(-1, 1, width)
        self.again = self.offset

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.offset).relu() * self.again


class Reorder(nn.Module):
    """Its forward makes a tensor from numbers, which belongs to the layer where it is made."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, torch.tensor([3, 1, 0, 2])] * torch.tensor([1.0, 2.0, -1.0, 0.5])


class Twice(nn.Module):
    """The same buffer under two names, of which no file holds either."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(3, 4)
        ones = torch.ones(4)
        self.register_buffer("one", ones, persistent=False)
        self.register_buffer("two", ones, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) * self.one + self.two


def _shifted() -> Network:
    torch.manual_seed(0)
    return capture(nn.Sequential(nn.Linear(3, 8), Shift(8), nn.Linear(8, 2)).eval(), X)


def test_a_constant_of_a_layer_shrinks_with_the_layers_around_it() -> None:
    network = _shifted()
    (axis,) = find_axes(network).free
    smaller = copy.deepcopy(network)
    shrink(smaller, {axis: [1, 2, 6]})
    smaller.compile_graph()
    assert smaller.tensor("1.offset").tolist() == network.tensor("1.offset")[[1, 2, 6]].tolist()
    assert torch.allclose(smaller(X), mask(network, {axis: [1, 2, 6]})(X), atol=1e-6)


def test_a_constant_that_the_code_of_a_layer_makes_shrinks_too() -> None:
    torch.manual_seed(0)
    network = capture(nn.Sequential(nn.Linear(3, 4), Reorder(), nn.Linear(4, 2)).eval(), X)
    constants = [name for name in places(network) if name not in network.state_dict()]
    assert [name.partition(".")[0] for name in constants] == ["1", "1"]
    keep = {name: list(range(group.size - 1)) for name, group in find_axes(network).free.items()}
    smaller = copy.deepcopy(network)
    shrink(smaller, keep)
    smaller.compile_graph()
    assert torch.allclose(smaller(X), mask(network, keep)(X), atol=1e-6)


def test_a_constant_of_a_layer_is_copied_and_converted_but_not_saved() -> None:
    network = _shifted()
    other = copy.deepcopy(network).double()
    assert other.tensor("1.offset").dtype is torch.float64
    assert network.tensor("1.offset").dtype is torch.float32
    assert sorted(network.state_dict()) == ["0.bias", "0.weight", "2.bias", "2.weight"]


def test_a_tensor_can_be_stored_in_a_layer_that_is_called_like_a_part_of_the_network() -> None:
    class Called(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tensor = nn.Linear(3, 4, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.tensor(x)

    network = capture(Called(), X)
    (layer,) = (node for node in network.calls() if node.target in LAYERS)
    want = network(X) + torch.arange(4.0)
    add_bias(network, layer, "tensor.weight", torch.arange(4.0))
    network.compile_graph()
    assert torch.equal(network(X), want)


def test_a_tensor_may_be_called_like_a_part_of_the_network() -> None:
    network = capture(nn.Linear(3, 2), X)
    for values in (torch.ones(2), torch.zeros(2)):
        set_tensor(network, "example", values)
        assert torch.equal(network.tensor("example"), values)
        assert torch.equal(network.example, X)
    drop_unused(network)
    assert "example" not in places(network)
    assert torch.equal(network.example, X)


def test_a_tied_tensor_has_several_names_and_all_of_them_are_taken() -> None:
    network = capture(Twice(), X)
    assert list(places(network)) == ["linear.weight", "linear.bias", "one", "two"]
    assert place_of(network, "one").value is place_of(network, "two").value
    assert free_name(network, "two") == "two_"
    assert free_name(network, "three") == "three"


def test_a_tied_tensor_that_nothing_reads_leaves_with_all_its_names() -> None:
    network = capture(Twice(), X)
    multiply, add = (node for node in network.calls() if node.target not in LAYERS)
    set_argument(multiply, "other", 1.0)
    drop_unused(network)
    assert {"one", "two"} <= places(network).keys()
    set_argument(add, "other", 1.0)
    drop_unused(network)
    assert list(places(network)) == ["linear.weight", "linear.bias"]
