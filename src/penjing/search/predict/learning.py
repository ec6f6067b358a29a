"""Learning: a model of times from files with parts cut at random."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from penjing.network import Network
from penjing.search.predict.parts import Parts
from penjing.search.predict.shape import Shape
from penjing.search.predict.times import Features, TimeModel, features

LEAST_FILES, MOST_FILES = 10, 24
"""How many files a model is made from."""
HELD_OUT = 4
"""How many more only check it."""
GONE, NARROW = 0.25, 0.5
"""How likely a block is gone, or an axis narrower, in such a file."""
TRIES = 10
"""How many shapes are drawn for each that is wanted, since a small network has few."""
Times = Callable[[Sequence[Shape]], Sequence[float]]


def learnt(
    network: Network,
    parts: Parts,
    times_of: Times,
    made: Callable[[Shape], Network],
    held_out: int = HELD_OUT,
) -> TimeModel:
    """Learn what the operators of a network cost.

    Args:
        network: the uncut network.
        parts: what can be cut.
        times_of: times networks of these shapes, side by side.
        made: makes the network of a shape.
        held_out: how many files only check the model, at most; a small network has few shapes.
    """
    count = min(MOST_FILES, max(LEAST_FILES, len(features(network))))
    shapes = [Shape(), *at_random(parts, count - 1 + held_out)]
    times = times_of(shapes)
    known: list[Features] = [features(made(shape)) for shape in shapes]
    return TimeModel.fit(known, times, min(held_out, len(shapes) // 2))


def at_random(parts: Parts, count: int) -> list[Shape]:
    """Shapes with parts cut at random, all different, as many as there are; always the same."""
    draw = random.Random(0)
    every = parts.changes(Shape())
    shapes: list[Shape] = []
    for _ in range(TRIES * count):
        shape = Shape()
        for change in draw.sample(every, len(every)):
            likely = NARROW / len(parts.keep[change.name]) if change.left else GONE
            if draw.random() < likely and change in parts.changes(shape):
                shape = parts.after(shape, change)
        if shape not in (*shapes, Shape()):
            shapes.append(shape)
        if len(shapes) == count:
            break
    return shapes
