"""Arguments: what a node gives its operator, by the names in the operator's signature.

An argument may be given by its place, by its name or not at all, and an operator's places are its
own: the groups of a convolution are the seventh argument, those of a transposed one too, but its
dilation is the eighth. So what is read or written by name is meant, however it was captured.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx


def argument(node: fx.Node, name: str, default: Any = None) -> Any:
    """What a node gives as an argument; the signature's default where it gives nothing.

    Args:
        default: what is returned where the signature has no such argument, or none by default.
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
    """Let a node give this as an argument: in the place where it gives it already, else in the
    first free place, or by its name if that is another's."""
    place = _signature(node)[name]
    if place < len(node.args):
        node.update_arg(place, value)
    elif place > len(node.args) or name in node.kwargs or _schema(node).arguments[place].kwarg_only:
        node.update_kwarg(name, value)
    else:
        node.args = (*node.args, value)


def place_of(node: fx.Node, name: str) -> int | str:
    """Where a node gives an argument: in which place, or by its name."""
    place = _signature(node)[name]
    return place if place < len(node.args) else name


def read_by(node: fx.Node) -> fx.Node:
    """The value that an operator works on: its first argument."""
    source = node.args[0]
    assert isinstance(source, fx.Node)
    return source


def given(node: fx.Node, place: int | str) -> Any:
    """What stands in a place of a node, or under a name."""
    return node.kwargs.get(place) if isinstance(place, str) else node.args[place]


def _schema(node: fx.Node) -> torch.FunctionSchema:
    assert isinstance(node.target, torch._ops.OpOverload)
    return node.target._schema


def _signature(node: fx.Node) -> dict[str, int]:
    """Names to places."""
    return {parameter.name: place for place, parameter in enumerate(_schema(node).arguments)}
