"""Verdicts: what each method gave on this target, from the figures of the candidates' files.

Each verdict is a sentence or two that can be read aloud.
"""

from __future__ import annotations

from collections.abc import Sequence

from penjing.contract import Json, Latency, Measurement
from penjing.trials.judgement.comparison import Comparison, compared
from penjing.trials.judgement.wording import (
    UNRELIABLE,
    digits,
    listed,
    measured,
    score_beside,
    size_beside,
    time_taken,
)
from penjing.trials.recipe import unconstrained
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

BY_ESTIMATES = 'Nothing was timed: "faster" and "time" are by the estimates.'
ROUNDING = ("Binarize", "MixedPrecision", "Quantize", "Ternarize")
"""The passes that make integers."""
LITTLE = 0.9  # of the fastest float file's time; what takes more has gained little


def verdicts(result: Result) -> tuple[str, ...]:
    """A line for each candidate that was measured, compared with what it was made from.

    A candidate in another runtime or precision than the original's is compared with the same
    recipe in those. Any other one is compared with the candidates whose recipe lacks something of
    its own: what was pruned and quantized is compared with what was only pruned and with what was
    only quantized, so that the lines say which of the two was worth it. Where there is no such
    candidate, it is compared with the original. A method without any measured candidate gets a
    line that says why.
    """
    judged = [trial for trial in result.trials if _is_measured(trial)]
    if not _is_measured(result.baseline):
        return ()
    lines = [
        _line(trial, rival, result)
        for trial in judged
        for rival in _rivals(trial, judged, result.baseline) or [result.baseline]
    ]
    if best := _integers_against_floats(result, judged):
        lines.append(best)
    known = {name for trial in judged for name in trial.methods}
    for trial in result.trials:
        for name in trial.methods:
            if name not in known:
                known.add(name)
                why = f" ({trial.reason})" if trial.reason else ""
                lines.append(
                    f"Nothing can be said about {name}: {trial.title} {trial.status.words}{why}."
                )
    if lines and result.estimated_in:
        lines.insert(0, BY_ESTIMATES)
    return tuple(lines)


def _is_measured(trial: Trial) -> bool:
    m = trial.measurement
    return not (m.drop is None or m.latency is None or m.file_bytes is None)


def _rivals(trial: Trial, others: Sequence[Trial], baseline: Trial) -> list[Trial]:
    """Those whose recipe is a part of the candidate's, and of no longer such part; for another
    runtime or precision than the original's, the same recipe in those, but for what the runtime
    needs. Of several with one recipe, the one that was made in the candidate's own way."""
    every = [baseline, *others]
    usual = [other for other in every if _way(other) == _way(baseline)]
    same = [other for other in usual if _steps(other) == _steps(trial)]
    if _way(trial) != _way(baseline) and same:
        return same[:1]
    parts = [other for other in every if _is_part(_steps(other), _steps(trial))]
    parts = [
        part for part in parts if not any(_is_part(_steps(part), _steps(other)) for other in parts)
    ]
    rivals: list[Trial] = []
    for part in sorted(parts, key=lambda part: (_way(part) != _way(trial), part not in usual)):
        if all(_steps(part) != _steps(known) for known in rivals):
            rivals.append(part)
    return [part for part in parts if part in rivals]


def _steps(trial: Trial) -> list[Json]:
    return unconstrained(trial.candidate.recipe)


def _way(trial: Trial) -> tuple[str, str]:
    return trial.candidate.runtime, trial.candidate.floats


def _is_part(some: Sequence[Json], more: Sequence[Json]) -> bool:
    """Whether the recipe `some` is `more` with one pass or several left out."""
    rest = iter(more)
    return len(some) < len(more) and all(any(step == other for other in rest) for step in some)


def _line(trial: Trial, rival: Trial, result: Result) -> str:
    times = _compared(trial, rival)
    size = _bytes(trial.measurement) / max(_bytes(rival.measurement), 1)
    is_baseline = rival is result.baseline
    said = [size_beside(size), _score(trial, rival, is_baseline)]
    if not times.disturbed:
        said.insert(0, time_taken(times.ratio, times.low, times.high))
    about_time = f" The {UNRELIABLE}." if times.disturbed else ""
    other = f"the {result.named(rival)}" if is_baseline else rival.title
    return (
        f"{trial.title}, compared with {other}: "
        f"{listed(said)}.{about_time} {_conclusion(trial, rival, times, size)}."
    )


def _score(trial: Trial, rival: Trial, is_baseline: bool) -> str:
    """How the scores compare; with the bound, which is against the original."""
    assert trial.drop is not None
    assert rival.drop is not None
    before = 0.0 if is_baseline else rival.drop.drop
    unit, most = trial.drop.unit, trial.drop.bound
    said = score_beside(before - trial.drop.drop, trial.measurement.metric, unit)
    if not is_baseline or most < 0:
        return said
    if said.startswith("loses"):
        return f"{said} (at most {digits(most, unit)})"
    return f"{said} (and loses at most {measured(most, unit)})"


def _conclusion(trial: Trial, rival: Trial, times: Comparison, size: float) -> str:
    if trial.status == rival.status != Status.KEPT:  # what it added isn't to blame
        gain = "is faster" if times.faster else "is smaller" if size < 1 else "gains nothing"
        return f"It {gain}, but {rival.title} {rival.status.words} already"
    if trial.status != Status.KEPT:
        return f"Not worth it: it {trial.status.words}"
    if times.faster:
        return "Worth it: it is faster and keeps the budget"
    if times.disturbed:
        return f"It is {'smaller' if size < 1 else 'not smaller'}; whether it is faster is unknown"
    if size < 1:
        return f"It is smaller but {'slower' if times.slower else 'not clearly faster'}"
    return (
        f"Not worth it: it is {'slower' if times.slower else 'not clearly faster'} and no smaller"
    )


def _integers_against_floats(result: Result, judged: Sequence[Trial]) -> str:
    """How the fastest integer file of any runtime compares with the fastest float file of any:
    the original's runtime may be slow with one of them. Empty if there aren't both, or if the two
    were compared already."""
    fits = (Status.KEPT, Status.BASELINE)
    able = [trial for trial in (result.baseline, *judged) if trial.status in fits]
    able = [trial for trial in able if not _latency(trial).disturbed or trial is result.baseline]
    files: dict[bool, Trial] = {}
    for trial in sorted(able, key=lambda trial: _latency(trial).ratio):
        files.setdefault(any(name in ROUNDING for name in trial.methods), trial)
    if len(files) < 2:
        return ""
    mine, theirs = files[True], files[False]
    if theirs in _rivals(mine, judged, result.baseline):
        return ""
    times = _compared(mine, theirs)
    little = times.ratio > LITTLE or not times.faster
    return (
        f"Integers {'gain little' if little else 'are worth it'} here: {mine.title}, the fastest "
        f"integer file that keeps the budget, {time_taken(times.ratio, times.low, times.high)}, "
        f"compared with {result.named(theirs)}, the fastest float file."
    )


def _compared(trial: Trial, rival: Trial) -> Comparison:
    return compared(_latency(trial), _latency(rival))


def _latency(trial: Trial) -> Latency:
    assert trial.measurement.latency is not None
    return trial.measurement.latency


def _bytes(figures: Measurement) -> int:
    assert figures.file_bytes is not None
    return figures.file_bytes
