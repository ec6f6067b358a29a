"""Metrics: what the accuracy budget is about, a mean over samples or a figure of all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from penjing.contract import POINTS, Array
from penjing.errors import InputError, first_line
from penjing.tasks.states import Prepare, States
from penjing.tasks.targets import samples_in

Kept = Array | Sequence[Any]
"""What a metric keeps of samples: an array whose first dimension they are, or a list of them."""


@dataclass(frozen=True)
class Metric:
    """What the accuracy budget is about: the mean of one score per sample, or a figure of them all.

    >>> import penjing
    >>> within_one = penjing.Metric("within one", lambda y, t: (abs(y[:, 0] - t) <= 1) * 1.0)
    >>> within_one.scores(np.array([[3.2], [7.0]]), np.array([3, 5]))
    array([1., 0.])

    A figure of all samples, such as the area under a curve, a mean average precision or a rate of
    words that are wrong, is given in two parts. `scores` keeps of each sample what the figure
    needs, and `over` makes the figure of what was kept:

    >>> wrong_words = penjing.Metric(
    ...     "word error rate",
    ...     scores=lambda y, t: np.stack([(y.argmax(2) != t).sum(1), (t >= 0).sum(1)], axis=1),
    ...     over=lambda kept: kept[:, 0].sum() / kept[:, 1].sum(),
    ...     higher=False,
    ... )
    >>> wrong_words.figure(np.array([[1, 4], [0, 6]]))
    0.1

    Attributes:
        name: the name that is printed, such as `"accuracy"`.
        scores: a function of the outputs and targets of a batch of N samples, with NumPy arrays in
            place of tensors.
            It returns an array of N scores. With `over` it returns what that needs of each sample:
            an array whose first dimension is N, or a list of N things of any kind.
        over: a function of what `scores` returned for all samples, one after the other, that
            returns the figure, or NaN for samples that have none, such as those of one class alone.
            It is called often, with samples that were drawn again, so it should take milliseconds.
            None takes the mean.
        higher: whether a higher figure is better.
        unit: of budgets and losses. Points are hundredths of the figure, as of an accuracy. Any
            other text is the figure's own unit, such as `"mm"`, or nothing for a plain number.
    """

    name: str
    scores: Callable[[Any, Any], Kept]
    over: Callable[[Any], float] | None = None
    higher: bool = True
    unit: str = POINTS

    def __post_init__(self) -> None:
        if not isinstance(self.name, str) or not callable(self.scores):
            raise InputError(
                f"a metric needs a name and a function; found {self.name!r} and {self.scores!r}"
            )
        if not isinstance(self.unit, str):
            raise InputError(f"metric {self.name!r}: unit must be a text; found {self.unit!r}")
        if self.over is not None and not callable(self.over):
            raise InputError(
                f"metric {self.name!r}: over must be a function of all samples; found {self.over!r}"
            )

    @classmethod
    def of(
        cls,
        metric: Any,
        prepare: Prepare | None = None,
        *,
        name: str = "",
        higher: bool | None = None,
        unit: str | None = None,
    ) -> Metric:
        """A metric of torchmetrics as one of penjing's (`pip install 'penjing[torchmetrics]'`).

        It gives the figure that torchmetrics gives of all samples, with a bound by the bootstrap.
        What torchmetrics keeps of each sample is kept, so no outputs are, and a figure of samples
        that are drawn again takes milliseconds.

        >>> from torchmetrics.classification import BinaryAUROC
        >>> area = Metric.of(BinaryAUROC(), prepare=lambda y, t: (y.sigmoid(), t))
        >>> area.name, area.higher, area.unit
        ('BinaryAUROC', True, 'points')
        >>> kept = area.scores(np.array([0.3, -1.2, 2.5, -0.1]), np.array([0, 0, 1, 1]))
        >>> area.figure(kept)
        0.75

        Args:
            metric: a metric whose `compute` gives one number. It stays as it is.
            prepare: a function of the outputs and targets of a batch, as tensors, that returns the
                arguments of the metric's `update`. None gives it both as they are. Probabilities
                are better than logits: for some metrics, outputs are logits if any of a batch is
                outside of 0 to 1, so that it depends on the batch what a figure is.
            name: what is printed; the name of its class by default.
            higher: whether more is better, where the metric doesn't know.
            unit: see `penjing.Metric`. By default, points if the figure is from 0 to 1, as the
                metric tells it, else a plain number.

        Raises:
            InputError: it is no such metric, or doesn't know whether more is better. While it is
                used: what it keeps of single samples differs from what it keeps of their batch.
        """
        states = States.of(metric, prepare)
        name = name or type(metric).__name__
        higher = metric.higher_is_better if higher is None else higher
        if higher is None:
            raise InputError(
                f"{name} doesn't tell whether more of it is better; give higher=True or False"
            )
        unit = (POINTS if states.is_share else "") if unit is None else unit
        return cls(name, states.scores, states.over, higher, unit)

    @property
    def scale(self) -> float:
        """How many units a difference of 1 in the figure is."""
        return 100.0 if self.unit == POINTS else 1.0

    @property
    def is_mean(self) -> bool:
        """Whether it is a mean of scores, and higher is better."""
        return self.over is None and self.higher

    def figure(self, kept: Kept) -> float:
        """The figure of so many samples.

        Raises:
            InputError: `over` raises, or returns anything but one number. The number may be NaN.
        """
        if self.over is None:
            return float(np.mean(kept))
        try:
            given = self.over(kept)
        except (Exception, SystemExit) as error:
            what = f"{type(error).__name__}: {first_line(error)}"
            raise InputError(
                f"metric {self.name!r}: over raised {what}; it is called with what scores returned "
                f"for {len(kept)} samples"
            ) from error
        try:
            figure = np.asarray(given, dtype=np.float64)
        except (TypeError, ValueError):
            figure = np.zeros(0)
        if figure.size != 1:
            what = f"an array of shape {figure.shape}" if figure.size else repr(given)
            raise InputError(
                f"metric {self.name!r}: over returned {what}; it must return one number"
            )
        return float(figure.reshape(()))


def scored(metric: Metric, outputs: Any, targets: Any) -> Kept:
    """What the metric says of each sample of a batch, of outputs and targets as arrays.

    Raises:
        InputError: the metric raises, or returns something else than `Metric` says.
    """
    try:
        given = metric.scores(outputs, targets)
        scores = None if metric.over else np.asarray(given, dtype=np.float64)
    except (Exception, SystemExit) as error:
        raise InputError(
            f"metric {metric.name!r} raised {type(error).__name__}: {str(error)[:200]}; it is "
            f"called with the outputs and targets of a batch, as NumPy arrays{_named(outputs)}"
        ) from error
    samples = samples_in(targets)
    if scores is None:
        wanted = (
            f"with over, it must return something for each sample, an array or a list of {samples}"
        )
        wrong = _why_not_kept(given, samples)
    else:
        wanted = f"it must return one finite score per sample, an array of shape ({samples},)"
        wrong = "None" if given is None else _why_no_scores(scores, samples)
    if wrong:
        raise InputError(f"metric {metric.name!r} returned {wrong}; {wanted}")
    return given if scores is None else scores


def _named(outputs: Any) -> str:
    names = ", ".join(map(str, outputs)) if isinstance(outputs, dict) else ""
    return f", the outputs in a dict with the keys {names}" if names else ""


def _why_no_scores(scores: Array, samples: int) -> str:
    """What these are if they aren't a finite score for each sample; empty if they are."""
    if scores.shape != (samples,):
        return f"shape {scores.shape} for {samples} samples"
    return "" if np.isfinite(scores).all() else "NaN or infinite scores"


