"""Record: what was written beside a file when it was made, and what is found otherwise later."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from penjing.contract import Json
from penjing.errors import InputError
from penjing.search.result import Result

RECORD = "export.json"
SAME_OUTPUTS = 0.01  # relative; what the outputs' mean distance from the original may change by


def recorded(path: Path) -> Mapping[str, Any]:
    """What an `export.json` or a `result.json` beside the file tells of it; empty if none does.

    Raises:
        InputError: the record can't be read.
    """
    record = path.parent / RECORD
    if record.exists():
        try:
            found: dict[str, Any] = json.loads(record.read_text())
            if found["file"] == path.name:
                return {**found, "sha256": str(found["sha256"]), "runtime": str(found["runtime"])}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise InputError(f"{record} can't be read: {error}") from error
    if (path.parent / "result.json").exists():
        result = Result.load(path.parent)
        if result.artifact == path.name:
            chosen = result.find(result.chosen)
            found = {"sha256": chosen.sha256, "runtime": chosen.runtime}
            version = result.versions.get(chosen.runtime)
            return found | {"version": version, "score": result.test_score}
    return {}


def differences(record: Mapping[str, Json], found: Mapping[str, Json]) -> tuple[str, ...]:
    """What a file gives otherwise than its record says, a line each.

    Of where it was judged, that counts only beside a figure that differs.
    """
    lines = []
    score, now = record.get("score"), found["score"]
    if score is not None and abs(score - now) > 1e-9:
        lines.append(f"score {100 * now:.2f}, recorded {100 * score:.2f}")
    before, after = record.get("to_original"), found["to_original"]
    if before:
        same, kept = before["same_decisions"], after["same_decisions"]
        if same is not None and kept is not None and abs(same - kept) > 1e-9:
            lines.append(f"{kept:.2%} of the original's decisions kept, recorded {same:.2%}")
        apart, mean = before["mean_difference"], after["mean_difference"]
        if abs(apart - mean) > SAME_OUTPUTS * max(apart, mean):
            lines.append(f"outputs {mean:.3g} from the original's on average, recorded {apart:.3g}")
    if record.get("saturates") not in (None, found["saturates"]):
        lines.append(f"saturates: {found['saturates']}, recorded {record['saturates']}")
    if not lines:
        return ()
    version, place = record.get("version"), record.get("judged_on")
    if version and version != found["version"]:
        lines.append(f"{found['runtime']} {found['version']}, recorded {version}")
    if place and place != found["judged_on"]:
        lines.append(f"judged on {_place(found['judged_on'])}, recorded on {_place(place)}")
    return tuple(lines)


def _place(place: Mapping[str, Json]) -> str:
    return f"{place['processor']} ({', '.join(place['instructions'])})"
