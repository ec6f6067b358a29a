"""Surgery: the few things that edits and lowerings do to a graph.

A new node belongs to the layer and to the line of the user's code of the node that it stands
beside, unless it is told another one that it is `like`.
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
    """A new node in front of another; nothing reads it yet."""
    with place.graph.inserting_before(place):
        return _made(like or place, target, args, kwargs)


def insert_after(
    place: fx.Node, target: Target, /, *args: Any, like: fx.Node | None = None, **kwargs: Any
) -> fx.Node:
    """A new node behind another; what was inserted there before it comes behind it. What reads the
    other goes on doing so (see `divert`)."""
    with place.graph.inserting_after(place):
        return _made(like or place, target, args, kwargs)


def replace(node: fx.Node, new: fx.Node) -> None:
    """Let all that reads a node read the new one, and erase it."""
    node.replace_all_uses_with(new)
    node.graph.erase_node(node)


def divert(node: fx.Node, new: fx.Node) -> None:
    """Let all that reads a node read the new one, but for the new one itself."""
    node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)


def become(node: fx.Node, target: Callable[..., Any], *args: Any) -> None:
    """Let a node call another operator, with these arguments."""
    node.target, node.args, node.kwargs = target, args, {}


def leave_input_alone(node: fx.Node) -> None:
    """Let a node give a new value where it writes into the one that it reads."""
    name, _, overload = str(node.target).removeprefix("aten.").partition(".")
    if name.endswith("_") and not name.endswith("__"):
        node.target = getattr(getattr(torch.ops.aten, name.removesuffix("_")), overload)


def erase(node: fx.Node) -> None:
    """Erase a node that nothing reads and, one after the other, all calls of operators that
    nothing reads any more for that."""
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
