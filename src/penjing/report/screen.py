"""The screen: what a finished fit shows on a terminal, in lines that fit it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from penjing.layout import WIDTH, counted, wrapped
from penjing.printable import in_a_line
from penjing.report.answer import answer, certified, how_measured
from penjing.report.table import candidates_table, legend, reasons, saturation, that_matter
from penjing.trials.result import RECORD, REPORT, Result

Line = tuple[str, str]
"""A line and its style."""


@dataclass(frozen=True)
class Screen:
    """A result on a terminal.

    Attributes:
        folder: of the result.
        everything: whether all candidates are shown, with reasons, or only those that matter.
        all_of_it: the command line that shows all candidates.
        check: the command line that checks the answer's file again.
        loading: Python that loads the answer's file; empty if there is none to show.
        width: of the terminal.
        spelled: how a text is written here that names options as Python does.
    """

    result: Result
    folder: Path
    everything: bool = False
    all_of_it: str = ""
    check: str = ""
    loading: str = ""
    width: int = WIDTH
    spelled: Callable[[str], str] = str

    def lines(self) -> list[Line]:
        """All lines, the answer first."""
        parts = [
            self._answer(), self._candidates(), self._details(), self._notes(), self._files(),
            self._next(),
        ]  # fmt: skip
        shown = [lines for part in parts if (lines := list(part))]
        return [line for lines in shown for line in (*lines, ("", ""))][:-1]

    def _answer(self) -> Iterator[Line]:
        yield from self._prose(answer(self.result), style="bold")
        yield from self._prose(certified(self.result))

    def _candidates(self) -> Iterator[Line]:
        result = self.result
        shown = list(result.everything) if self.everything else that_matter(result)
        yield from candidates_table(result, shown, self.width)
        for line in (*legend(result, shown), how_measured(result)):
            yield from self._prose(line)
        more = len(result.everything) - len(shown)
        if more:
            yield from self._prose(
                "Shown are the candidates that no other one beats in loss, time and size together. "
                f"To see the {counted(more, 'other')}, with reasons:"
            )
            yield f"  {in_a_line(self.all_of_it)}", ""

    def _details(self) -> Iterator[Line]:
        if not self.everything:
            return
        if said := reasons(self.result):
            yield "About the candidates:", "bold"
            yield from self._bullets(said)
        if self.result.verdicts:
            if said:
                yield "", ""
            yield "What each method gave, on the validation data:", "bold"
            yield from self._bullets(self.result.verdicts)

    def _notes(self) -> Iterator[Line]:
        notes = [*self.result.notes]
        if not self.everything:
            notes += saturation(self.result, self.result.answer)
        if notes:
            yield "Notes:", "bold"
            yield from self._bullets(notes)

    def _files(self) -> Iterator[Line]:
        what = {
            self.result.artifact: "the answer",
            REPORT[0]: "all candidates, with reasons",
            REPORT[1]: "loss against time, as a picture",
            REPORT[2]: "all of it with charts, for a browser",
            RECORD: "everything, for programs",
        }
        names = list(dict.fromkeys((*self.result.files, RECORD)))
        if len(names) == 1:
            return
        yield f"Files in {in_a_line(str(self.folder))}:", "bold"
        space = max(map(len, names))
        for name in names:
            about = what.get(name, "belongs to the answer")
            yield f"  {in_a_line(name).ljust(space)}  {about}", ""

    def _next(self) -> Iterator[Line]:
        if self.result.artifact is None or not self.result.finished:
            return
        if self.check:
            yield "To check the file again on the test data:", "bold"
            yield f"  {in_a_line(self.check)}", ""
        if self.loading:
            yield "To run it without penjing:", "bold"
            for line in self.loading.splitlines():  # as it is, to be copied
                yield in_a_line(line), ""

    def _prose(self, text: str, first: str = "", style: str = "") -> Iterator[Line]:
        for line in wrapped(in_a_line(self.spelled(text)), self.width, first):
            yield line, style

    def _bullets(self, texts: Iterable[str]) -> Iterator[Line]:
        for text in texts:
            yield from self._prose(text, "- ")
