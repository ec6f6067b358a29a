"""Learning: what parts of a network cost, from files with parts cut at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from penjing.network import Network
from penjing.search.predict.cost import Cost, sums_of
from penjing.search.predict.operators import features
from penjing.search.predict.parts import Parts
from penjing.search.predict.shape import Shape
from penjing.trials.contract import Probed

LEAST_FILES, MOST_FILES = 10, 24
"""How many files a cost is learnt from."""
HELD_OUT = 4
"""How many more only check it."""
GONE, NARROW = 0.25, 0.5
"""How likely a block is gone, or an axis narrower or a layer of low rank, in such a file."""
TRIES = 10
"""How many shapes are drawn for each that is wanted, since a small network has few."""
Probing = Callable[[Sequence[Shape]], Sequence[Probed]]
"""Measures the files of networks of these shapes."""


def learnt(
    parts: Parts,
    goal: str,
    probing: Probing,
    made: Callable[[Shape], Network],
    held_out: int = HELD_OUT,
) -> Cost:
    """Learn what the operators of a network cost.

    Args:
        parts: what can be cut from it.
        goal: what counts, see `penjing.search.predict.cost.Cost`.
        probing: measures files.
        made: makes the network of a shape.
        held_out: how many files only check the cost, at most; a small network has few shapes.
    """
    shapes = _shapes(parts, made, held_out)
    files = probing(shapes)
    sums = [sums_of(made(shape), goal) for shape in shapes]
    return Cost.learnt(goal, sums, files, min(held_out, len(shapes) // 2))


def checked(
    cost: Cost,
    parts: Parts,
    probing: Probing,
    made: Callable[[Shape], Network],
    held_out: int = HELD_OUT,
) -> Cost:
    """A cost that was learnt earlier, checked on the same networks that it wasn't made from; see
    `learnt` for the arguments."""
    shapes = _shapes(parts, made, held_out)
    shapes = shapes[-min(held_out, len(shapes) // 2) :]
    return cost.checked([sums_of(made(shape), cost.goal) for shape in shapes], probing(shapes))


def _shapes(parts: Parts, made: Callable[[Shape], Network], held_out: int) -> list[Shape]:
    """The uncut network and others, of which the last ones are held out."""
    count = min(MOST_FILES, max(LEAST_FILES, len(features(made(Shape())))))
    return [Shape(), *at_random(parts, count - 1 + held_out)]


def at_random(parts: Parts, count: int) -> list[Shape]:
    """Shapes with parts cut at random, all different, as many as there are; always the same."""
    draw = random.Random(0)
    every = parts.changes(Shape())
    shapes: list[Shape] = []
    for _ in range(TRIES * count):
        shape = Shape()
        for change in draw.sample(every, len(every)):
            likely = NARROW / parts.levels(change) if change.left else GONE
            if draw.random() < likely and change in parts.changes(shape):
                shape = parts.after(shape, change)
        if shape not in (*shapes, Shape()):
            shapes.append(shape)
        if len(shapes) == count:
            break
    return shapes
