"""Algebra: how the dimensions of all tensors in a network depend on each other.

A dimension is written as an expression over axes:

    Axis                an unknown of some size; once more is known it is *bound* to an expression
    Product(a, b, ..)   row-major flattening, as in a view of C x H x W: size = product
    Concat(a, b, ..)    one after the other, as in the output of `cat`: size = sum

`join(x, y)` states that two dimensions are the same and must shrink together. This is unification:
an axis is bound, or split into finer axes, until both sides are the same expression. Where that is
impossible, the axes are pinned: they keep their sizes, and the pin has the reason. Once the indices
that stay are chosen for some axes, `kept` gives the indices that stay of any expression.

Source: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, "DepGraph: Towards Any Structural Pruning",
2023, for the idea of dependency groups that are found operator by operator. The expressions and
their unification are penjing's own.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Pin:
    """The reason why an axis keeps its size, and where it was found."""

    why: str
    node: str = ""
    source: str = ""

    def __str__(self) -> str:
        return f"{self.why}{f' ({self.source})' if self.source else ''}"


class Axis:
    """An unknown of the algebra: a dimension with `size` indices, wherever it appears."""

    __slots__ = ("bound", "mixed", "pins", "size")

    def __init__(self, size: int, pin: Pin | None = None) -> None:
        self.size = size
        self.bound: Expression | None = None
        self.pins: list[Pin] = [pin] if pin else []
        self.mixed: list[Pin] = []

    def __repr__(self) -> str:
        return f"Axis({self.size}{', pinned' if self.pins else ''})"


@dataclass(frozen=True)
class Product:
    """The row-major flattening of `parts`, the first of which is the outermost."""

    parts: tuple[Expression, ...]


@dataclass(frozen=True)
class Concat:
    """`parts` one after the other."""

    parts: tuple[Expression, ...]


Expression = Axis | Product | Concat


def size(expression: Expression) -> int:
    """The number of indices of an expression.

    >>> size(Product((Axis(3), Concat((Axis(2), Axis(4))))))
    18
    """
    if isinstance(expression, Axis):
        return expression.size
    sizes = (size(part) for part in expression.parts)
    return math.prod(sizes) if isinstance(expression, Product) else sum(sizes)


def resolve(expression: Expression) -> Expression:
    """The normal form: bound axes replaced, nested products and concatenations flattened."""
    if isinstance(expression, Axis):
        if expression.bound is None:
            return expression
        expression.bound = resolve(expression.bound)
        return expression.bound
    kind = type(expression)
    parts: list[Expression] = []
    for part in expression.parts:
        part = resolve(part)
        parts.extend(part.parts if isinstance(part, kind) else (part,))
    if kind is Concat:
        parts = [part for part in parts if size(part)] or parts[:1]
        return parts[0] if len(parts) == 1 else Concat(tuple(parts))
    parts = [part for part in parts if size(part) != 1] or parts[:1]
    if len(parts) == 1:
        return parts[0]
    first, rest = parts[0], tuple(parts[1:])
    if isinstance(first, Concat):  # (a ++ b) x c  =  a x c ++ b x c
        return resolve(Concat(tuple(Product((part, *rest)) for part in first.parts)))
    return Product(tuple(parts))


def leaves(expression: Expression) -> Iterator[Axis]:
    """The unbound axes of an expression, in order, with repetitions."""
    expression = resolve(expression)
    if isinstance(expression, Axis):
        yield expression
    else:
        for part in expression.parts:
            yield from leaves(part)


def pin(expression: Expression, why: Pin) -> None:
    """Note that every axis in the expression keeps its size."""
    for axis in leaves(expression):
        if why not in axis.pins:
            axis.pins.append(why)


def mix(expression: Expression, why: Pin) -> None:
    """Note that a statistic is computed over these axes, which changes when they shrink."""
    for axis in leaves(expression):
        if why not in axis.mixed:
            axis.mixed.append(why)


def bind(axis: Axis, expression: Expression) -> None:
    """Bind an axis to an expression, which takes over the axis' pins."""
    assert axis.bound is None
    assert axis.size == size(expression)
    axis.bound = expression
    for why in axis.pins:
        pin(expression, why)
    for why in axis.mixed:
        mix(expression, why)


def join(left: Expression, right: Expression, why: Pin) -> None:
    """State that two dimensions are the same; `why` names the cause if they can't be matched."""
    left, right = resolve(left), resolve(right)
    if left is right or left == right:
        return
    if size(left) != size(right):
        _give_up((left, right), why)
    elif isinstance(left, Axis):
        bind(left, right)
    elif isinstance(right, Axis):
        bind(right, left)
    elif isinstance(left, Product) and isinstance(right, Product):
        _align(deque(left.parts), deque(right.parts), Product, why)
    else:
        _align(deque(_parts(left, Concat)), deque(_parts(right, Concat)), Concat, why)


