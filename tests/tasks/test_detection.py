"""Mean average precision by its definition, on boxes of any number, and its lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from penjing.contract import Array
from penjing.errors import InputError
from penjing.tasks.detection import (
    COCO,
    Boxes,
    mean_average_precision,
    overlaps_of,
    without_overlapping,
)

Images = list[tuple[Boxes, Boxes]]


def _boxes(draw: np.random.Generator, number: int) -> Array:
    low = draw.uniform(0, 20, (number, 2))
    return np.concatenate([low, low + draw.uniform(2, 8, (number, 2))], 1)


def _images(seed: int, number: int = 12) -> Images:
    """What is in images, and what a detector that is often right says of them."""
    draw, images = np.random.default_rng(seed), []
    for _ in range(number):
        there = Boxes(_boxes(draw, n := int(draw.integers(0, 5))), draw.integers(0, 3, n))
        near = there.corners + draw.normal(0, 0.4, there.corners.shape)
        more = _boxes(draw, m := int(draw.integers(0, 4)))
        said = Boxes(
            np.concatenate([near, more]),
            np.concatenate([there.classes, draw.integers(0, 3, m)]),
            draw.permutation(n + m) / 10.0 + draw.uniform(0, 0.01, n + m),
        )
        images.append((said, there))
    return images


def _figure(images: Images, overlaps: Sequence[float] = COCO) -> float:
    said, there = ([pair[which] for pair in images] for which in (0, 1))
    metric = mean_average_precision(lambda _: said, lambda _: there, overlaps)
    return metric.figure(metric.scores(None, [None] * len(images)))


def _by_definition(images: Images, overlap: float) -> float:
    """The same in plain loops: each class, each box from the surest down, each of 101 recalls."""
    classes = sorted({int(kind) for _, there in images for kind in there.classes})
    parts = []
    for kind in classes:
        number = sum(int((there.classes == kind).sum()) for _, there in images)
        rows = [
            (float(said.scores[k]), image, k)  # type: ignore[index]
            for image, (said, _) in enumerate(images)
            for k in np.flatnonzero(said.classes == kind)
        ]
        taken, hits = set[tuple[int, int]](), []
        for _, image, k in sorted(rows, reverse=True):
            said, there = images[image]
            best, chosen = overlap, -1
            for j in np.flatnonzero(there.classes == kind):
                shared = float(overlaps_of(said.corners[[k]], there.corners[[j]])[0, 0])
                if (image, int(j)) not in taken and shared >= best:
                    best, chosen = shared, int(j)
            hits.append(chosen >= 0)
            taken.add((image, chosen))
        points = [
            (sum(hits[: n + 1]) / number, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))
        ]
        at = [
            max((p for r, p in points if r >= recall - 1e-12), default=0.0)
            for recall in np.linspace(0, 1, 101)
        ]
        parts.append(sum(at) / 101)
    return float(np.mean(parts))


@pytest.mark.parametrize("seed", range(8))
def test_it_is_what_its_definition_says(seed: int) -> None:
    images = _images(seed)
    for overlap in (0.3, 0.5, 0.75):
        assert _figure(images, [overlap]) == pytest.approx(_by_definition(images, overlap))
    each = [_figure(images, [overlap]) for overlap in COCO]
    assert _figure(images) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("seed", range(4))
def test_what_finds_all_has_one_and_what_finds_nothing_zero(seed: int) -> None:
    images = [(replace(there, scores=np.ones(len(there.classes))), there)
              for _, there in _images(seed)]  # fmt: skip
    assert _figure(images) == pytest.approx(1.0)
    nothing = Boxes(np.zeros((0, 4)), np.zeros(0), np.zeros(0))
    assert _figure([(nothing, there) for _, there in images]) == 0.0
    empty = Boxes(np.zeros((0, 4)), np.zeros(0))
    assert np.isnan(_figure([(nothing, empty)]))


@pytest.mark.parametrize("seed", range(4))
def test_neither_the_order_of_boxes_nor_of_images_matters(seed: int) -> None:
    images, draw = _images(seed), np.random.default_rng(seed)
    shuffled = []
    for place in draw.permutation(len(images)):
        said, there = images[place]
        order = draw.permutation(len(said.classes))
        assert said.scores is not None
        said = Boxes(said.corners[order], said.classes[order], said.scores[order])
        shuffled.append((said, there))
    assert _figure(shuffled) == pytest.approx(_figure(images))


@pytest.mark.parametrize("seed", range(4))
def test_of_boxes_that_overlap_the_surest_is_left(seed: int) -> None:
    draw = np.random.default_rng(seed)
    boxes = Boxes(_boxes(draw, 40), draw.integers(0, 2, 40), draw.uniform(size=40))
    left = without_overlapping(boxes, most=0.3, least=0.2)
    assert left.scores is not None
    assert boxes.scores is not None
    assert (np.diff(left.scores) <= 0).all()
    assert left.scores.min() >= 0.2
    overlap = overlaps_of(left.corners, left.corners) - np.eye(len(left.classes))
    same = left.classes[:, None] == left.classes[None]
    assert (overlap[same] <= 0.3).all()
    for corners, kind, score in zip(boxes.corners, boxes.classes, boxes.scores, strict=True):
        if score >= 0.2 and not (left.corners == corners).all(1).any():
            surer = (left.scores > score) & (left.classes == kind)
            assert (overlaps_of(corners[None], left.corners[surer]) > 0.3).any()


@pytest.mark.parametrize(
    ("corners", "message"),
    [
        ([[4.0, 0, 2, 3]], "isn't left, top, right, bottom"),
        ([[0.0, 0, np.nan, 3]], "isn't left, top, right, bottom"),
        ([[0.0, 0, 2, 3], [0, 5, 9, 17]], "is outside the image of 16 x 16"),
        ([[-1.0, 0, 2, 3]], "is outside the image"),
    ],
)
def test_boxes_that_are_none_are_refused(corners: Any, message: str) -> None:
    there = Boxes(np.array(corners), np.zeros(len(corners)))
    metric = mean_average_precision(lambda _: [], lambda _: [there], size=(16, 16))
    with pytest.raises(InputError, match=message):
        metric.scores(None, [None])


@pytest.mark.parametrize("overlaps", [[], [0.0], [1.1]])
def test_overlaps_are_shares(overlaps: list[float]) -> None:
    with pytest.raises(InputError, match="overlaps must be above 0 and at most 1"):
        mean_average_precision(lambda _: [], lambda _: [], overlaps)
