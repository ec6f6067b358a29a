"""Bypass: let the readers of a value read an earlier one, or a linear map of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, fx

from penjing.errors import InputError
from penjing.network.analysis.blocks import stride_between
from penjing.network.graph.arguments import read_by
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import fake_values
from penjing.network.graph.surgery import become, erase, insert_before, leave_input_alone
from penjing.network.graph.tensors import drop_unused, free_name, set_parameter

aten = torch.ops.aten
IDEMPOTENT = {aten.relu.default, aten.relu_.default, aten.relu6.default}
"""Functions that change nothing the second time."""


def bypass(network: Network, values: Mapping[str, str], maps: Sequence[str]) -> None:
    """Cut out what lies between two values, and leave out every ReLU that then follows a ReLU.

    See `cut_out` for the parameters and the errors.
    """
    cut_out(network, values, maps)
    for node in list(network.calls()):
        _write_once(node)


def cut_out(network: Network, values: Mapping[str, str], maps: Sequence[str]) -> None:
    """Cut out what lies between two values, in place, and whatever is then computed for nothing.

    The readers of each `end` read `start` instead. If `end` is in `maps`, its node stays, and
    becomes a linear map of `start`: a 1x1 convolution of values (N, C, H, W), with the stride that
    their sizes ask for, and a linear layer along the last dimension of any other values. The map
    begins as the identity, cut off or padded with zeros.

    Args:
        network: the network.
        values: by name of the node `end`, the name of the node `start`.
        maps: the ends that a linear map replaces.

    Raises:
        InputError: a value has gone with a block that was cut out before it.
    """
    nodes = {node.name: node for node in network.graph.nodes}
    known = fake_values(network)
    instead: dict[str, fx.Node] = {}
    for end_name, start_name in values.items():
        end, start = nodes[end_name], instead.get(start_name, nodes[start_name])
        left = set(network.graph.nodes)
        if end not in left or start not in left:
            raise InputError(f"{end_name!r} can't be cut: it went with an earlier block")
        for user in (*end.users, *start.users):
            if user.op == "call_function":
                leave_input_alone(user)
        if end_name in maps:
            _write_map(network, end, start, known[nodes[start_name]], known[end])
            continue
        instead |= {name: start for name, node in instead.items() if node is end}
        instead[end_name] = start
        end.replace_all_uses_with(start)
        erase(end)
    drop_unused(network)


def _write_map(
    network: Network, end: fx.Node, start: fx.Node, before: Tensor, after: Tensor
) -> None:
    """Turn the node `end` into a linear map of `start`."""
    stride = stride_between(before, after)
    assert stride is not None
    dim = 1 if stride else -1
    identity = torch.eye(after.shape[dim], before.shape[dim], dtype=after.dtype)
    sources = end.all_input_nodes
    weight, bias = (free_name(network, f"{end.name}_map_{what}") for what in ("weight", "bias"))
    set_parameter(network, weight, identity.view(*identity.shape, *[1] * len(stride)))
    set_parameter(network, bias, torch.zeros(len(identity), dtype=after.dtype))
    read = (start, insert_before(end, weight), insert_before(end, bias))
    if stride:
        become(end, aten.conv2d.default, *read, list(stride))
    else:
        become(end, aten.linear.default, *read)
    for source in sources:
        if not source.users and source.op == "call_function":
            erase(source)


def _write_once(node: fx.Node) -> None:
    """Let the readers of a ReLU of a ReLU read the inner one."""
    if repeats(node):
        node.replace_all_uses_with(read_by(node))
        erase(node)


def repeats(node: fx.Node) -> bool:
    """Whether it is a ReLU of the same kind as the one that it reads, and so changes nothing."""
    if node.target not in IDEMPOTENT:
        return False
    source = read_by(node)
    return source.target in IDEMPOTENT and _function(node) == _function(source)


def _function(node: fx.Node) -> str:
    return str(node.target).removeprefix("aten.").partition(".")[0].rstrip("_")
