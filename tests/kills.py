"""Kills: fits that are killed at random moments, and what `--resume` and `--overwrite` make of it.

    python -m tests.kills --n 200 --pairs 10

Each fit is the command line in a process of its own, which gets SIGKILL (or another `--signal`) at
a moment drawn from the time that a fit takes when nobody stops it. Then the folder is looked at and
copied: one copy is resumed, the other overwritten. Both must end with a result of the same bytes as
that of the fit that nobody stopped, and with files of the recorded hashes. The resumed ledger must
hold every trial that the killed one held, and none twice. After that, fits are started two by two
in one folder. Prints a table and a line of JSON; the exit code is 0 if all held.

Times are told, not measured, in a runtime that takes no time to lower to (`tests/instruments.py`).
Which moments are met depends on the machine; `tests/search/test_folder.py` goes through all of
them, operation by operation.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import json
import os
import random
import shutil
import signal
import sqlite3
import sys
import tempfile
import time
import warnings
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import slow_task

TASK = Path(slow_task.__file__)
OPTIONS = ("--epochs", "1", "--max-drop", "20", "--goal", "size")
BEGUN_ANEW = "there was nothing to resume"
SECONDS = 300.0  # for a fit; one that takes longer hangs


def main() -> int:
    """Run the kills and the pairs that the command line asks for; the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=50, help="kills")
    parser.add_argument("--within", type=float, help="seconds from a fit's start; all of it")
    parser.add_argument("--pairs", type=int, default=10, help="of fits in one folder")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--signal", choices=["KILL", "TERM", "INT"], default="KILL")
    asked = parser.parse_args()
    wanted, seconds = _prepare()
    asked.within = round(asked.within or seconds, 1)
    draw = random.Random(asked.seed)
    tally = Tally(wanted)
    with tempfile.TemporaryDirectory() as folder:
        for number in range(asked.n):
            after, by = draw.uniform(0, asked.within), signal.Signals[f"SIG{asked.signal}"]
            kill(Path(folder) / str(number), after, by, tally)
        for number in range(asked.pairs):
            after = draw.uniform(0, asked.within / 3) if number % 2 else 0.0
            pair(Path(folder) / f"pair {number}", after, tally)
    return tally.printed(vars(asked))


@dataclass
class Tally:
    """What came of it: by state that a kill left, and of pairs, how many held what is promised.

    Attributes:
        wanted: the bytes of the result of a fit that nobody stopped.
    """

    wanted: bytes
    states: dict[str, Counter[str]] = field(default_factory=dict)
    pairs: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def count(self, counter: Counter[str], what: str, why_not: str) -> None:
        """Count one more for `what` if there is nothing against it."""
        counter[what] += not why_not
        if why_not:
            self.wrong.append(f"{what}: {why_not}")

    def printed(self, asked: dict[str, Any]) -> int:
        """Print all; the exit code."""
        columns = ("kills", "opens", "resumed", "overwritten")
        rows = [(name, [found[one] for one in columns]) for name, found in self.states.items()]
        rows.append(("all", [sum(numbers[k] for _, numbers in rows) for k in range(len(columns))]))
        print(f"{'the kill left':32}" + "".join(f"{one:>13}" for one in columns))
        for name, numbers in rows:
            print(f"{name:32}" + "".join(f"{one:13}" for one in numbers))
        print(f"two fits at once: {dict(self.pairs)}")
        for line in self.wrong:
            print(f"WRONG: {line}")
        states = {name: dict(counted) for name, counted in self.states.items()}
        told = {"states": states, "pairs": self.pairs, "wrong": self.wrong}
        print(json.dumps({**asked, **told}))
        return 1 if self.wrong else 0


