"""Record: what was written beside a file when it was made, and how the file differs from it now."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from penjing.contract import Json
from penjing.errors import InputError, PenjingError
from penjing.files import read_regular
from penjing.strict_json import parse
from penjing.trials.judgement.wording import figure_digits
from penjing.trials.result import Result

RECORD = "export.json"
SAME_OUTPUTS = 0.01  # by which share the mean distance to the original's outputs may change


def recorded(path: Path) -> Mapping[str, Any]:
    """What an `export.json` or `result.json` beside the file says about it; empty without one.

    Raises:
        UnsafeError: the record isn't valid JSON, or is a symbolic link.
        InputError: the record can't be read.
    """
    record = path.parent / RECORD
    if record.exists():
        content = parse(read_regular(record), str(record))
        wrong = [key for key, fits in FORMS.items() if not fits(_of(content, key))]
        if wrong:
            names = ", ".join(wrong)
            raise InputError(
                f"{record} isn't a record that penjing wrote: {names} missing or of the wrong "
                "type; export the file again"
            )
        if content["file"] == path.name:
            told: dict[str, Any] = content
            return told
    if (path.parent / "result.json").exists():
        result = Result.load(path.parent)
        if result.artifact == path.name:
            chosen = result.answer
            told = {"sha256": chosen.sha256, "runtime": chosen.runtime}
            version = result.versions.get(chosen.runtime)
            return told | {"version": version, "score": result.test_score}
    return {}


def is_ours(path: Path, sha256: str) -> bool:
    """Whether a record beside the file has this hash, which means that penjing wrote the file."""
    try:
        return recorded(path).get("sha256") == sha256
    except PenjingError:
        return False


def differences(record: Mapping[str, Json], given: Mapping[str, Json]) -> tuple[str, ...]:
    """How a file's figures differ from its record, one line each.

    Another version of the runtime or another processor is only reported if some figure differs.
    """
    lines = []
    score, now, unit = record.get("score"), given["score"], given["drop"]["unit"]
    if score is not None and abs(score - now) > 1e-9:
        lines.append(
            f"score {figure_digits(now, unit)}, but the record says {figure_digits(score, unit)}"
        )
    before, after = record.get("to_original"), given["to_original"]
    if before:
        same, kept = before["same_decisions"], after["same_decisions"]
        if same is not None and kept is not None and abs(same - kept) > 1e-9:
            lines.append(
                f"{kept:.2%} of decisions agree with the original's, but the record says {same:.2%}"
            )
        apart, mean = before["mean_difference"], after["mean_difference"]
        if abs(apart - mean) > SAME_OUTPUTS * max(apart, mean):
            lines.append(
                f"outputs differ from the original's by {mean:.3g} on average, but the record says "
                f"{apart:.3g}"
            )
    if record.get("saturates") not in (None, given["saturates"]):
        lines.append(
            f"layers that saturate: {given['saturates']}, but the record says {record['saturates']}"
        )
    if not lines:
        return ()
    version, place = record.get("version"), record.get("judged_on")
    if version and version != given["version"]:
        lines.append(f"{given['runtime']} is {given['version']}, but the record is from {version}")
    if place and place != given["judged_on"]:
        lines.append(
            f"measured on {_place(given['judged_on'])}, but the record is from {_place(place)}"
        )
    return tuple(lines)


def _place(place: Mapping[str, Json]) -> str:
    return f"{place['processor']} ({', '.join(place['instructions'])})"


def _of(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, dict) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_parity(value: Any) -> bool:
    same = _of(value, "same_decisions")
    return _is_number(_of(value, "mean_difference")) and (same is None or _is_number(same))


def _is_place(value: Any) -> bool:
    instructions = _of(value, "instructions")
    known = isinstance(instructions, list) and all(isinstance(name, str) for name in instructions)
    return known and isinstance(_of(value, "processor"), str)


FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(("file", "sha256", "runtime"), lambda value: isinstance(value, str)),
    "version": lambda value: value is None or isinstance(value, str),
    "score": lambda value: value is None or _is_number(value),
    "to_original": lambda value: value is None or _is_parity(value),
    "judged_on": lambda value: not value or _is_place(value),
}
"""The keys of an `export.json` that are read again, with a check of each value."""
