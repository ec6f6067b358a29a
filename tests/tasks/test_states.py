"""Metrics of torchmetrics: the figures are theirs, of all samples and of those drawn again."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as sklearn
from torch import nn

from penjing.contract import POINTS, Array
from penjing.errors import InputError
from penjing.measure.scores import Pooled
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Kept, Metric, joined, scored
from penjing.tasks.task import Task

pytest.importorskip("torchmetrics")
from torchmetrics import MetricCollection
from torchmetrics.aggregation import MeanMetric
from torchmetrics.classification import (
    BinaryAUROC,
    BinaryF1Score,
    MulticlassF1Score,
    MulticlassJaccardIndex,
)
from torchmetrics.regression import PearsonCorrCoef, R2Score
from torchmetrics.text import WordErrorRate

SAMPLES = 300
DRAW = np.random.default_rng(0)
LABELS = DRAW.integers(0, 2, SAMPLES)
PROBABILITIES = (0.3 * LABELS + 0.7 * DRAW.random(SAMPLES)).astype(np.float32)
CLASSES = DRAW.integers(0, 3, (SAMPLES, 4, 4))
MAPS = (DRAW.normal(size=(SAMPLES, 3, 4, 4)) + np.eye(3)[CLASSES].transpose(0, 3, 1, 2)).astype(
    np.float32
)
VALUES = (LABELS + DRAW.normal(size=SAMPLES)).astype(np.float32)


def _auc(outputs: Array, targets: Array) -> float:
    return float(sklearn.roc_auc_score(targets, outputs))


def _f1(outputs: Array, targets: Array) -> float:
    return float(sklearn.f1_score(targets, outputs > 0.5))


def _iou(outputs: Array, targets: Array) -> float:
    said = outputs.argmax(1).ravel()
    return float(sklearn.jaccard_score(targets.ravel(), said, average="macro"))


def _r2(outputs: Array, targets: Array) -> float:
    return float(sklearn.r2_score(targets, outputs))


CASES = [
    (BinaryAUROC(), PROBABILITIES, LABELS, _auc),
    (BinaryF1Score(), PROBABILITIES, LABELS, _f1),
    (MulticlassJaccardIndex(3), MAPS, CLASSES, _iou),
    (R2Score(), PROBABILITIES, VALUES, _r2),
]


def _kept(metric: Metric, outputs: Array, targets: Array) -> Kept:
    """Of three batches, the last of which is small."""
    parts = [slice(0, 140), slice(140, 290), slice(290, SAMPLES)]
    return joined([scored(metric, outputs[part], targets[part]) for part in parts])


@pytest.mark.parametrize(("given", "outputs", "targets", "known"), CASES, ids=lambda _: "")
def test_the_figure_is_that_of_scikit_learn_and_so_are_those_of_draws(
    given: Any, outputs: Array, targets: Array, known: Any
) -> None:
    metric = Metric.of(given)
    kept = _kept(metric, outputs, targets)
    assert isinstance(kept, np.ndarray)
    assert metric.figure(kept) == pytest.approx(known(outputs, targets), abs=1e-6)
    for seed in range(3):
        places = np.random.default_rng(seed).integers(0, SAMPLES, SAMPLES)
        figure = known(outputs[places], targets[places])
        assert metric.figure(kept[places]) == pytest.approx(figure, abs=1e-6)
    assert given.update_count == 0  # the user's own stays as it is


def test_its_bound_is_that_of_the_same_metric_written_by_hand() -> None:
    ready = Metric.of(BinaryAUROC())
    by_hand = Metric(
        "mine", lambda y, t: np.stack([y, t], axis=1), lambda kept: _auc(kept[:, 0], kept[:, 1])
    )
    worse = PROBABILITIES[::-1].copy() * 0.2 + PROBABILITIES * 0.8
    drops = [
        Pooled(metric, _kept(metric, PROBABILITIES, LABELS)).lost(
            Pooled(metric, _kept(metric, worse, LABELS))
        )
        for metric in (ready, by_hand)
    ]
    assert drops[0].unit == POINTS
    assert drops[0].drop == pytest.approx(drops[1].drop, abs=1e-4)
    assert drops[0].bound == pytest.approx(drops[1].bound, abs=1e-3)


def test_texts_and_less_is_better() -> None:
    metric = Metric.of(WordErrorRate(), prepare=lambda y, t: (["a b"] * len(y), t), name="WER")
    kept = scored(metric, np.zeros((4, 2)), ["a b", "a c", "a b", "b"])
    assert (metric.name, metric.higher, metric.unit) == ("WER", False, POINTS)
    assert metric.figure(kept) == pytest.approx(2 / 7)


def test_what_is_no_share_has_no_points() -> None:
    assert Metric.of(R2Score()).unit == ""
    assert Metric.of(R2Score(), unit="mm").unit == "mm"


def test_logits_that_count_as_probabilities_in_another_batch_are_refused() -> None:
    """torchmetrics takes 0.3 for a logit beside -5.0, and alone for a probability."""
    logits = np.array([0.3, -5.0, 4.0, 0.8], np.float32)
    with pytest.raises(InputError, match=r"samples alone differ.*prepare=lambda y, t: \(y.sigm"):
        scored(Metric.of(BinaryF1Score()), logits, np.array([1, 0, 1, 0]))
    prepared = Metric.of(BinaryF1Score(), prepare=lambda y, t: (y.sigmoid(), t))
    assert len(scored(prepared, logits, np.array([1, 0, 1, 0]))) == 4


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (BinaryAUROC, "the class BinaryAUROC; wanted a metric of torchmetrics"),
        (3, "was given 'int'; wanted a metric of torchmetrics"),
        (MetricCollection([BinaryAUROC()]), "'MetricCollection'; wanted"),
        (BinaryAUROC() + BinaryF1Score(), "no states of its own; give the metric that is in it"),
        (PearsonCorrCoef(), "can't be made of single samples.*over="),
        (MeanMetric(), "whether more of it is better; give higher=True or False"),
    ],
)
def test_what_is_no_metric_is_refused(given: Any, text: str) -> None:
    with pytest.raises(InputError, match=text):
        Metric.of(given)


def test_a_figure_is_one_number_of_finite_outputs() -> None:
    vector = Metric.of(MulticlassF1Score(3, average=None))
    with pytest.raises(InputError, match=r"shape \(3,\); it must return one number"):
        vector.figure(scored(vector, MAPS[:4], CLASSES[:4]))
    with pytest.raises(InputError, match="outputs are NaN or infinite"):
        scored(Metric.of(BinaryAUROC()), np.array([np.nan, 0.2]), np.array([0, 1]))


def test_a_task_with_a_bare_metric_says_how_it_is_wrapped() -> None:
    data = Arrays(torch.zeros(4, 2), torch.zeros(4))
    with pytest.raises(InputError, match=r"or penjing\.Metric\.of\(metric\) for one of torchm"):
        Task(nn.Linear(2, 2), data.x[:2], data, data, metric=BinaryAUROC())  # type: ignore[arg-type]
