"""The contract of a pass, and the check that every pass keeps it."""

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
"""Called with a line for people and the share done, 0..1."""
Edit = Mapping[str, Any]
"""An edit of a plan, see `penjing.network.edits.table`."""


class Pass(ABC):
    """One method of compression: a frozen dataclass whose fields are its options.

    `plan` looks and decides, `apply` only carries out, and calling the pass does both. The input
    network is never changed; that is checked.

    A pass says what it requires and provides, as class attributes, or as properties where that
    follows from its options. `plan` sees to what is required before any long step, and
    `penjing.passes.order` finds from both which orders of a recipe can't work.
    """

    @property
    def requires(self) -> frozenset[Condition]:
        """What must hold of the task, or else it is refused, and of the network, or else there is
        nothing to do."""
        return frozenset()

    @property
    def provides(self) -> frozenset[Condition]:
        """What holds of the network that it gives."""
        return frozenset()

    def plan(self, network: Network, task: Task) -> Plan:
        """Decide what to do; nothing is changed.

        The plan is empty, and says why, for a network of which what the pass requires doesn't hold.

        Raises:
            InputError: the task lacks what the pass requires, or as `decide`.
        """
        why = lacking(network, self.requires)
        if why is not None:
            return self._plan(left_alone=(why,))
        require_of_task(type(self).__name__, self.requires, network, task)
        return self.decide(network, task)

    @abstractmethod
    def decide(self, network: Network, task: Task) -> Plan:
        """The plan for a network and a task of which holds what the pass requires."""

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Carry out `plan` on a copy. Passes that train override this; the rest edit the graph."""
        return carry_out(network, plan)

    def __call__(self, network: Network, task: Task, progress: Progress | None = None) -> Network:
        """Plan, apply, and check that the input was left as it was."""
        before = _fingerprint(network)
        result = self.apply(network, self.plan(network, task), task, progress)
        if _fingerprint(network) != before:
            raise AssertionError(f"{type(self).__name__} changed its input network")
        return result

    def to_json(self) -> dict[str, Json]:
        """The name and the options; `penjing.trials.recipe.from_json` reads it back."""
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
        """A plan of this pass with these options; an empty one has no summary."""
        options = self.to_json()
        method = options.pop("method")
        summary = summary if edits or parts else ""
        return Plan(
            method, options, tuple(edits), summary, tuple(left_alone), tuple(notes), tuple(parts)
        )


def _fingerprint(network: Network) -> tuple[object, ...]:
    """Changes when a tensor is written in place, the graph is edited or the mode is switched."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return (
        network.training,
        len(network.history),
        tuple(str(node.args) for node in network.graph.nodes),
        tuple(
            (name, id(tensor), tensor._version, tensor.requires_grad) for name, tensor in tensors
        ),
    )
