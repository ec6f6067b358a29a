"""Ledger: everything that a fit has measured, on disk and append-only. A `Result` is a view of it.

It is one SQLite file. Each event is a row, written whole or not at all, so a kill at any moment
loses at most the trial that was being made. `result.json` is written from it for people and other
programs.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from penjing.contract import Json, Latency
from penjing.errors import DiskError, InputError, in_one_line
from penjing.files import remove_files, write_atomically
from penjing.runtimes.registry import find_runtime
from penjing.strict_json import parse
from penjing.trials.candidate import Candidate
from penjing.trials.judgement.promise import Promise
from penjing.trials.layers import Layers
from penjing.trials.prediction import Prediction
from penjing.trials.result import REPORT, Result, require_within
from penjing.trials.trial import Status, Trial
from penjing.trials.view import PROVEN, View, view_of

LEDGER = "ledger.sqlite3"
LEDGER_FILES = (LEDGER, f"{LEDGER}-wal", f"{LEDGER}-shm")
SCHEMA = """
CREATE TABLE events (id INTEGER PRIMARY KEY, kind TEXT NOT NULL, data TEXT NOT NULL);
CREATE VIEW trials AS
    SELECT id, json_extract(data, '$.key') AS key, json_extract(data, '$.title') AS title,
        json_extract(data, '$.status') AS status, data
    FROM events WHERE kind = 'trial';
