"""A layer's arguments are read and written by name, whichever way its node gives them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import fx

from penjing.network.graph.arguments import argument, read_by, set_argument
from penjing.network.graph.layers import Layer

aten = torch.ops.aten


def _node(target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A call whose first arguments are an input and a weight, before the others."""
    graph = fx.Graph()
    x, weight = graph.placeholder("x"), graph.placeholder("weight")
    return graph.call_function(target, (x, weight, *args), kwargs)


WAYS = {
    "by place": lambda target, **named: _node(target, *named.values()),
    "by name": lambda target, **named: _node(target, **named),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_convolution_is_read_the_same_whichever_way_it_is_given(way: str) -> None:
    node = WAYS[way](
        aten.conv2d.default, bias=None, stride=[2, 3], padding=[1], dilation=[1, 2], groups=4
    )
    layer = Layer(node)
    assert (layer.data.name, layer.weight.name, layer.weight_name) == ("x", "weight", "weight")
    assert layer.bias is None
    assert (layer.stride, layer.padding, layer.dilation) == ((2, 3), (1, 1), (1, 2))
    assert (layer.groups, layer.dimensions) == (4, 2)
    assert not layer.transposed


@pytest.mark.parametrize("way", WAYS)
def test_a_transposed_convolution_has_its_groups_before_its_dilation(way: str) -> None:
    node = WAYS[way](
        aten.conv_transpose2d.input, bias=None, stride=[2, 2], padding=[1, 1],
        output_padding=[0, 0], groups=4, dilation=[3, 3],
    )  # fmt: skip
    layer = Layer(node)
    assert layer.transposed
    assert (layer.groups, layer.dilation, layer.dimensions) == (4, (3, 3), 2)


@pytest.mark.parametrize(
    ("target", "dimensions"),
    [
        (aten.conv1d.default, 1), (aten.conv2d.default, 2), (aten.conv3d.default, 3),
        (aten.conv_transpose1d.default, 1), (aten.conv_transpose3d.input, 3),
        (aten.linear.default, 0),
    ],
)  # fmt: skip
def test_what_is_not_given_is_what_the_operator_takes(target: Any, dimensions: int) -> None:
    layer = Layer(_node(target))
    assert layer.bias is None
    assert (layer.groups, layer.dimensions) == (1, dimensions)
    for sizes, each in ((layer.stride, 1), (layer.padding, 0), (layer.dilation, 1)):
        assert sizes == (each,) * dimensions


def test_padding_may_be_a_word() -> None:
    assert Layer(_node(aten.conv2d.padding, None, [1, 1], "same")).padding == "same"
    assert Layer(_node(aten.conv2d.padding)).padding == "valid"


def test_groups_that_the_graph_works_out_are_no_number() -> None:
    node = _node(aten.conv2d.default)
    set_argument(node, "groups", read_by(node))
    assert argument(node, "groups") is read_by(node)
    with pytest.raises(AssertionError):
        _ = Layer(node).groups


def test_an_argument_is_the_nodes_then_the_operators_then_the_callers() -> None:
    node = _node(aten.slice.Tensor)
    node.args = (read_by(node), -1)
    assert argument(node, "dim", 5) == -1
    assert argument(node, "step", 5) == 1
    assert argument(node, "end", 5) == 5
    assert argument(node, "groups", 5) == 5
    assert argument(node, "groups") is None


def test_a_bias_is_put_in_its_place() -> None:
    for node in (
        _node(aten.linear.default),
        _node(aten.linear.default, None),
        _node(aten.conv2d.default, None, [2, 2]),
    ):
        others = node.args[3:]
        set_argument(node, "bias", read_by(node))
        assert node.args == (read_by(node), Layer(node).weight, read_by(node), *others)
        assert not node.kwargs


def test_what_cannot_stand_in_its_place_is_given_by_name() -> None:
    node = _node(aten.linear.default, bias=None)
    set_argument(node, "bias", read_by(node))  # given by its name, it stays there
    assert (len(node.args), node.kwargs) == (2, {"bias": read_by(node)})
    node = _node(aten.conv2d.default)
    set_argument(node, "groups", 4)
    assert (len(node.args), node.kwargs, Layer(node).groups) == (2, {"groups": 4}, 4)
    set_argument(node, "groups", 2)
    assert (node.kwargs, Layer(node).groups) == ({"groups": 2}, 2)
    total = _node(aten.sum.dim_IntList)
    set_argument(total, "keepdim", True)
    set_argument(total, "dtype", torch.float64)  # which no operator takes by its place
    assert total.args[2:] == (True,)
    assert total.kwargs == {"dtype": torch.float64}