def _why_not_kept(given: Any, samples: int) -> str:
    """What this is if it isn't something for each sample; empty if it is."""
    if given is None:
        return "None"
    if not isinstance(given, np.ndarray | list | tuple):
        return f"a {type(given).__name__}"
    if isinstance(given, np.ndarray) and given.ndim == 0:
        return f"one number for {samples} samples"
    if len(given) != samples:
        return f"{len(given)} for {samples} samples"
    floats = isinstance(given, np.ndarray) and given.dtype.kind == "f"
    return "NaN or infinite values" if floats and not np.isfinite(given).all() else ""


def joined(parts: Sequence[Kept]) -> Kept:
    """What a metric said of several batches, one after the other.

    Raises:
        InputError: arrays of batches whose samples have different shapes.
    """
    if not all(isinstance(part, np.ndarray) for part in parts):
        return [sample for part in parts for sample in part]
    try:
        return np.concatenate(parts)
    except ValueError as error:
        shapes = sorted({part.shape[1:] for part in parts if isinstance(part, np.ndarray)})
        raise InputError(
            f"a metric returned samples of different shapes for different batches, {shapes}; "
            "return a list of arrays instead"
        ) from error


def first_of(outputs: Any) -> Any:
    """The first entry of a tuple or a dict of outputs; other outputs as they are."""
    if isinstance(outputs, dict):
        return next(iter(outputs.values()))
    return outputs[0] if isinstance(outputs, tuple) else outputs


def correct(outputs: Any, targets: Array) -> Array:
    """Score each sample with 1.0 if the target's class has the largest output, else 0.0.

    The outputs have shape (N, classes). Of a tuple or dict, the first entry counts. The result has
    shape (N,).

    >>> correct(np.array([[0.1, 0.9], [0.8, 0.2]]), np.array([1, 1]))
    array([1., 0.])
    """
    outputs = first_of(outputs)
    finite = np.isfinite(outputs).all(axis=1)
    scores: Array = ((outputs.argmax(axis=1) == targets) & finite).astype(np.float64)
    return scores


ACCURACY = Metric("accuracy", correct)
