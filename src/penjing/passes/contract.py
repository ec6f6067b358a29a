"""The base class of every pass, and the check that a pass leaves its input unchanged."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from penjing.contract import Json, LeftAlone, Plan
from penjing.network import Network, carry_out
from penjing.passes.conditions import Condition, lacking, require_of_task
from penjing.tasks.task import Task

Progress = Callable[[str, float], None]
"""Called while a pass works, with a line of text and the share that is done, 0..1."""
Edit = Mapping[str, Any]
"""One edit of a plan; see `penjing.network.edits.table`."""


class Pass(ABC):
    """One compression method, as a frozen dataclass whose fields are its options.

    `plan` decides what to do and changes nothing. `apply` carries a plan out on a copy of the
    network. Calling the pass does both. The input network is never changed, and every call checks
    that.

    A pass declares what it requires and what it provides: as class attributes, or as properties
    where the answer depends on the options. `plan` checks the requirements before any long step.
    `penjing.passes.order` uses both to find recipes whose order can't work.

    >>> import penjing, torch
    >>> model = torch.nn.Sequential(
    ...     torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(32, 8), torch.arange(32) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> halve = penjing.passes.PruneChannels(0.5)
    >>> halve.plan(network, task).summary
    'removes 8 of 16 channels in 1 axis'
    >>> smaller = halve(network, task)
    >>> [sum(p.numel() for p in part.parameters()) for part in (network, smaller)]
    [212, 108]
    """

    @property
    def requires(self) -> frozenset[Condition]:
        """The conditions that the pass needs.

        A task that doesn't meet them is refused. A network that doesn't meet them leaves the pass
        nothing to do.
        """
        return frozenset()

    @property
    def provides(self) -> frozenset[Condition]:
        """The conditions that the resulting network meets."""
        return frozenset()

    def plan(self, network: Network, task: Task, progress: Progress | None = None) -> Plan:
        """Decide what to do, without changing anything.

        If the network doesn't meet the requirements of the pass, the plan is empty and says why.

        Args:
            network: what `penjing.capture` or an earlier pass returned.
            task: its data and its loss; many passes use neither.
            progress: called while the pass decides, with a line of text and the share that is done.

        Raises:
            InputError: the task doesn't meet the requirements of the pass, or an option doesn't
                fit the network.
        """
        why = lacking(network, self.requires)
        if why is not None:
            return self._plan(left_alone=(why,))
        require_of_task(type(self).__name__, self.requires, network, task)
        return self.decide(network, task, progress or _unseen)

    @abstractmethod
    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Make the plan, once `plan` has checked the requirements.

        A pass that measures in order to decide calls `progress` meanwhile, as in `apply`.
        """

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Carry out `plan` on a copy of `network` and return the copy.

        Most passes only edit the graph. Passes that train or solve override this method.

        Args:
            network: the network for which the plan was made.
            plan: what `plan` returned.
            task: its data and its loss; most passes use neither here.
            progress: called while the pass works, with a line of text and the share that is done.

        Raises:
            UnsafeError: the plan doesn't fit the network.
        """
        return carry_out(network, plan)

    def __call__(self, network: Network, task: Task, progress: Progress | None = None) -> Network:
        """Plan and apply, then check that the input network is unchanged.

        Args:
            network: what `penjing.capture` or an earlier pass returned.
            task: its data and its loss; many passes use neither.
            progress: called while the pass works, with a line of text and the share that is done.

        Returns:
            A new network in evaluation mode, whose `history` ends with the plan.

        Raises:
            InputError: as for `plan`.
        """
        before = _fingerprint(network)
        result = self.apply(network, self.plan(network, task, progress), task, progress)
        if _fingerprint(network) != before:
            raise AssertionError(f"{type(self).__name__} changed its input network")
        return result

    def to_json(self) -> dict[str, Json]:
        """The name and the options of the pass; `penjing.trials.recipe.from_json` reads them."""
        options = json.dumps(asdict(self))  # type: ignore[call-overload]
        return {"method": type(self).__name__, **json.loads(options)}

    def _plan(
        self,
        edits: Sequence[Edit] = (),
        summary: str = "",
        left_alone: Sequence[LeftAlone] = (),
        notes: Sequence[str] = (),
        parts: Sequence[tuple[str, ...]] = (),
    ) -> Plan:
        """A plan of this pass with its options; an empty plan gets no summary."""
        options = self.to_json()
        method = options.pop("method")
        summary = summary if edits or parts else ""
        return Plan(
            method, options, tuple(edits), summary, tuple(left_alone), tuple(notes), tuple(parts)
        )


def _fingerprint(network: Network) -> tuple[object, ...]:
    """A value that changes if a tensor, the graph or the mode of the network is changed."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return (
        network.training,
        len(network.history),
        tuple(str(node.args) for node in network.graph.nodes),
        tuple(
            (name, id(tensor), tensor._version, tensor.requires_grad) for name, tensor in tensors
        ),
    )


def _unseen(line: str, share: float) -> None:
    """The progress that nobody looks at."""