def kill(folder: Path, after: float, by: signal.Signals, tally: Tally) -> None:
    """Kill a fit so many seconds after its start, and go on in both ways."""
    out = folder / "out"
    fit = Fit.start(out, folder / "killed")
    time.sleep(after)
    os.kill(fit.process, by)
    code = fit.wait()
    state = "finished before the signal" if code == 0 else _state(out)
    counter = tally.states.setdefault(state, Counter())
    counter["kills"] += 1
    stopped = (0, 130) if by is not signal.SIGKILL else (0, -by)
    why = "" if code in stopped else f"exit code {code}: {fit.errors}"
    tally.count(counter, "opens", why or _wrong_in(out))
    going_on = {}
    for option, what in (("--resume", "resumed"), ("--overwrite", "overwritten")):
        if out.exists():
            shutil.copytree(out, folder / what)
        going_on[what] = Fit.start(folder / what, folder / f"{what}.log", option)
    for what, again in going_on.items():
        code = again.wait()
        why = f"exit code {code}: {again.errors}" if code else _wrong_in(folder / what, True)
        why = why or _otherwise(folder / what, tally.wanted)
        if what == "resumed":
            why = why or _lost_or_repeated(out, folder / what)
        tally.count(counter, what, f"{why} (after {state})" if why else "")
    shutil.rmtree(folder)


def pair(folder: Path, after: float, tally: Tally) -> None:
    """Start two fits in one folder, the other so many seconds after the one."""
    out = folder / "out"
    one = Fit.start(out, folder / "one")
    time.sleep(after)
    two = Fit.start(out, folder / "two", *(["--overwrite"] if after else []))
    codes = {fit.wait(): fit for fit in (two, one)}
    tally.pairs["pairs"] += 1
    if set(codes) != {0, 4}:
        found = [(code, fit.errors) for code, fit in codes.items()]
        tally.count(tally.pairs, "one finished, one refused", f"exit codes and lines: {found}")
        return
    lines = codes[4].errors.splitlines()
    named = len(lines) == 1 and f"is in use by process {codes[0].process} on" in lines[0]
    tally.count(tally.pairs, "the refusal names the other", "" if named else str(lines))
    tally.count(tally.pairs, "one finished, one refused", _wrong_in(out, finished=True))
    shutil.rmtree(folder)


@dataclass
class Fit:
    """A fit in a process of its own, and where its stderr goes."""

    process: int
    log: Path

    @classmethod
    def start(cls, out: Path, log: Path, *options: str, tell: int = -1) -> Fit:
        """Fork off the command line; in the end it writes to `tell` which modules it needed."""
        log.parent.mkdir(parents=True, exist_ok=True)
        sys.stdout.flush()
        process = os.fork()
        if process:
            return cls(process, log)
        errors = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(errors, 2)
        code = 1
        try:
            code = _command_line(["fit", str(TASK), *OPTIONS, "--out", str(out), *options])
            if tell >= 0:
                with os.fdopen(tell, "w") as file:
                    file.write(" ".join(sys.modules))
        finally:
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> int:
        """The exit code, or the negative number of the signal that ended it."""
        end = time.monotonic() + SECONDS
        while True:
            done, status = os.waitpid(self.process, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            if time.monotonic() > end:
                os.kill(self.process, signal.SIGKILL)
            time.sleep(0.02)

    @property
    def errors(self) -> str:
        """What it printed to stderr, but for its progress."""
        lines = self.log.read_text(errors="replace").splitlines()
        return "\n".join(one for one in lines if not one.startswith(("[", "  ")))


def _prepare() -> tuple[bytes, float]:
    """Make a fit short and its times told, and import what it needs, so that it begins at once when
    it is forked; the bytes of its result, and the seconds that it takes."""
    from penjing.search.predict.known import ELSEWHERE
    from penjing.search.strategies import cutting
    from tests.instruments import Direct, Told, only
    from tests.slow_task import task

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)  # OpenMP's threads don't come along when a process forks
    patch = pytest.MonkeyPatch()
    patch.setattr(cutting, "CUTS", (0.5,))
    only(patch, Direct)
    told = Told(lambda _: 1.0).instruments()
    patch.setattr("penjing.search.options.Instruments", lambda: told)
    patch.setenv(ELSEWHERE, tempfile.mkdtemp(prefix="kills-"))
    patch.setattr(Direct, "store", (Path(tempfile.mkdtemp(prefix="kills-")), task()))
    for _ in range(2):  # the second one has all that it needs imported
        with tempfile.TemporaryDirectory() as folder:
            hear, tell = os.pipe()
            begin = time.monotonic()
            first = Fit.start(Path(folder) / "out", Path(folder) / "log", tell=tell)
            os.close(tell)
            with os.fdopen(hear) as names:
                for name in names.read().split():
                    with contextlib.suppress(ImportError):
                        importlib.import_module(name)
            if first.wait():
                sys.exit(f"a fit that nobody stops fails: {first.errors}")
            result = (Path(folder) / "out" / "result.json").read_bytes()
    return result, time.monotonic() - begin


