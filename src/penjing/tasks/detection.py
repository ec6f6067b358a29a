"""Detection: mean average precision, and the boxes that are left of many that overlap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.contract import Array
from penjing.errors import InputError
from penjing.tasks.metrics import Metric

RECALLS = np.linspace(0, 1, 101)
COCO = tuple(0.5 + 0.05 * step for step in range(10))
"""The overlaps from which boxes count as found, 0.5 to 0.95, over which COCO takes the mean."""
MOST = 100
"""So many boxes of an image count, those with the highest scores."""


@dataclass(frozen=True)
class Boxes:
    """What is in an image, or what a network says is in it.

    >>> boxes = Boxes(np.array([[0.0, 0.0, 4.0, 2.0]]), np.array([3]), np.array([0.9]))
    >>> boxes.corners.shape
    (1, 4)

    Attributes:
        corners: of shape (N, 4): left, top, right, bottom, of any unit.
        classes: of shape (N,), integers.
        scores: of shape (N,), the higher the surer; None for what is in it.
    """

    corners: Array
    classes: Array
    scores: Array | None = None


def mean_average_precision(
    boxes: Callable[[Any], Sequence[Boxes]],
    truth: Callable[[Any], Sequence[Boxes]],
    overlaps: Sequence[float] = COCO,
    size: tuple[float, float] | None = None,
    name: str = "mAP@50-95",
) -> Metric:
    """The mean average precision of a detector, as COCO defines it, with a plain number as budget.

    A box counts as found if its class is right and it overlaps a box of that class which no surer
    one has taken by `overlaps` or more, as a share of what both cover. The precision is averaged
    over 101 recalls, then over classes and overlaps. Of each image 100 boxes count. Boxes are
    compared once for each image, so that a bootstrap over images takes seconds.

    Args:
        boxes: a function of the outputs of a batch, with NumPy arrays in place of tensors. It
            returns the boxes of each image, without those that others suppress.
        truth: a function of the targets of the batch that returns the boxes of each image.
        overlaps: the least overlaps.
        size: width and height of images, in the unit of the corners; None for no check.
        name: what is printed.

    Raises:
        InputError: an overlap isn't above 0 and at most 1. When it is used: boxes of the targets
            are no boxes, or outside the image.

    Source: T.-Y. Lin et al., "Microsoft COCO: Common Objects in Context", 2014.

    >>> there = Boxes(np.array([[0.0, 0, 4, 4], [4, 4, 8, 8]]), np.array([1, 1]))
    >>> said = Boxes(np.array([[0.0, 0, 4, 4]]), np.array([1]), np.array([0.9]))
    >>> metric = mean_average_precision(lambda y: [said], lambda t: [there])
    >>> round(metric.figure(metric.scores(None, [None])), 3)  # half of them, at every overlap
    0.505
    """
    levels = np.asarray(overlaps, np.float64)
    if not levels.size or levels.min() <= 0 or levels.max() > 1:
        raise InputError(f"overlaps must be above 0 and at most 1; found {list(overlaps)}")

    def scores(outputs: Any, targets: Any) -> list[_Image]:
        there = truth(targets)
        for number, each in enumerate(there):
            _require_boxes(each, size, number)
        return [_compared(*both, levels) for both in zip(boxes(outputs), there, strict=True)]

    return Metric(name, scores, over=_average_precision, unit="")


@dataclass(frozen=True)
class _Image:
    """What was found in an image: shape (N,) of its boxes, (N, overlaps) of hits."""

    scores: Array
    classes: Array
    hits: Array
    there: Array
    """The classes of the boxes that are in it."""


def _require_boxes(there: Boxes, size: tuple[float, float] | None, number: int) -> None:
    corners = np.asarray(there.corners, np.float64).reshape(-1, 4)
    for box in corners:
        if not np.isfinite(box).all() or box[0] > box[2] or box[1] > box[3]:
            raise InputError(
                f"box {box.tolist()} of image {number} of a batch isn't left, top, right, bottom; "
                "convert the boxes"
            )
        if size is not None and (box.min() < 0 or box[2] > size[0] or box[3] > size[1]):
            raise InputError(
                f"box {box.tolist()} of image {number} of a batch is outside the image of "
                f"{size[0]:g} x {size[1]:g}; scale the boxes with the images, or clip them"
            )


def _compared(said: Boxes, there: Boxes, levels: Array) -> _Image:
    assert said.scores is not None
    order = np.argsort(-np.asarray(said.scores), kind="stable")[:MOST]
    scores, classes = np.asarray(said.scores)[order], np.asarray(said.classes)[order]
    overlap = overlaps_of(
        np.asarray(said.corners).reshape(-1, 4)[order], np.asarray(there.corners).reshape(-1, 4)
    )
    overlap = np.where(classes[:, None] == np.asarray(there.classes)[None], overlap, 0.0)
    hits = np.zeros((len(order), len(levels)), bool)
    for place, level in enumerate(levels):
        free = overlap.copy()
        for row in range(len(order)):
            best = int(free[row].argmax()) if free.shape[1] else 0
            if free.shape[1] and free[row, best] >= level:
                hits[row, place] = True
                free[:, best] = 0.0
    return _Image(scores, classes, hits, np.asarray(there.classes))


def overlaps_of(some: Array, others: Array) -> Array:
    """What each two boxes share, as a share of what both cover; shape (N, M).

    >>> overlaps_of(np.array([[0.0, 0, 2, 2]]), np.array([[1.0, 0, 3, 2], [5, 5, 6, 6]])).round(3)
    array([[0.333, 0.   ]])
    """
    low = np.maximum(some[:, None, :2], others[None, :, :2])
    high = np.minimum(some[:, None, 2:], others[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(2)
    areas = [np.clip(each[:, 2:] - each[:, :2], 0, None).prod(1) for each in (some, others)]
    together = areas[0][:, None] + areas[1][None] - shared
    overlap: Array = shared / np.maximum(together, 1e-12)
    return overlap


def _average_precision(images: Sequence[_Image]) -> float:
    """Of all images; NaN if there is nothing in any of them."""
    scores = np.concatenate([image.scores for image in images])
    classes = np.concatenate([image.classes for image in images])
    hits = np.concatenate([image.hits for image in images])
    there = np.concatenate([image.there for image in images])
    if not len(there):
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    classes, hits = classes[order], hits[order]
    known, numbers = np.unique(there, return_counts=True)
    parts = [_of_class(hits[classes == kind], n) for kind, n in zip(known, numbers, strict=True)]
    return float(np.mean(parts))


def _of_class(hits: Array, number: int) -> Array:
    """The average precision at each overlap, of boxes with the surest first."""
    if not len(hits):
        return np.zeros(hits.shape[1])
    right = hits.cumsum(0)
    precision = right / np.arange(1, len(hits) + 1)[:, None]
    precision = np.maximum.accumulate(precision[::-1])[::-1]  # as if a lower recall were no worse
    means = []
    for level in range(hits.shape[1]):
        places = np.searchsorted(right[:, level] / number, RECALLS - 1e-12)
        reached = places < len(hits)
        means.append(precision[places[reached], level].sum() / len(RECALLS))
    return np.array(means)


def surest(outputs: Array, most: float = 0.5, least: float = 0.05) -> list[Boxes]:
    """The boxes of each image, of outputs that hold a box and a score of each class at each place.

    Each place's box has the class of its highest score. `without_overlapping` says which are left.
    For a network that has them in another order, or tells middles and sizes, arrange them first.

    >>> y = np.array([[[0.0, 0, 4, 4, 0.1, 0.9], [0, 0, 4, 5, 0.2, 0.8], [6, 6, 8, 8, 0.7, 0.1]]])
    >>> (boxes,) = surest(y)
    >>> boxes.classes, boxes.scores
    (array([1, 0]), array([0.9, 0.7]))

    Args:
        outputs: of shape (N, places, 4 + classes): left, top, right, bottom, and the scores.
        most: how far boxes of a class may overlap.
        least: scores below this are no boxes.
    """
    corners, scores = outputs[:, :, :4], outputs[:, :, 4:]
    said = map(Boxes, corners, scores.argmax(2), scores.max(2))
    return [without_overlapping(boxes, most, least) for boxes in said]


def unpadded(targets: Array) -> list[Boxes]:
    """The boxes that are in each image, of targets that are padded to the same number.

    >>> [boxes] = unpadded(np.array([[[0.0, 0, 4, 4, 7], [-1, -1, -1, -1, -1]]]))
    >>> boxes.corners, boxes.classes
    (array([[0., 0., 4., 4.]]), array([7.]))

    Args:
        targets: of shape (N, boxes, 5): left, top, right, bottom and class. A negative class is no
            box.
    """
    there = (boxes[boxes[:, 4] >= 0] for boxes in targets)
    return [Boxes(boxes[:, :4], boxes[:, 4]) for boxes in there]


def without_overlapping(boxes: Boxes, most: float = 0.5, least: float = 0.0) -> Boxes:
    """The boxes of an image without those that overlap a surer one of their class by more than
    `most` (non-maximum suppression), or whose scores are below `least`.

    >>> corners = np.array([[0.0, 0, 4, 4], [0, 0, 4, 5], [6, 6, 8, 8]])
    >>> without_overlapping(Boxes(corners, np.zeros(3), np.array([0.5, 0.9, 0.3]))).scores
    array([0.9, 0.3])
    """
    assert boxes.scores is not None
    sure = np.flatnonzero(boxes.scores >= least)
    boxes = Boxes(boxes.corners[sure], boxes.classes[sure], boxes.scores[sure])
    assert boxes.scores is not None
    left = list(np.argsort(-boxes.scores, kind="stable"))
    kept: list[int] = []
    overlap = overlaps_of(boxes.corners, boxes.corners)
    overlap = np.where(boxes.classes[:, None] == boxes.classes[None], overlap, 0.0)
    while left:
        first = left.pop(0)
        kept.append(first)
        left = [other for other in left if overlap[first, other] <= most]
    return Boxes(boxes.corners[kept], boxes.classes[kept], boxes.scores[kept])
