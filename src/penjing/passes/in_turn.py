"""InTurn: what the passes have in common that work on one part of a network after the other."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import ClassVar, TypeVar

from torch import fx

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.measure import costs
from penjing.network import Network, carry_out
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.passes.contract import Pass, Progress
from penjing.tasks.data import calibration
from penjing.tasks.task import Task

T = TypeVar("T")
Work = Callable[..., fx.Node]
"""Works on a part, given its nodes; gives the first node whose value is another for it."""


class InTurn(Pass):
    """A pass that works on the parts that its plan names, one after the other.

    Each part gets the values that it really has, now that those before it are done.

    Attributes:
        samples: training samples to look at, at most.
        doing: what is done to a part, for people.
    """

    samples: int
    doing: ClassVar[str]

    @abstractmethod
    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """What works on one part after the other.

        Args:
            network: as it came.
            student: the values of the copy that is worked on.
            teacher: those that they shall come near to.
        """

    def teacher(self, student: Network, task: Task) -> Network:
        """The network whose values those of `student` shall come near to; unless a pass has one,
        the same one, of which nothing is asked."""
        return student

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Work on one part after the other, on a copy.

        Raises:
            InputError: the plan is of an earlier penjing or of another network; the calibration
                data can't be used.
        """
        name = type(self).__name__
        if plan.parts is None:
            raise InputError(f"this plan of {name} is an earlier penjing's; let {name} plan again")
        new = carry_out(network, plan).eval()
        if not plan.parts:
            return new
        original = self.teacher(new, task)
        batches = list(calibration(task, self.in_memory(network)))
        student, teacher = ActivationCache(new, batches), ActivationCache(original, batches)
        work = self.begin(network, student, teacher)
        for number, part in enumerate(plan.parts):
            nodes = [student.nodes[node_name] for node_name in part]
            end = nodes[-1]
            if progress is not None:
                layer = end.meta.get("layer") or end.name
                progress(f"{self.doing} {layer}", number / len(plan.parts))
            student.changed(work(*nodes))
            student.forget_before(end)
            teacher.forget_before(end)
        return new

    def in_memory(self, network: Network) -> int:
        """How many samples are looked at: fewer where their values would not fit into memory."""
        return costs.samples_in_memory(network, self.samples)

    def on_samples(self, network: Network) -> str:
        """How many that is, for a plan's summary."""
        samples = self.in_memory(network)
        few = "" if samples == self.samples else f" ({self.samples} would not fit into memory)"
        return f"on {samples} samples{few}"

    def known(self, value: T | None, part: fx.Node) -> T:
        """What a part must have for the pass to work on it.

        Raises:
            InputError: it has none, because the plan is of another network.
        """
        if value is None:
            name = type(self).__name__
            raise InputError(
                f"the plan of {name} names {part.name}, on which it can't work in this network; "
                f"let {name} plan again"
            )
        return value
