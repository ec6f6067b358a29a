"""Numbers: what a model takes out of its constants becomes a number in the graph.

`self.stride[0].item()` is a number when Python runs the model, but a node in an exported graph,
whose value no shape may depend on. Where it comes from constants alone, its value is known.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import free_unbacked_symbols

from penjing.errors import CaptureError
from penjing.network.capture.explain import of_number
from penjing.network.graph.arguments import read_by
from penjing.network.graph.places import place_of

aten = torch.ops.aten
ITEMS = {aten.item.default, aten._local_scalar_dense.default}


def fold_numbers(program: fx.GraphModule, name: str) -> None:
    """Replace each number that is taken out of constants by its value, in place.

    Args:
        program: a graph as `torch.export` made it.
        name: of the model's class.

    Raises:
        CaptureError: a number depends on the inputs or the weights, or on a tensor that the model
            writes to; the message has the line of the model.
    """
    items = [node for node in program.graph.nodes if node.target in ITEMS]
    if not items:
        return
    written = {
        read_by(node).target
        for node in program.graph.nodes
        if isinstance(node.target, torch._ops.OpOverload)
        and node.target._schema.is_mutable
        and node.all_input_nodes
        and read_by(node).op == "get_attr"
    }
    known: dict[fx.Node, Any] = {}
    for node in program.graph.nodes:
        _evaluate(program, node, known, written)
    for node in items:
        if node not in known:
            raise CaptureError(f"{name} can't be captured{of_number(node.meta)}")
        for user in list(node.users):
            user.args, user.kwargs = fx.map_arg(
                (user.args, user.kwargs),
                lambda source, node=node: known[node] if source is node else source,  # type: ignore[misc]
            )
        program.graph.erase_node(node)
    _reshape(program)


def _evaluate(
    program: fx.GraphModule, node: fx.Node, known: dict[fx.Node, Any], written: set[Any]
) -> None:
    """Add what a node computes, if it computes it from constants."""
    if node.op == "get_attr":
        value = place_of(program, str(node.target)).value
        is_constant = isinstance(value, torch.Tensor) and not isinstance(value, nn.Parameter)
        if is_constant and node.target not in written:
            known[node] = value
    elif _is_pure(node) and all(source in known for source in node.all_input_nodes):
        args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
        known[node] = node.target(*args, **kwargs)  # type: ignore[operator]


def _is_pure(node: fx.Node) -> bool:
    """Whether it calls an operator that writes into none of its arguments."""
    return isinstance(node.target, torch._ops.OpOverload) and not node.target._schema.is_mutable


def _reshape(program: fx.GraphModule) -> None:
    """What nodes compute whose shapes hung on a number, anew."""
    inputs = [node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"]
    mode = next(value.fake_mode for value in inputs if hasattr(value, "fake_mode"))

    def fake(node: fx.Node) -> Any:
        if node.op != "get_attr":
            return node.meta["val"]
        return mode.from_tensor(place_of(program, str(node.target)).value, static_shapes=True)

    with mode:
        for node in program.graph.nodes:
            if node.op == "call_function" and free_unbacked_symbols(node.meta.get("val")):
                args, kwargs = fx.map_arg((node.args, node.kwargs), fake)
                node.meta["val"] = node.target(*args, **kwargs)
