"""InTurn: the base class of passes that work through a network part by part."""

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
"""Works on one part, given its nodes, and returns the first node whose value has changed."""


class InTurn(Pass):
    """A pass that works through the parts that its plan names, in the order of the graph.

    Each part sees the activations that it really receives, after the earlier parts have changed.

    Attributes:
        samples: the number of training samples to use, at most.
        doing: what happens to a part, for the progress line.
    """

    samples: int
    doing: ClassVar[str]

    @abstractmethod
    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Return the function that works on one part.

        Args:
            network: the input network, unchanged.
            student: the activations of the copy that is being changed.
            teacher: the activations that the copy should reproduce.
        """

    def teacher(self, student: Network, task: Task) -> Network:
        """The network whose activations `student` should reproduce.

        A pass that needs no such network keeps this default: `student` itself, which it then never
        reads.
        """
        return student

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Work through the parts of the plan, on a copy.

        Raises:
            InputError: the plan comes from an older penjing or belongs to another network, or the
                calibration data can't be used.
        """
        name = type(self).__name__
        if plan.parts is None:
            raise InputError(
                f"this plan of {name} was made by an older penjing, which didn't store the parts; "
                f"call {name}.plan again"
            )
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
        """The number of samples to use: fewer than asked for if their activations wouldn't fit
        into memory."""
        return costs.samples_in_memory(network, self.samples)

    def on_samples(self, network: Network) -> str:
        """The number of samples, in words for the summary of a plan."""
        samples = self.in_memory(network)
        few = "" if samples == self.samples else f" ({self.samples} would not fit into memory)"
        return f"on {samples} samples{few}"

    def known(self, value: T | None, part: fx.Node) -> T:
        """Return `value`, which the pass needs in order to work on a part.

        Raises:
            InputError: `value` is None, because the plan belongs to another network.
        """
        if value is None:
            name = type(self).__name__
            raise InputError(
                f"the plan of {name} names {part.name}, which {name} can't work on in this "
                f"network; call {name}.plan again"
            )
        return value
