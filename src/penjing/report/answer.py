"""The answer of a fit in sentences: what was chosen, why, and what the test data says of it."""

from __future__ import annotations

from penjing.contract import Drop
from penjing.targets import in_words
from penjing.trials.judgement.comparison import surely_faster
from penjing.trials.judgement.goal import weights_of
from penjing.trials.judgement.promise import VALIDATION
from penjing.trials.judgement.wording import (
    UNRELIABLE,
    amount,
    confident,
    figure,
    measured,
    ratio,
    size_beside,
)
from penjing.trials.result import Result


def answer(result: Result) -> str:
    """What was chosen and why, with its gain over the original."""
    title, is_original = result.named(result.answer), result.answer.key == result.baseline.key
    name = f"The {title}" if is_original else title
    reason = f": {result.reason}" if result.reason else ""
    if not result.finished:
        said = f"The fit was interrupted. So far {name[0].lower()}{name[1:]} is the best{reason}."
    else:
        said = f"{name} is the answer{reason}."
    return said if is_original else f"{said} {gains(result)}"


def gains(result: Result) -> str:
    """One sentence: the answer's time and size beside the original's."""
    parts = [_time(result), _size(result)]
    if "memory" in weights_of(result.goal):
        parts.insert(0, _memory(result))
    if result.goal == "size":
        parts.reverse()
    said = ", and ".join(filter(None, parts))
    return f"{said[:1].upper()}{said[1:]}." if said else ""


def _time(result: Result) -> str:
    mine, original = result.answer.latency, result.baseline.latency
    if mine is None or original is None:
        return ""
    if mine.disturbed and surely_faster(mine):
        return (
            f"it takes less than {ratio(mine.ratio_high)} of the original's time; other programs "
            "were running, so how much less isn't known"
        )
    if mine.disturbed:
        return f"its {UNRELIABLE}"
    unit = result.estimated_in or "ms"
    values = milliseconds(mine.latency_ms), milliseconds(original.latency_ms)
    figures = f"({values[0]} instead of {values[1]} {unit})"
    if result.estimated_in:
        return f"it is estimated to take {ratio(mine.ratio)} of the original's time {figures}"
    if mine.verdict == "no difference":
        return f"it is neither clearly faster nor clearly slower than the original {figures}"
    if mine.ratio < 1:
        return f"it takes {ratio(mine.ratio)} of the original's time {figures}"
    return f"it takes {ratio(mine.ratio)} times as long as the original {figures}"


def _size(result: Result) -> str:
    mine, original = result.answer.measurement.file_bytes, result.baseline.measurement.file_bytes
    if not mine or not original:
        return ""
    figures = f"({in_words(mine)} instead of {in_words(original)})"
    return f"its file {size_beside(mine / original)} {figures}"


def _memory(result: Result) -> str:
    mine = result.answer.measurement.peak_activation_bytes
    original = result.baseline.measurement.peak_activation_bytes
    if not mine or not original:
        return ""
    return f"by its graph it needs {in_words(mine)} for values instead of {in_words(original)}"


def time_axis(result: Result) -> str:
    """What the axis of a figure is called on which files lie by their time."""
    if result.estimated_in:
        return f"estimated cost of one sample, {result.estimated_in}"
    return "time of one sample on one thread, ms"


def milliseconds(value: float) -> str:
    """Three digits that count, and no more than three decimals.

    >>> milliseconds(0.0431), milliseconds(4.346), milliseconds(1234.5)
    ('0.043', '4.35', '1234')
    """
    decimals = 3 if value < 1 else 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:.{decimals}f}"


def certified(result: Result) -> str:
    """What the test data says of the answer, and which data certifies it."""
    metric = result.baseline.measurement.metric
    if result.test_score is None or result.test_baseline is None:
        return "The test data has not been used, so nothing is certified yet."
    original = figure(result.test_baseline, result.unit)
    if result.test_drop is None:
        return f"On the test data the original's {metric} is {original}."
    drop = result.test_drop
    scores = (
        f"On {drop.samples} test samples its {metric} is {figure(result.test_score, drop.unit)}, "
        f"and the original's is {original}."
    )
    if result.certified_by == VALIDATION:
        small = f"The test data is too small to certify it: {_most(drop)} there."
        return f"{_by_validation(result)} {scores} {small}"
    budget = f"the budget is {amount(result.max_drop, result.unit)}"
    most = _most(drop)
    return f"{scores} {most[:1].upper()}{most[1:]}, and {budget}."


def _by_validation(result: Result) -> str:
    drop = result.answer.drop
    assert drop is not None
    return (
        f"The validation data certifies it: on {drop.samples} samples {_most(drop)}, and the "
        f"budget is {amount(result.max_drop, result.unit)}."
    )


def _most(drop: Drop) -> str:
    sure = f"with {confident(drop.confidence)}"
    if drop.bound < 0:
        return f"{sure} it gains at least {measured(-drop.bound, drop.unit)}"
    return f"{sure} it loses at most {measured(drop.bound, drop.unit)}"


def how_measured(result: Result) -> str:
    """Where the figures of the candidates were measured, and on what."""
    metric = result.baseline.measurement.metric
    drops = [trial.drop for trial in (*result.trials, result.baseline) if trial.drop is not None]
    said = f"Measured on {result.machine}, one sample at a time on one thread."
    if result.estimated_in:
        said = f"Time is not measured but estimated, for {result.machine}."
    if not drops:
        return said
    return (
        f"{said} {metric[:1].upper()}{metric[1:]} is on {drops[0].samples} validation samples; "
        f'"at most" is the largest loss, with {confident(drops[0].confidence)}.'
    )