"""


class Ledger:
    """The events of one fit, and the result that they amount to.

    Until the end the result's `artifact` is the chosen candidate's own file; `deliver` copies it
    beside `result.json`. No file is written there before `result.json` lists it as penjing's.
    """

    def __init__(self, folder: Path, connection: sqlite3.Connection) -> None:
        self.folder = folder
        self._connection = connection
        self._view: View | None = None

    @classmethod
    def begin(cls, folder: Path, result: Result) -> Ledger:
        """Begin a ledger in a folder without one, for a fit that has measured nothing yet.

        Raises:
            DiskError: it can't be written.
        """
        ledger = cls(folder, _connected(folder / LEDGER))
        with _writing(folder):
            ledger._connection.executescript(f"BEGIN; {SCHEMA} COMMIT;")
        ledger._append("begin", result.to_json())
        return ledger

    @classmethod
    def resumed(cls, folder: Path) -> Ledger | None:
        """The ledger in the folder; None if there is none, or no fit was begun in it.

        Raises:
            InputError: the file there is no ledger of penjing's.
        """
        path = folder / LEDGER
        if not path.is_file() or path.is_symlink():
            return None
        connection = None
        try:
            connection = _connected(path)
            tables = connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
            events = tables and connection.execute("SELECT count(*) FROM events").fetchone()[0]
            if events:
                ledger = cls(folder, connection)
                require_within(ledger.result)
                return ledger
        except (sqlite3.Error, ValueError, KeyError, TypeError, AttributeError) as error:
            if connection is not None:
                connection.close()
            raise InputError(
                f"{path} can't be read: {in_one_line(error)}; `overwrite` starts again"
            ) from error
        connection.close()
        return None

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    @property
    def result(self) -> Result:
        """What all events amount to, with the choice, the marks and the verdicts that follow."""
        return self._seen.result

    @property
    def promised(self) -> Promise | None:
        """Which data certifies; None if that isn't settled yet."""
        return self._seen.promise

    def trial(self, key: str) -> Trial | None:
        """The newest trial of the candidate with that key, with a row of its own or without."""
        return self._seen.known.get(key)

    @property
    def _seen(self) -> View:
        if self._view is None:
            self._view = view_of(self._read())
        return self._view

    @property
    def proposed(self) -> Sequence[Candidate]:
        """All candidates that were begun, with or without a trial."""
        return self._seen.proposed

    def propose(self, candidate: Candidate) -> None:
        """Record that a candidate is begun."""
        if candidate not in self.proposed:
            self._append("proposed", candidate.to_json())

    def record(self, *trials: Trial) -> None:
        """Add trials, each in the place of an earlier one of the same candidate."""
        for trial in trials:
            self._append("trial", trial.to_json())

    def amend(self, trial: Trial, status: Status | None = None, reason: str | None = None) -> None:
        """Change a trial's status, its reason, or both."""
        changes = {"status": status, "reason": reason}
        known = {name: value for name, value in changes.items() if value is not None}
        self._append("amended", {"key": trial.key, **known})

    def set_latencies(self, times: Mapping[str, Latency]) -> None:
        """Take new latencies, by the candidates' keys. An unreliable one never replaces a reliable
        one."""
        self._append("timed", {key: asdict(latency) for key, latency in times.items()})

    def note(self, text: str) -> None:
        """Add a line that the user should read, once."""
        self._append("note", {"text": text})

    def remember(self, name: str, value: Json) -> None:
        """Keep plain data that took long to find, for when the fit is resumed."""
        self._append("remembered", {"name": name, "value": value})

    @property
    def remembered(self) -> Mapping[str, Json]:
        """All that was remembered, by name."""
        return self._seen.remembered

    def recall(self, name: str) -> Json:
        """What was remembered last under a name; None if nothing was."""
        return self.remembered.get(name)

    def predict(self, prediction: Prediction) -> None:
        """Record what was expected of a candidate, once; a resumed fit comes here again."""
        if prediction.key not in {made.key for made in self.result.predictions}:
            self._append("predicted", asdict(prediction))

    def describe(self, layers: Layers) -> None:
        """Record what became of each layer, once the answer is certain."""
        self._append("layers", layers.to_json())
        self.publish()

    def promise(self, made: Promise) -> None:
        """Record which data certifies, with the note that users should read about it."""
        self._append("promise", asdict(made))

    def interrupted(self) -> None:
        """Record that the fit was stopped before its end."""
        self._append("interrupted", {})

    def go_on(self) -> None:
        """Record that the fit is resumed."""
        self._append("resumed", {})

    def finish(self, result: Result) -> None:
        """Record what the test data said, and deliver the answer.

        Args:
            result: this ledger's own, as `certify.prove` leaves it.
        """
        proven = {name: getattr(result, name) for name in PROVEN}
        drop = None if result.test_drop is None else asdict(result.test_drop)
        rows = {trial.key: [trial.status, trial.reason] for trial in result.trials}
        self._append("proven", {**proven, "test_drop": drop, "rows": rows})
        self.deliver()

    def publish(self) -> None:
        """Write `result.json`."""
        self.result.save(self.folder)

    def deliver(self) -> None:
        """Copy the chosen candidate's files beside `result.json`, in place of those that an
        interrupted fit had chosen."""
        answer, before = self.result.answer, self.result.files
        sources: tuple[Path, ...] = ()
        if answer.artifact is not None:
            sources = find_runtime(answer.runtime).files(self.folder / answer.artifact)
        names = [path.name for path in sources]
        self.own((*before, *names))
        for path in sources:
            write_atomically(self.folder / path.name, path.read_bytes())
        remove_files(self.folder / name for name in {*before} - {*names, *REPORT})
        files = [*names, *(name for name in before if name in REPORT)]
        self._append("delivered", {"artifact": names[0] if names else None, "files": files})
        self.publish()

    def own(self, names: Sequence[str]) -> None:
        """List files as penjing's that are about to be written beside `result.json`."""
        self._append("files", {"files": list(dict.fromkeys((*self.result.files, *names)))})
        self.publish()

    def _append(self, kind: str, data: Mapping[str, Json]) -> None:
        text = json.dumps(data, allow_nan=False)
        with _writing(self.folder), self._connection:
            self._connection.execute("INSERT INTO events (kind, data) VALUES (?, ?)", (kind, text))
        if self._view is not None:
            self._view.take(kind, json.loads(text))

    def _read(self) -> Iterator[tuple[str, Any]]:
        rows = self._connection.execute("SELECT id, kind, data FROM events ORDER BY id")
        with closing(rows) as cursor:
            for number, kind, data in cursor:
                yield kind, parse(str(data).encode(), f"{LEDGER}, event {number}")


def _connected(path: Path) -> sqlite3.Connection:
    """A connection with write-ahead logging, whose every event is on disk before the next."""
    with _writing(path.parent):
        connection = sqlite3.connect(path)
        try:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
        except sqlite3.Error:
            connection.close()
            raise
        return connection


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    """Turn SQLite's errors about the disk into DiskError."""
    try:
        yield
    except sqlite3.OperationalError as error:
        raise DiskError(f"folder {folder} can't be written: {error}; choose another") from error
