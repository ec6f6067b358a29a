"""Arguments: read and write the arguments of a node by the names in the operator's signature.

A graph may give an argument by position, by name or not at all, and positions differ between
operators: `dilation` is the sixth argument of a convolution, but the eighth of a transposed one.
Access by name works in all these cases.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """The argument of a node, or the signature's default if the node doesn't give it.

    Args:
        node: the node.
        name: the name of the argument.
        default: returned if the signature has no such argument, or no default for it.
    """
    signature = _signature(node)
    place = signature.get(name, len(node.args))
    if place < len(node.args):
        return node.args[place]
    if name in node.kwargs:
        return node.kwargs[name]
    usual = _schema(node).arguments[place].default_value if name in signature else None
    return default if usual is None else usual


def set_argument(node: fx.Node, name: str, value: Any) -> None:
    """Set an argument of a node.

    The argument keeps its position if the node gives it already. Otherwise it takes the first free
    position, or is given by name if that position belongs to another argument.
    """
    place = _signature(node)[name]
    if place < len(node.args):
        node.update_arg(place, value)
    elif place > len(node.args) or name in node.kwargs or _schema(node).arguments[place].kwarg_only:
        node.update_kwarg(name, value)
    else:
        node.args = (*node.args, value)


def place_of(node: fx.Node, name: str) -> int | str:
    """How a node gives an argument: its position, or its name."""
    place = _signature(node)[name]
    return place if place < len(node.args) else name


def read_by(node: fx.Node) -> fx.Node:
    """The first argument of a node, which is the value that the operator works on."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def given(node: fx.Node, place: int | str) -> Any:
    """The argument of a node at a position, or under a name."""
    return node.kwargs.get(place) if isinstance(place, str) else node.args[place]


def _schema(node: fx.Node) -> torch.FunctionSchema:
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target._schema


def _signature(node: fx.Node) -> dict[str, int]:
    """The position of each argument by name."""
    return {parameter.name: place for place, parameter in enumerate(_schema(node).arguments)}
