"""Rules: the table of all rules that a file of budgets may set, and how each is judged."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from penjing.contract import Json, Latency, some_of
from penjing.errors import MachineError
from penjing.layout import counted, folded
from penjing.measure.scores import Scores
from penjing.tools.check.requirements import (
    require_certifiable,
    require_decisions,
    require_known_memory,
    require_measurable_time,
    require_placement,
    require_right_way,
)
from penjing.tools.check.subject import Subject
from penjing.tools.check.times import timed
from penjing.tools.check.values import (
    AMOUNT,
    NUMBER,
    POSITIVE,
    SHARE,
    TRUE,
    UNITS_LIST,
    Value,
)
from penjing.tools.fallbacks import fallbacks
from penjing.tools.inputs import random_inputs
from penjing.trials.judgement.wording import UNRELIABLE, confident, lost_at_most, time_taken

TASK, REFERENCE = "task", "reference"
"""What a rule may need beside the file; keys of a file of budgets."""


@dataclass(frozen=True)
class Judgement:
    """What became of a rule.

    Attributes:
        kept: whether the file keeps the limit.
        measured: the figure that decided.
        text: the same in words.
    """

    kept: bool
    measured: Json
    text: str


@dataclass(frozen=True)
class Rule:
    """A rule of the table.

    Attributes:
        value: what its limit may be.
        judge: holds a file against a limit.
        needs: what must be named beside the file, `TASK` and `REFERENCE`.
        require: raises InputError or MachineError if the rule can't be judged for a file here.
            It is called before any rule is judged.
    """

    value: Value
    judge: Callable[[Subject, Any], Judgement]
    needs: tuple[str, ...] = ()
    require: Callable[[Subject], None] = lambda _: None


def _bytes(subject: Subject, limit: float) -> Judgement:
    size = subject.file.artifact.file_bytes
    return Judgement(size <= 1000 * limit, size, f"has {size:,} bytes")


def _placement(subject: Subject, units: list[str]) -> Judgement:
    placed = [place for place in subject.file.placement if place.unit in units]
    of = len(subject.file.placement)
    text = f"has {len(placed)} of {counted(of, 'operator')} there"
    if placed:
        kinds = folded(sorted({place.operator for place in placed}))
        text += f": {'; '.join(fallbacks(placed)) or kinds}"
    return Judgement(not placed, len(placed), text)


def _saturation(subject: Subject, _: bool) -> Judgement:
    layers = subject.file.runtime.saturating(subject.file.artifact)
    if not layers:
        return Judgement(True, [], "no sum of integers can overflow on any x86 processor")
    text = f"sums in {some_of(layers)} can overflow 16 bits on x86 processors without VNNI"
    return Judgement(False, [layer.layer for layer in layers], text)


def _memory(subject: Subject, limit: float) -> Judgement:
    file = subject.file
    inputs = random_inputs(file.session.inputs)
    peak = subject.conditions.instruments.peak(file.artifact.path, inputs, file.runtime.name)
    if peak is None:
        raise MachineError(
            f"{subject.place}: max_memory_mb can't be judged here, because this system doesn't "
            "tell the memory of a process; leave the rule out"
        )
    text = f"a process that runs it takes {peak / 1e6:.1f} MB"
    return Judgement(peak <= 1e6 * limit, peak, text)


def _time(subject: Subject, limit: float) -> Judgement:
    file, reference, conditions = subject.file, subject.compared, subject.conditions
    sessions = {REFERENCE: reference.session, "file": file.session}
    inputs = random_inputs(file.session.inputs)

    def measure(seed: int) -> Latency:
        timer = conditions.instruments.timer
        return timer(sessions, inputs, REFERENCE, conditions.seconds, seed)["file"]

    times = timed(measure, limit)
    shown = times.shown
    text = time_taken(shown.ratio, shown.ratio_low, shown.ratio_high, reference.name)
    if len(times.measured) > 1:
        text += f"; measured {len(times.measured)} times"
    if shown.disturbed:
        text += f"; the {UNRELIABLE}"
    figures = {
        "ratio": shown.ratio, "ratio_low": shown.ratio_low, "ratio_high": shown.ratio_high,
        "measurements": len(times.measured), "disturbed": shown.disturbed,
    }  # fmt: skip
    return Judgement(not times.broken, figures, text)


def _score(subject: Subject, limit: float) -> Judgement:
    scores, metric = subject.file.scores, subject.file.task.metric
    figure = scores.figure
    kept = figure >= limit if metric.higher else figure <= limit
    text = f"{metric.name} is {figure:.6g} on {counted(len(scores), 'test sample')}"
    return Judgement(kept, figure, text)


def _drop(subject: Subject, limit: float) -> Judgement:
    return _lost(subject, subject.file.by_task.scores, "the original model", limit)


def _drop_to_reference(subject: Subject, limit: float) -> Judgement:
    return _lost(subject, subject.compared.scores, subject.compared.name, limit)


def _lost(subject: Subject, of: Scores, whose: str, limit: float) -> Judgement:
    drop = of.lost(subject.file.scores, subject.conditions.confidence)
    metric = subject.file.task.metric.name
    on = counted(drop.samples, "test sample")
    text = f"in {metric} it {lost_at_most(drop)}, compared with {whose} on {on}"
    return Judgement(drop.bound <= limit, {"drop": drop.drop, "bound": drop.bound}, text)


def _decisions(subject: Subject, limit: float) -> Judgement:
    agreement = subject.file.agreement
    same, bound = agreement.same_decisions, agreement.same_decisions_bound
    assert same is not None, "require_decisions has seen to it"
    assert bound is not None
    decided = round(same * agreement.samples)
    text = (
        f"{decided} of {agreement.samples} decisions are the original model's, a share of "
        f"{same:.6g}; with {confident(0.95)} at least {math.floor(1e4 * bound) / 1e4:.4f}"
    )
    return Judgement(same >= limit, same, text)


RULES = {
    "max_kb": Rule(POSITIVE, _bytes),
    "no_operators_on": Rule(UNITS_LIST, _placement, (), require_placement),
    "no_saturation": Rule(TRUE, _saturation),
    "max_memory_mb": Rule(POSITIVE, _memory, (), require_known_memory),
    "max_time_ratio": Rule(POSITIVE, _time, (REFERENCE,), require_measurable_time),
    "min_score": Rule(NUMBER, _score, (TASK,), require_right_way),
    "max_score": Rule(NUMBER, _score, (TASK,), require_right_way),
    "min_same_decisions": Rule(SHARE, _decisions, (TASK,), require_decisions),
    "max_drop": Rule(AMOUNT, _drop, (TASK,), require_certifiable),
    "max_drop_to_reference": Rule(
        AMOUNT, _drop_to_reference, (TASK, REFERENCE), require_certifiable
    ),
}
"""By key. They are judged in this order, the quick ones first."""
