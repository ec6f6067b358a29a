"""Subject: a file that rules are held against, and its figures, each measured once when asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from penjing.contract import Artifact, Parity, Placement, Session
from penjing.measure.in_pytorch import InPyTorch
from penjing.measure.parity import parity
from penjing.measure.scores import Scores, judge
from penjing.network import Network, capture
from penjing.runtimes.contract import Runtime
from penjing.tasks.checks import check, require_scores
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.tools.on_data import OnData
from penjing.trials.evaluation.instruments import Instruments


@dataclass(frozen=True)
class Conditions:
    """What holds for all rules of a check.

    Attributes:
        confidence: of bounds on what a file loses.
        seconds: how long a measurement of time takes.
        instruments: what measures time and memory.
    """

    confidence: float
    seconds: float
    instruments: Instruments


@dataclass(eq=False)
class Original:
    """A task and its own model, which is run in PyTorch. It is read when it is first asked for.

    Attributes:
        named: the task, as `penjing.find_task` takes it.
    """

    named: str

    @cached_property
    def checked(self) -> tuple[Task, tuple[str, ...]]:
        """The task, once it was checked, and what to know of it.

        Raises:
            InputError: there is no such task, or something is wrong with it.
        """
        task, notes = check(find_task(self.named))
        require_scores(task, task.test)
        return task, notes

    @property
    def task(self) -> Task:
        """See `checked`."""
        return self.checked[0]

    @cached_property
    def network(self) -> Network:
        """The model, as a graph."""
        return capture(self.task.model, self.task.example, source=self.task.source)

    @cached_property
    def scores(self) -> Scores:
        """What the metric says of the model on the test data."""
        return judge(InPyTorch(self.network), self.task.test, self.task.metric)


@dataclass(eq=False)
class Loaded:
    """A file in its runtime.

    Attributes:
        name: as the file of budgets calls it.
        original: the task to judge it by; None if no rule needs one.
    """

    name: str
    runtime: Runtime
    artifact: Artifact
    session: Session
    original: Original | None = None

    @property
    def task(self) -> Task:
        """The task, for rules that need one."""
        return self.by_task.task

    @property
    def by_task(self) -> Original:
        """The task's original, for rules that need one."""
        assert self.original is not None, "a rule that needs a task says so in its row"
        return self.original

    @property
    def on_data(self) -> OnData:
        """The session, to be run on the task's data."""
        return OnData(self.name, self.session)

    @cached_property
    def scores(self) -> Scores:
        """What the metric says of the file on the test data."""
        return judge(self.on_data, self.task.test, self.task.metric)

    @cached_property
    def agreement(self) -> Parity:
        """How close its outputs are to the original model's, on the first 1,000 test samples."""
        return parity(self.by_task.network, self.on_data, self.task.test)

    @cached_property
    def placement(self) -> list[Placement]:
        """Which unit runs each operator."""
        return self.runtime.placement(self.artifact)


@dataclass(eq=False)
class Subject:
    """A file, what it is compared with, and the limits of its rules.

    Attributes:
        place: where its rules are, for messages.
        reference: None if no rule needs one.
        limits: by rule.
    """

    place: str
    file: Loaded
    reference: Loaded | None
    limits: dict[str, Any]
    conditions: Conditions

    @property
    def compared(self) -> Loaded:
        """The reference, for rules that need one."""
        assert self.reference is not None, "a rule that needs a reference says so in its row"
        return self.reference