def _otherwise(out: Path, wanted: bytes) -> str:
    """How a result differs from that of a fit that nobody stopped; empty if it doesn't."""
    found, undisturbed = (json.loads(data) for data in ((out / "result.json").read_bytes(), wanted))
    found["notes"] = [note for note in found["notes"] if not note.startswith(BEGUN_ANEW)]
    names = [name for name in {**found, **undisturbed} if found.get(name) != undisturbed.get(name)]
    return f"another {', '.join(names)} than without a kill" if names else ""


def _lost_or_repeated(killed: Path, resumed: Path) -> str:
    """Which trials of a killed fit its resumed one lacks, or has recorded twice; empty if none."""
    before, after = (_trials(out) for out in (killed, resumed))
    lost = before.keys() - after.keys()
    again = [key for key, count in after.items() if count > 1]
    return f"lost {lost}, done again {again}" if lost or again else ""


def _trials(out: Path) -> Counter[str]:
    """How often each candidate was recorded, by its key."""
    from penjing.trials.ledger import LEDGER

    if not (out / LEDGER).exists():
        return Counter()
    with contextlib.closing(sqlite3.connect(out / LEDGER)) as connection:
        if not connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]:
            return Counter()
        return Counter(key for (key,) in connection.execute("SELECT key FROM trials"))


def _command_line(arguments: list[str]) -> int:
    from penjing import cli

    sys.argv = ["penjing", *arguments]
    try:
        cli.main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 0
    return 0


def _state(out: Path) -> str:
    """What a fit that was stopped has left, in words."""
    from penjing.trials.result import Result

    if not out.exists():
        return "no folder"
    if not (out / "result.json").exists():
        return "a folder without a result"
    result = Result.load(out)
    if result.finished:
        return "a finished result"
    if result.baseline.artifact is None:
        return "a result without a figure"
    done = sum(one.artifact is not None for one in result.trials)
    return f"the original and {done} candidates" if done else "the original"


def _wrong_in(out: Path, finished: bool = False) -> str:
    """What is wrong with a folder, in a line; empty if nothing is."""
    from penjing.errors import InputError
    from penjing.files import sha256
    from penjing.runtimes.registry import find_runtime
    from penjing.trials.result import Result

    if not (out / "result.json").exists():
        return "no result" if finished else ""
    try:
        result = Result.load(out)
    except InputError as error:
        return str(error)
    files = {one.artifact: one for one in result.everything if one.artifact}
    if result.artifact:
        files[result.artifact] = result.answer
    for name, candidate in files.items():
        paths = find_runtime(candidate.runtime).files(out / name)
        if not all(one.exists() for one in paths) or sha256(*paths) != candidate.sha256:
            return f"{name} isn't the file that was measured"
    if finished:
        left = [one.name for one in out.rglob(".penjing*")]
        if left or not result.finished:
            return f"left over: {left}" if left else "not finished"
    return ""


if __name__ == "__main__":
    sys.exit(main())
