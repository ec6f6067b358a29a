"""Sizes: rewrite the sizes in a graph's arguments when the dimensions that they measure shrink."""

from __future__ import annotations

import math
import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from penjing.network.axes.algebra import Axis, kept
from penjing.network.axes.trace import Spelling, Trace
from penjing.network.graph.arguments import argument, given
from penjing.network.graph.surgery import insert_after


def rewrite(trace: Trace, keep: Mapping[Axis, list[int]]) -> None:
    """Set every size in the arguments of a node to what is left of it when `keep` stays."""
    for spelling in trace.spellings:
        wanted = sum(len(kept(expression, keep)) for expression in spelling.sizes)
        old = _argument(spelling)
        if isinstance(old, int):
            new: Any = wanted
        else:
            new = _scaled(old, _measure(trace, old, keep), wanted)
        if new is not old and new != old:
            _put(spelling, new)
            if isinstance(old, fx.Node) and not old.users:
                old.graph.erase_node(old)


def _argument(spelling: Spelling) -> Any:
    first, *rest = spelling.path
    value = given(spelling.node, first)
    return value[rest[0]] if rest else value


def _put(spelling: Spelling, value: Any) -> None:
    node, (first, *rest) = spelling.node, spelling.path
    new: Any = value
    if rest:
        new = list(given(node, first))
        new[rest[0]] = value
    if isinstance(first, str):
        node.update_kwarg(first, new)
    else:
        node.update_arg(first, new)


def _measure(trace: Trace, value: Any, keep: Mapping[Axis, list[int]]) -> int:
    """The new value of a size that the graph computes, for the batch size of the example."""
    if not isinstance(value, fx.Node):
        return int(value)
    if value.target is torch.ops.aten.sym_size.int:
        return len(kept(trace.of(argument(value, "self"))[argument(value, "dim")], keep))
    arguments = [_measure(trace, operand, keep) for operand in value.args]
    return int(value.target(*arguments))  # type: ignore[operator]


def _scaled(node: fx.Node, old: int, new: int) -> fx.Node:
    """A node that gives `new` where `node` gives `old`, and scales with the batch size as well."""
    if old == new:
        return node
    factor, divisor = new // math.gcd(old, new), old // math.gcd(old, new)
    source, count = node, 1
    if node.target is operator.mul:
        left, right = node.args
        if isinstance(left, fx.Node) and isinstance(right, int):  # batch * heads
            source, count = left, right
    scale = math.gcd(count, divisor)
    result = insert_after(node, operator.mul, source, count // scale * factor)
    if scale == divisor:
        return result
    return insert_after(result, operator.floordiv, result, divisor // scale)
