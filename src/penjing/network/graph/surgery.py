"""Surgery: the operations by which edits and lowerings change a graph.

A new node takes the layer and the source line of the node next to it, or of the node that `like`
names.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import fx

Target = Callable[..., Any] | str
"""An operator, or the name of a tensor to read."""


def insert_before(
    place: fx.Node, target: Target, /, *args: Any, like: fx.Node | None = None, **kwargs: Any
) -> fx.Node:
    """Insert a node in front of another one; nothing reads the new node yet."""
    with place.graph.inserting_before(place):
        return _made(like or place, target, args, kwargs)


def insert_after(
    place: fx.Node, target: Target, /, *args: Any, like: fx.Node | None = None, **kwargs: Any
) -> fx.Node:
    """Insert a node directly behind another one.

    The readers of the other node stay as they are; see `divert`. A node that was inserted in the
    same place earlier comes behind the new one.
    """
    with place.graph.inserting_after(place):
        return _made(like or place, target, args, kwargs)


def replace(node: fx.Node, new: fx.Node) -> None:
    """Let the readers of a node read `new` instead, and erase the node."""
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def divert(node: fx.Node, new: fx.Node) -> None:
    """Let the readers of a node read `new` instead, except for `new` itself."""
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def become(node: fx.Node, target: Callable[..., Any], *args: Any) -> None:
    """Make a node call another operator with these arguments."""
    node.target, node.args, node.kwargs = target, args, {}


def leave_input_alone(node: fx.Node) -> None:
    """Replace an in-place operator by the one that returns a new value."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    if name.endswith("_") and not name.endswith("__"):
        node.target = getattr(getattr(torch.ops.aten, name.removesuffix("_")), overload)


def erase(node: fx.Node) -> None:
    """Erase a node that nothing reads, and then every call that nothing reads as a result."""
    sources = node.all_input_nodes
    node.graph.erase_node(node)
    for source in sources:
        if not source.users and source.op == "call_function":
            erase(source)


def _made(like: fx.Node, target: Target, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.Node:
    graph = like.graph
    if isinstance(target, str):
        made = graph.get_attr(target)
    else:
        made = graph.call_function(target, args, kwargs)
    made.meta = dict(like.meta)
    return made
