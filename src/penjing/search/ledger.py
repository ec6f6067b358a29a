"""Ledger: the state of a fit, on disk after every step, so that no interruption loses it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from penjing.contract import Latency
from penjing.files import remove_files, write_atomically
from penjing.runtimes.registry import find_runtime
from penjing.search.promise import Promise
from penjing.search.result import REPORT, Candidate, Result, choose, with_pareto
from penjing.search.verdicts import verdicts


class Ledger:
    """A result that grows.

    Every change is written to `result.json` before the next step begins. Until the end its
    `artifact` is the chosen candidate's own file; `deliver` copies that beside
    `result.json`. Nothing is written there before `result.json` calls it penjing's.
    """

    def __init__(self, folder: Path, result: Result) -> None:
        self.folder = folder
        self.result = result

    def note(self, text: str) -> None:
        """Add a line that the user should read."""
        self._keep(replace(self.result, notes=(*self.result.notes, text)))

    def promise(self, made: Promise) -> None:
        """Say what certifies, and what the user should know of it."""
        notes = (*self.result.notes, made.note) if made.note else self.result.notes
        self._keep(replace(self.result, certified_by=made.certified_by, notes=notes))

    def record(self, *candidates: Candidate) -> None:
        """Add candidates, or replace those of the same name (the baseline too), and choose."""
        known = {one.name: one for one in self.result.everything}
        known |= {one.name: one for one in candidates}
        self._choose(tuple(known.values()))

    def set_latencies(self, times: Mapping[str, Latency]) -> None:
        """Take new latencies, by candidate, and choose again; one that other load disturbed never
        takes the place of one that was good."""
        new = {
            name: found
            for name, found in times.items()
            if not found.disturbed or (self.result.latency(name) or found).disturbed
        }
        self._choose(
            tuple(
                replace(one, measurement=replace(one.measurement, latency=new[one.name]))
                if one.name in new
                else one
                for one in self.result.everything
            )
        )

    def fail(self, reasons: Mapping[str, str]) -> None:
        """Record of candidates, by name, that they failed after all, and why."""
        found = ((self.result.find(name), why) for name, why in reasons.items())
        self.record(*(replace(one, status="failed", reason=why) for one, why in found))

    def finish(self, result: Result) -> None:
        """Write the last state, and the chosen file."""
        self.deliver(replace(result, finished=True))

    def deliver(self, result: Result | None = None) -> None:
        """Copy the chosen candidate's files, in the place of those that an interrupted fit had
        chosen, then write the state that says so."""
        result = result or self.result
        chosen = result.find(result.chosen)
        if chosen.artifact is not None:
            source = self.folder / chosen.artifact
            sources = find_runtime(chosen.runtime).files(source)
            names = [one.name for one in sources]
            before = self.result.files
            mine = self.result.find(self.result.chosen).artifact  # while the copy isn't whole
            self._keep(replace(self.result, artifact=mine, files=_joined(before, names)))
            for one in sources:
                write_atomically(self.folder / one.name, one.read_bytes())
            remove_files(self.folder / one for one in {*before} - {*names, *REPORT})
            reports = [one for one in before if one in REPORT]
            result = replace(result, artifact=source.name, files=_joined(names, reports))
        self._keep(result)

    def own(self, names: Sequence[str]) -> None:
        """Call files penjing's, which are about to be written beside `result.json`."""
        self._keep(replace(self.result, files=_joined(self.result.files, names)))

    def _choose(self, everything: tuple[Candidate, ...]) -> None:
        baseline, *candidates = with_pareto(everything)
        best, why = choose(baseline, candidates, self.result.goal, self.result.max_drop)
        self._keep(
            replace(
                self.result,
                baseline=baseline,
                candidates=tuple(candidates),
                chosen=best.name,
                reason=why,
                artifact=best.artifact,
            )
        )

    def _keep(self, result: Result) -> None:
        self.result = replace(result, verdicts=verdicts(result))
        self.result.save(self.folder)


def _joined(some: Sequence[str], others: Sequence[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys((*some, *others)))
