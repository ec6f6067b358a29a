"""Verdicts: what each method gave on this target, from the figures of the candidates' files."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.contract import Json, Latency, Measurement
from penjing.trials.judgement.comparison import Comparison, compared
from penjing.trials.recipe import unconstrained
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial

PAYS = "pays: faster, and keeps the budget"
SMALLER = "smaller but not faster"
NOTHING = "not worth it: neither faster nor smaller"
UNKNOWN = "whether it is faster, other load kept from being told"
ROUNDING = ("Binarize", "MixedPrecision", "Quantize", "Ternarize")
"""The passes that make integers."""
LITTLE = 0.9  # of the fastest float file's time; what takes more has gained little


def verdicts(result: Result) -> tuple[str, ...]:
    """A line for each candidate that was measured, against what it was made from.

    That is the original, the same recipe in the original's runtime and precision where the
    candidate's are others, or the candidates whose recipe lacks something of its own: what was
    pruned and quantized is held against what was only pruned and against what was only quantized,
    so that the lines say which of them paid. A method without any measured candidate gets a line
    that says why.
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
                lines.append(f"{name}: no verdict; {trial.title}: {trial.reason or trial.status}")
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
    mine, theirs = trial.measurement, rival.measurement
    assert mine.drop is not None
    assert theirs.drop is not None
    alone = rival is result.baseline
    points = (0.0 if alone else theirs.drop.drop) - mine.drop.drop
    bound = f" (bound {0.0 - mine.drop.bound:+.2f})" if alone else ""
    times = _compared(trial, rival)
    size = _bytes(mine) / max(_bytes(theirs), 1)
    return (
        f"{trial.title} against {rival.title}: {points:+.2f} points{bound}, {_figures(times)}, "
        f"{size:.3f} of the bytes: {_conclusion(trial, rival, times, size)}"
    )


def _figures(times: Comparison) -> str:
    mark = ", disturbed" if times.disturbed else ""
    return f"{times.ratio:.3f} of the time ({times.low:.3f} - {times.high:.3f}{mark})"


def _conclusion(trial: Trial, rival: Trial, times: Comparison, size: float) -> str:
    if trial.status == rival.status != Status.KEPT:  # what it added isn't to blame
        gain = "faster" if times.faster else "smaller" if size < 1 else "no gain"
        return f"{gain}, but {rival.title} is {rival.status} already"
    if trial.status != Status.KEPT:
        return f"not worth it: {trial.status}"
    if times.faster:
        return PAYS
    if times.disturbed:
        return f"{'smaller' if size < 1 else 'not smaller'}; {UNKNOWN}"
    if size < 1:
        return f"{SMALLER}, it is slower" if times.slower else SMALLER
    return NOTHING


def _integers_against_floats(result: Result, judged: Sequence[Trial]) -> str:
    """How the fastest integer file of any runtime compares with the fastest float file of any:
    the original's runtime may be slow with one of them. Empty if there aren't both, or if the one
    is held against the other already."""
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
        f"{mine.title}, the fastest integer file that keeps the budget, takes {_figures(times)} "
        f"of {theirs.title}, the fastest float file: integers "
        f"{'gain little here' if little else 'pay'}"
    )


def _compared(trial: Trial, rival: Trial) -> Comparison:
    return compared(_latency(trial), _latency(rival))


def _latency(trial: Trial) -> Latency:
    assert trial.measurement.latency is not None
    return trial.measurement.latency


def _bytes(figures: Measurement) -> int:
    assert figures.file_bytes is not None
    return figures.file_bytes
