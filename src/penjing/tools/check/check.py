"""Check: load all files that a file of budgets names, and hold each against its rules."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path

from penjing.contract import Json
from penjing.errors import InputError, MachineError, UnsafeError
from penjing.processor import this_processor
from penjing.tools.check.budgets import Budgets, FileBudget, Named
from penjing.tools.check.requirements import require_takes_the_data
from penjing.tools.check.rules import REFERENCE, RULES, TASK
from penjing.tools.check.subject import Conditions, Loaded, Original, Subject
from penjing.tools.check.values import spelled
from penjing.tools.inputs import as_recorded
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.evaluation.saturation import judged_on


@dataclass(frozen=True)
class Verdict:
    """What became of one rule.

    Attributes:
        file: as the file of budgets names it.
        rule: its key.
        limit: its value.
        kept: whether the file keeps it.
        measured: the figure that decided.
        text: the same in words.
    """

    file: str
    rule: str
    limit: Json
    kept: bool
    measured: Json
    text: str

    @property
    def line(self) -> str:
        """The verdict in one line.

        >>> Verdict("a.onnx", "max_kb", 200, True, 1200, "has 1,200 bytes").line
        'kept    a.onnx: max_kb = 200: has 1,200 bytes'
        """
        word = "kept" if self.kept else "BROKEN"
        return f"{word:6}  {self.file}: {self.rule} = {spelled(self.limit)}: {self.text}"


@dataclass(frozen=True)
class Checked:
    """What became of all rules.

    Attributes:
        verdicts: in the order of the files.
        notes: what to know of the task, a line each.
        where: the processor that measured.
    """

    verdicts: tuple[Verdict, ...]
    notes: tuple[str, ...] = ()
    where: Mapping[str, Json] = field(default_factory=dict)

    @property
    def broken(self) -> tuple[Verdict, ...]:
        """The rules that aren't kept."""
        return tuple(verdict for verdict in self.verdicts if not verdict.kept)

    def to_json(self) -> dict[str, Json]:
        """Plain data."""
        return {
            "kept": not self.broken,
            "rules": [asdict(verdict) for verdict in self.verdicts],
            "notes": list(self.notes),
            "judged_on": dict(self.where),
        }


def check(
    budgets: Budgets,
    instruments: Instruments | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> Checked:
    """Hold files against their rules.

    All files are loaded, and it is made sure that each rule can be judged, before anything is
    measured that takes long.

    Args:
        budgets: what `penjing.tools.check.budgets.read_budgets` gave.
        instruments: what measures time and memory.
        say: called with what is being done.

    Raises:
        InputError: a file or the task can't be used, or a rule can't be judged for a file.
        UnsafeError: a file has changed since it was written, or is of others and refused.
        MachineError: this machine lacks what a rule or a runtime needs.

    >>> import penjing, tempfile, torch
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(torch.nn.Linear(8, 4), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = penjing.export(network, task, "onnxruntime", out=folder).path
    ...     file = Named("model.onnx", path)
    ...     rules = FileBudget("file model.onnx", file, limits={"max_kb": 0.1})
    ...     checked = check(Budgets(path, (rules,)))
    >>> print(checked.verdicts[0].line)
    BROKEN  model.onnx: max_kb = 0.1: has ... bytes
    """
    conditions = Conditions(budgets.confidence, budgets.seconds, instruments or Instruments())
    original = None if budgets.task is None else Original(budgets.task)
    with ExitStack() as until:
        say("loading the files")
        subjects = _subjects(budgets, original, conditions, until)
        _require_judgeable(subjects, say)
        verdicts: dict[int, list[Verdict]] = {place: [] for place in range(len(subjects))}
        for key, rule in RULES.items():
            for place, subject in enumerate(subjects):
                if key in subject.limits:
                    limit, name = subject.limits[key], subject.file.name
                    say(f"judging {key} of {name}")
                    judged = rule.judge(subject, limit)
                    verdicts[place].append(Verdict(name, key, limit, **vars(judged)))
    ordered = tuple(verdict for rows in verdicts.values() for verdict in rows)
    by_task = any(budget.needs(TASK) for budget in budgets.files)
    notes = original.checked[1] if original is not None and by_task else ()
    return Checked(ordered, notes, judged_on(this_processor()))


def _subjects(
    budgets: Budgets, original: Original | None, conditions: Conditions, until: ExitStack
) -> list[Subject]:
    """All files, loaded once each."""
    loaded: dict[tuple[Path, str | None], Loaded] = {}

    def load(place: str, named: Named, what: str) -> Loaded:
        if named.key not in loaded:
            _require_there(place, named, what)
            with _at(place):
                loaded[named.key] = Loaded(
                    named.name,
                    *until.enter_context(as_recorded(named.path, named.runtime)),
                    original,
                )
        return loaded[named.key]

    def subject(budget: FileBudget) -> Subject:
        file, reference = load(budget.place, budget.file, "path"), None
        if budget.needs(REFERENCE) and budget.reference is not None:
            reference = load(budget.place, budget.reference, REFERENCE)
        return Subject(budget.place, file, reference, budget.limits, conditions)

    return [subject(budget) for budget in budgets.files]


def _require_there(place: str, named: Named, what: str) -> None:
    if not os.path.isfile(named.path):  # False for names that no system takes, too
        raise InputError(
            f"{place}: {what} is {named.text}, but there is no file {named.path}; paths are "
            "relative to the file of budgets"
        )


def _require_judgeable(subjects: Sequence[Subject], say: Callable[[str], None]) -> None:
    """Raise if a rule can't be judged. Rules that need the task come last, for it may take long to
    read."""
    for needs_task in (False, True):
        rules = {key: rule for key, rule in RULES.items() if (TASK in rule.needs) is needs_task}
        concerned = [subject for subject in subjects if rules.keys() & subject.limits.keys()]
        for subject in concerned if needs_task else ():
            say(f"reading {subject.file.by_task.named}")
            require_takes_the_data(subject.place, subject.file)
        for key, rule in rules.items():
            for subject in concerned:
                if key in subject.limits:
                    say(f"looking at {subject.file.name}")
                    rule.require(subject)


@contextlib.contextmanager
def _at(place: str) -> Iterator[None]:
    """Say in errors of files where the file is named."""
    try:
        yield
    except (InputError, UnsafeError, MachineError) as error:
        raise type(error)(f"{place}: {error}") from error
