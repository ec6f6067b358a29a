"""Decompose: inline subgraphs, and replace operators without an axis rule by simpler ones."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import fx
from torch._decomp import decomposition_table
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.proxy_tensor import make_fx

from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.places import place_of
from penjing.network.graph.surgery import insert_before, replace
from penjing.quiet import quiet

REGIONS = {"wrap_with_autocast": 4, "wrap_with_set_grad_enabled": 1}
"""Operators that call a subgraph under a setting, and the place of the subgraph in the arguments.

An autocast setting is dropped: a network computes in the precision of its weights.
"""
DEPTH = 6
"""How many times the parts of an operator are decomposed again."""


def break_up(program: fx.GraphModule, known: Callable[[Any], bool]) -> None:
    """Inline subgraphs, and decompose every operator that isn't `known`, in place.

    An operator that torch can't decompose stays as it is. Every node needs its `meta["val"]`.
    """
    for node in list(program.graph.nodes):
        place = REGIONS.get(str(node.target)) if node.op == "call_function" else None
        if place is not None:
            called, *inputs = node.args[place:]
            region = getattr(program, called.target)
            assert isinstance(region, fx.GraphModule)
            _inline(program, node, region, inputs)
    for _ in range(DEPTH):
        foreign = [
            node
            for node in program.graph.nodes
            if isinstance(node.target, torch._ops.OpOverload)
            and node.target.namespace == "aten"
            and isinstance(node.meta.get("val"), torch.Tensor | list | tuple)
            and not known(node.target)
        ]
        taken_apart = [_take_apart(program, node) for node in foreign]
        if not any(taken_apart):
            break
    program.graph.eliminate_dead_code()


def _take_apart(program: fx.GraphModule, node: fx.Node) -> bool:
    """Replace one operator by its decomposition; False if there is none."""
    function = _decomposition(node.target)
    if function is None:
        return False
    inputs = [
        source
        for source in node.all_input_nodes
        if isinstance(_value(program, source), torch.Tensor)
    ]
    tensors = [_value(program, source) for source in inputs]

    def call(*given: torch.Tensor) -> Any:
        values = dict(zip(inputs, given, strict=True))
        args, kwargs = fx.map_arg(
            (node.args, node.kwargs), lambda source: values.get(source, source.meta.get("val"))
        )
        return function(*args, **kwargs)

    mode = next((t.fake_mode for t in tensors if hasattr(t, "fake_mode")), FakeTensorMode())
    try:
        with mode, torch.no_grad(), quiet():
            fakes = [t if hasattr(t, "fake_mode") else mode.from_tensor(t) for t in tensors]
            parts = make_fx(call)(*fakes)
            if any(str(part.target).endswith("_.default") for part in parts.graph.nodes):
                # parts that are written in place have no gradient
                parts = make_fx(torch.func.functionalize(parts))(*fakes)
                _copy_with_gradient(parts)
    except Exception:  # torch can't trace it: the operator stays whole and pins its axes
        return False
    if any(part.op == "get_attr" for part in parts.graph.nodes):
        return False
    _inline(program, node, parts, inputs)
    return True


def _copy_with_gradient(parts: fx.GraphModule) -> None:
    """Replace a copy into a whole tensor, which torch can't differentiate, by the copied value."""
    for node in list(parts.graph.nodes):
        if node.target is not torch.ops.aten.copy.default:
            continue
        target, source = read_by(node), argument(node, "src")
        if target.meta["val"].dtype == source.meta["val"].dtype:
            replace(node, insert_before(node, torch.ops.aten.expand_as.default, source, target))


def _decomposition(target: Any) -> Callable[..., Any] | None:
    try:
        composite = target._can_decompose()
    except RuntimeError:  # an operator that is defined in Python only
        composite = False
    if composite:
        decomposition: Callable[..., Any] = target.decompose
        return decomposition
    return decomposition_table.get(target)


def _value(program: fx.GraphModule, node: fx.Node) -> Any:
    if node.op != "get_attr":
        return node.meta.get("val")
    return place_of(program, str(node.target)).value


def _inline(program: fx.GraphModule, node: fx.Node, parts: fx.GraphModule, inputs: Any) -> None:
    """Put the nodes of `parts` in the place of `node`."""
    known: dict[fx.Node, Any] = {}
    given: Iterator[Any] = iter(inputs)
    results: Any = None
    with program.graph.inserting_before(node):
        for part in parts.graph.nodes:
            if part.op == "placeholder":
                known[part] = next(given)
            elif part.op == "output":
                (results,) = fx.map_arg(part.args, known.__getitem__)
            elif isinstance(part.target, type):  # a named tuple of several results
                known[part] = fx.map_arg(part.args, known.__getitem__)
            elif part.target is operator.getitem and isinstance(known[read_by(part)], tuple):
                several, index = fx.map_arg(part.args, known.__getitem__)
                known[part] = several[index]
            else:
                known[part] = program.graph.node_copy(part, known.__getitem__)
                keep = ("nn_module_stack", "stack_trace")
                known[part].meta |= {key: node.meta[key] for key in keep if key in node.meta}
    if isinstance(results, fx.Node):
        node.replace_all_uses_with(results)
    else:
        for user in list(node.users):
            assert user.target is operator.getitem
            _, index = user.args
            replace(user, results[index])
    program.graph.erase_node(node)
