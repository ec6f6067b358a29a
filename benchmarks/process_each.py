"""A process for each network: rows step by step, a time limit, and a file that is added to."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

Row = dict[str, Any]


class StageFailed(Exception):
    """Says which step of a row failed, and of what."""


@contextmanager
def stage(row: Row, name: str, seconds: str = "") -> Iterator[None]:
    """A step of a row: an error names it, and its time gets the key `seconds`, if one is given."""
    begin = time.monotonic()
    try:
        yield
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise StageFailed(f"{name}: {type(error).__name__}: {line[:240]}") from error
    if seconds:
        row[seconds] = round(time.monotonic() - begin, 2)


def in_process(script: str, name: str, limit: float, extra: Sequence[str] = ()) -> Row:
    """The row that `python SCRIPT --one NAME` prints as JSON.

    Args:
        script: the benchmark that examines one network, given `--one`.
        name: the network.
        limit: seconds after which its process is ended.
        extra: more arguments.
    """
    command = [sys.executable, script, "--one", name, *extra]
    row: Row = {"model": name}
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, env=os.environ
        )
    except subprocess.TimeoutExpired as error:
        row |= _last_row(bytes(error.stdout or b"").decode())
        return row | {"error": f"no answer within {limit:.0f} s"}
    row |= _last_row(done.stdout)
    if done.returncode:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        row["error"] = f"process died: {last[:240]}"
    return row


def _last_row(printed: str) -> Row:
    """The last row that a process printed; a long one prints what it has so far."""
    rows = [line for line in printed.splitlines() if line.startswith("{")]
    found: Row = json.loads(rows[-1]) if rows and rows[-1].endswith("}") else {}
    return found


def each(
    names: Sequence[str],
    file: Path | None,
    row_of: Callable[[str, Row | None], Row],
    said: Callable[[Row], str],
) -> list[Row]:
    """The rows of networks, one after the other; a file that is given has what is done so far.

    Args:
        names: the networks.
        file: where rows are kept, and taken from.
        row_of: the row of a network, given its name and the row that the file has.
        said: what to say of a row in a line of progress.
    """
    known = known_rows(file)
    for number, name in enumerate(names, start=1):
        known[name] = row_of(name, known.get(name))
        print(f"[{number}/{len(names)}] {name}: {said(known[name])}", file=sys.stderr)
        keep(file, known)
    return [known[name] for name in names]


def known_rows(file: Path | None) -> dict[str, Row]:
    """The rows that a file has from an earlier run, by network."""
    if file is None or not file.exists():
        return {}
    return {row["model"]: row for row in json.loads(file.read_text())["rows"]}


def keep(file: Path | None, rows: Mapping[str, Row]) -> None:
    """Write the rows so far, such that an interrupted run can go on."""
    if file is not None:
        partial = file.with_suffix(".partial")
        partial.write_text(json.dumps({"rows": list(rows.values())}, indent=1))
        partial.replace(file)