def _align(
    left: deque[Expression], right: deque[Expression], kind: type[Product | Concat], why: Pin
) -> None:
    """Join two sequences of parts pairwise, and split the larger part where sizes differ."""
    while left and right:
        for side in (left, right):  # an earlier join may have bound the next part
            side.extendleft(reversed(_parts(side.popleft(), kind)))
        first, second = left.popleft(), right.popleft()
        if size(first) == size(second):
            join(first, second, why)
            continue
        small, large, rest = (
            (first, second, right) if size(first) < size(second) else (second, first, left)
        )
        halves = split(large, size(small), kind)
        if halves is None:
            _give_up((first, second, *left, *right), why)
            return
        join(small, halves[0], why)
        rest.extendleft(reversed(halves))
        rest.popleft()


def split(
    expression: Expression, head: int, kind: type[Product | Concat]
) -> tuple[Expression, Expression] | None:
    """Split an expression in two, the first of size `head`; None if that is impossible.

    With the `kind` Product, the first is the outer factor. With Concat, it is the leading part.
    Splitting a concatenation into factors makes its pieces the same axis, as in packed queries,
    keys and values.
    """
    expression = resolve(expression)
    total = size(expression)
    if kind is Product and isinstance(expression, Concat) and total % head == 0:
        factors = Axis(head), Axis(total // head)
        join(expression, Product(factors), Pin("a reshape of a concatenation"))
        return factors
    if isinstance(expression, Axis):
        if kind is Product and total % head:
            return None
        tail = total // head if kind is Product else total - head
        parts = (Axis(head), Axis(tail))
        bind(expression, kind(parts))
        return parts
    if kind is Concat and isinstance(expression, Product):
        outer, inner = expression.parts[0], Product(expression.parts[1:])
        if head % size(inner):
            return None
        halves = split(outer, head // size(inner), Concat)
        return halves and (Product((halves[0], inner)), Product((halves[1], inner)))
    return _split_sequence(expression, head, kind)


def _split_sequence(
    expression: Product | Concat, head: int, kind: type[Product | Concat]
) -> tuple[Expression, Expression] | None:
    """Split between two parts, or within the part where the split falls."""
    if not isinstance(expression, kind):
        return None
    done: list[Expression] = []
    for position, part in enumerate(expression.parts):
        after = expression.parts[position + 1 :]
        so_far = size(kind((*done, part)))
        if so_far == head:
            return kind((*done, part)), kind(after)
        if so_far > head:
            before = size(kind(tuple(done))) if done else (1 if kind is Product else 0)
            if kind is Product and head % before:
                return None
            wanted = head // before if kind is Product else head - before
            halves = split(part, wanted, kind)
            return halves and (kind((*done, halves[0])), kind((halves[1], *after)))
        done.append(part)
    return None


def _parts(expression: Expression, kind: type[Product | Concat]) -> tuple[Expression, ...]:
    expression = resolve(expression)
    return expression.parts if isinstance(expression, kind) else (expression,)


def _give_up(expressions: Iterable[Expression], why: Pin) -> None:
    for expression in expressions:
        pin(expression, Pin(f"its parts can't be matched at {why.why}", why.node, why.source))


def owners(expression: Expression, axis: Axis) -> NDArray[np.int64]:
    """For each index of an expression, the index of `axis` that it belongs to, or -1.

    >>> heads, width = Axis(2), Axis(3)
    >>> owners(Product((heads, width)), width).tolist()
    [0, 1, 2, 0, 1, 2]
    """
    expression = resolve(expression)
    if isinstance(expression, Axis):
        same = expression is axis
        return np.arange(axis.size) if same else np.full(expression.size, -1, np.int64)
    parts = [owners(part, axis) for part in expression.parts]
    if isinstance(expression, Concat):
        return np.concatenate(parts)
    indices = np.full(1, -1, np.int64)
    for part in parts:
        outer, inner = np.repeat(indices, len(part)), np.tile(part, len(indices))
        indices = np.where(outer >= 0, outer, inner)
    return indices


def kept(expression: Expression, keep: Mapping[Axis, list[int]]) -> list[int]:
    """The indices of an expression that stay when the axes in `keep` shrink.

    >>> heads, width = Axis(2), Axis(3)
    >>> kept(Product((heads, width)), {width: [0, 2]})
    [0, 2, 3, 5]
    """
    expression = resolve(expression)
    if isinstance(expression, Axis):
        return keep.get(expression, list(range(expression.size)))
    if isinstance(expression, Concat):
        indices: list[int] = []
        offset = 0
        for part in expression.parts:
            indices += [offset + index for index in kept(part, keep)]
            offset += size(part)
        return indices
    result = [0]
    for part in expression.parts:
        inner, width = kept(part, keep), size(part)
        result = [outer * width + index for outer in result for index in inner]
    return result
