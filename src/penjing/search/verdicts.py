"""Verdicts: what each method gave on this target, from the figures of the candidates' files."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.contract import Json, Measurement
from penjing.search.recipes import undemanded
from penjing.search.result import Candidate, Result

PAYS = "pays: faster, and keeps the budget"
SMALLER = "smaller but not faster"
NOTHING = "not worth it: neither faster nor smaller"


def verdicts(result: Result) -> tuple[str, ...]:
    """A line for each candidate that was measured, against what it was made from.

    That is the original, the same recipe in the original's runtime and precision where the
    candidate's are others, or the candidates whose recipe lacks something of its own: what was
    pruned and quantized is held against what was only pruned and against what was only quantized,
    so that the lines say which of them paid. A method without any measured candidate gets a line
    that says why.
    """
    judged = [one for one in result.candidates if _is_measured(one)]
    if not _is_measured(result.baseline):
        return ()
    lines = [
        _line(one, rival, result)
        for one in judged
        for rival in _rivals(one, judged, result.baseline) or [result.baseline]
    ]
    known = {name for one in judged for name in _methods(one)}
    for one in result.candidates:
        for name in _methods(one):
            if name not in known:
                known.add(name)
                lines.append(f"{name}: no verdict; {one.name}: {one.reason or one.status}")
    return tuple(lines)


def _is_measured(one: Candidate) -> bool:
    m = one.measurement
    return not (m.drop is None or m.latency is None or m.file_bytes is None)


def _methods(one: Candidate) -> list[str]:
    return [str(step["method"]) for step in one.recipe]


def _rivals(one: Candidate, others: Sequence[Candidate], baseline: Candidate) -> list[Candidate]:
    """Those whose recipe is a part of the candidate's, and of no longer such part; for another
    runtime or precision than the original's, the same recipe in those, but for what the runtime
    demands."""
    usual = [other for other in others if _way(other) == _way(baseline)]
    if _way(one) != _way(baseline):
        return [other for other in usual if undemanded(other.recipe) == undemanded(one.recipe)]
    parts = [other for other in usual if _is_part(other.recipe, one.recipe)]
    return [
        part for part in parts if not any(_is_part(part.recipe, other.recipe) for other in parts)
    ]


def _way(one: Candidate) -> tuple[str, str]:
    return one.runtime, one.floats


def _is_part(some: Sequence[Json], more: Sequence[Json]) -> bool:
    """Whether the recipe `some` is `more` with one pass or several left out."""
    rest = iter(more)
    return len(some) < len(more) and all(any(one == other for other in rest) for one in some)


def _line(one: Candidate, rival: Candidate, result: Result) -> str:
    mine, theirs = one.measurement, rival.measurement
    assert mine.drop is not None
    assert theirs.drop is not None
    alone = rival is result.baseline
    points = (0.0 if alone else theirs.drop.drop) - mine.drop.drop
    bound = f" (bound {0.0 - mine.drop.bound:+.2f})" if alone else ""
    ratio, low, high = _ratio(mine, theirs)
    size = _bytes(mine) / max(_bytes(theirs), 1)
    return (
        f"{one.name} against {rival.name}: {points:+.2f} points{bound}, {ratio:.3f} of the time "
        f"({low:.3f} - {high:.3f}{_disturbed(mine, theirs)}), {size:.3f} of the bytes: "
        f"{_conclusion(one, rival, low, high, size)}"
    )


def _conclusion(one: Candidate, rival: Candidate, low: float, high: float, size: float) -> str:
    if one.status == rival.status != "kept":  # what it added isn't to blame
        gain = "faster" if high < 1 else "smaller" if size < 1 else "no gain"
        return f"{gain}, but {rival.name} is {rival.status} already"
    if one.status != "kept":
        return f"not worth it: {one.status}"
    if high < 1:
        return PAYS
    if size < 1:
        return f"{SMALLER}, it is slower" if low > 1 else SMALLER
    return NOTHING


def _ratio(mine: Measurement, theirs: Measurement) -> tuple[float, float, float]:
    """Time over time, with the widest interval that both files' ratios to the original allow."""
    assert mine.latency is not None
    assert theirs.latency is not None
    a, b = mine.latency, theirs.latency
    return a.ratio / b.ratio, a.ratio_low / b.ratio_high, a.ratio_high / b.ratio_low


def _bytes(one: Measurement) -> int:
    assert one.file_bytes is not None
    return one.file_bytes


def _disturbed(*both: Measurement) -> str:
    return ", disturbed" if any(one.latency and one.latency.disturbed for one in both) else ""
