"""A cost model: what a network costs for any choice of widths, without cutting it.

Each dimension is an expression over axes. So the MACs of an operator and the size of a weight are
polynomials in the numbers of indices that are kept: a concatenation gives a sum, a flattening gives
a product. Evaluating them takes microseconds, and the values equal what is counted after the cut.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import torch

from penjing.measure.costs import mac_terms, operators
from penjing.network import Axes
from penjing.network.axes.algebra import Axis, Expression, Product, resolve

Counts = Mapping[str, int]
"""How many indices of each axis are kept, by the axis's name."""
Monomial = tuple[str, ...]


class Part(Protocol):
    """One term of a cost, and the axes on which it depends."""

    @property
    def axes(self) -> frozenset[str]:
        """The names of the axes on which it depends."""
        ...

    def at(self, counts: Counts) -> float:
        """Its cost for a choice of widths."""
        ...


@dataclass(frozen=True)
class Polynomial:
    """A sum of coefficients times counts, divided by `divisor` and rounded down.

    >>> Polynomial({("a", "b"): 9, ("a",): 1}).at({"a": 4, "b": 2})
    76
    """

    terms: Mapping[Monomial, int]
    divisor: int = 1

    @cached_property
    def axes(self) -> frozenset[str]:
        """The names of the axes in its terms."""
        return frozenset(name for monomial in self.terms for name in monomial)

    def at(self, counts: Counts) -> int:
        """Its value. `counts` must have each axis in its terms."""
        total = 0
        for monomial, coefficient in self.terms.items():
            for name in monomial:
                coefficient *= counts[name]
            total += coefficient
        return total // self.divisor

    def __add__(self, other: Polynomial) -> Polynomial:
        terms = defaultdict(int, self.terms)
        for monomial, coefficient in other.terms.items():
            terms[monomial] += coefficient
        return Polynomial(dict(terms))

    def __mul__(self, other: Polynomial) -> Polynomial:
        terms: dict[Monomial, int] = defaultdict(int)
        for mine, left in self.terms.items():
            for theirs, right in other.terms.items():
                terms[tuple(sorted((*mine, *theirs)))] += left * right
        return Polynomial(dict(terms))


@dataclass(frozen=True)
class CostModel:
    """The cost of a network as a function of its widths: the sum of its parts.

    Attributes:
        unit: what is counted, for people: `"MACs"`, `"parameters"`, `"latency"`.
        parts: the terms of the sum.
        sizes: the widths before any cut.
        plateaus: whether a narrower axis may cost as much as a wider one, as with measured times.
    """

    unit: str
    parts: tuple[Part, ...]
    sizes: Counts
    plateaus: bool = False

    @cached_property
    def by_axis(self) -> Mapping[str, tuple[Part, ...]]:
        """The parts that depend on each axis."""
        by_axis: dict[str, list[Part]] = {name: [] for name in self.sizes}
        for part in self.parts:
            for name in part.axes:
                by_axis[name].append(part)
        return {name: tuple(parts) for name, parts in by_axis.items()}

    @cached_property
    def neighbours(self) -> Mapping[str, frozenset[str]]:
        """For each axis, the axes that share a part with it, including itself."""
        return {
            name: frozenset({name}).union(*(part.axes for part in parts))
            for name, parts in self.by_axis.items()
        }

    def total(self, counts: Counts) -> float:
        """The total cost. Axes that aren't in `counts` are uncut."""
        return sum(part.at({**self.sizes, **counts}) for part in self.parts)

    def saved(self, counts: Counts, axis: str, count: int) -> float:
        """How much cost is saved if `axis` is reduced from `counts[axis]` to `count`."""
        after = {**counts, axis: count}
        return sum(part.at(counts) - part.at(after) for part in self.by_axis[axis])


def cost_in_macs(axes: Axes) -> CostModel:
    """The MACs for one sample, as `penjing.measure.costs.costs` counts them.

    >>> import torch
    >>> from penjing.network import capture, find_axes
    >>> two = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> model = cost_in_macs(find_axes(capture(two, torch.zeros(2, 4))))
    >>> model.total({}), model.total({"0": 3})
    (48, 18)
    """
    network, trace = axes.trace.network, axes.trace
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    names = _names(axes)
    costs = [
        _sum(
            _product(polynomial(factor, names) for factor in factors)
            for factors in mac_terms(node, trace.of)
        )
        for node, _ in operators(network, trace.shapes)
    ]
    return _cost_model("MACs", axes, costs, batch)


def cost_in_params(axes: Axes) -> CostModel:
    """The parameters, as `penjing.measure.costs.costs` counts them."""
    network, trace = axes.trace.network, axes.trace
    names = _names(axes)
    costs = [
        _product(polynomial(expression, names) for expression in trace.tensors[tensor])
        for _, tensors in operators(network, trace.shapes)
        for tensor in tensors
    ]
    return _cost_model("parameters", axes, costs, 1)


def polynomial(expression: Expression, names: Mapping[Axis, str]) -> Polynomial:
    """The number of indices of an expression, as a polynomial in the counts of the named axes.

    >>> from penjing.network.axes.algebra import Concat
    >>> heads, width = Axis(2), Axis(3)
    >>> polynomial(Concat((Product((heads, width)), Axis(5))), {heads: "h", width: "w"}).terms
    {('h', 'w'): 1, (): 5}
    """
    expression = resolve(expression)
    if isinstance(expression, Axis):
        if expression in names:
            return Polynomial({(names[expression],): 1})
        return Polynomial({(): expression.size})
    parts = (polynomial(part, names) for part in expression.parts)
    return _product(parts) if isinstance(expression, Product) else _sum(parts)


def _names(axes: Axes) -> dict[Axis, str]:
    return {group.axis: name for name, group in axes.free.items()}


def _sum(some: Iterable[Polynomial]) -> Polynomial:
    return sum(some, Polynomial({}))


def _product(some: Iterable[Polynomial]) -> Polynomial:
    return math.prod(some, start=Polynomial({(): 1}))


def _cost_model(unit: str, axes: Axes, costs: list[Polynomial], divisor: int) -> CostModel:
    """A cost model from the cost of each operator.

    Costs that are divisible by `divisor` are merged, with one part for each monomial. The others
    are rounded operator by operator, as they are when a network's costs are counted.
    """
    even = Polynomial({})
    parts: list[Part] = []
    for cost in costs:
        if all(coefficient % divisor == 0 for coefficient in cost.terms.values()):
            even += cost
        else:
            parts.append(Polynomial(cost.terms, divisor))
    parts += [Polynomial({monomial: value // divisor}) for monomial, value in even.terms.items()]
    return CostModel(unit, tuple(parts), {name: group.size for name, group in axes.free.items()})
