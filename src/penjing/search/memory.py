"""Memory: whether the original knows the data that was to judge candidates.

The original was trained on its training data. So it answers better there than on data that it has
never seen, and a candidate that was trained anew, without the samples that judge it, seems to lose
what it only forgot. Then a part of the test data is the better judge.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from penjing.contract import Array
from penjing.measure.bounds import least_samples
from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.scores import Means, judge
from penjing.tasks.batches import Reading, number_of_samples
from penjing.tasks.reading.loaders import drawn_from
from penjing.tasks.splits import with_test_as_validation
from penjing.tasks.task import Batches, Task
from penjing.trials.judgement.wording import figure_digits

SAMPLES = 2000
"""How many samples of each split tell whether it knows one better."""
LEAST_GAP = 0.01
"""A smaller difference between the two scores doesn't matter."""
SURE = 3.0
"""The difference is so many standard errors or more."""
LARGE = 5
"""Half of the test data has to be so many times what a certificate takes at least."""


def judged_on_unseen(
    task: Task, given: Task, note: str, max_drop: float, say: Callable[[str], object]
) -> tuple[Task, str]:
    """The task, judged on half of the test data if the original knows its training data.

    That is looked at only where samples can be drawn at random (`tasks.loaders.drawn_from`), and
    the metric is a mean of scores from 0 to 1, as accuracy is.

    Args:
        task: with validation data that was set aside from the training data.
        given: the same without.
        note: what the user is told about the validation data.
        max_drop: the budget in the metric's unit.
        say: called often with a line for people.

    Returns:
        The task and the note, as they were, or with the new judge.
    """
    if not task.metric.is_mean:
        return task, note
    least = least_samples(max_drop / task.metric.scale, 1.0, 0.95)
    if least is None or number_of_samples(task.test) < 2 * LARGE * least:
        return task, note
    seen, new = drawn_from(given.train, SAMPLES), drawn_from(given.test, SAMPLES)
    if seen is None or new is None:
        return task, note
    known = _scores(task, seen, "training", say)
    unseen = _scores(task, new, "test", say)
    if min(known.min(), unseen.min()) < 0 or max(known.max(), unseen.max()) > 1:
        return task, note
    gap = float(known.mean() - unseen.mean())
    error = math.sqrt(known.var() / len(known) + unseen.var() / len(unseen))
    if gap < max(LEAST_GAP, SURE * error):
        return task, note
    judged, words = with_test_as_validation(given)
    before, after = (figure_digits(split.mean(), task.metric.unit) for split in (known, unseen))
    return judged, (
        f"no validation data was given, and the original knows the training data "
        f"({task.metric.name} {before} there, {after} on test "
        f"data), so {words} choose among candidates, and the others certify the answer"
    )


def _scores(task: Task, batches: Batches, name: str, say: Callable[[str], object]) -> Array:
    """The model's score on each sample."""

    def progress(done: int) -> None:
        say(f"scoring the original on samples of the {name} data: {done:,}")

    scores = judge(InPyTorch(task.model), Reading(batches, name), task.metric, progress)
    assert isinstance(scores, Means)
    return scores.values
