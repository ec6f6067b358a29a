"""The contract of a pass, and the check that every pass keeps it."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import asdict
from typing import ClassVar

from penjing.contract import Json, Plan
from penjing.network import Network, carry_out
from penjing.task import Task

Progress = Callable[[str, float], None]
"""Called with a line for people and the share done, 0..1."""


class Pass(ABC):
    """One method of compression: a frozen dataclass whose fields are its options.

    `plan` looks and decides, `apply` only carries out, and calling the pass does both. The input
    network is never changed; that is checked.

    Attributes:
        needs: what the task must bring, any of `"calibration"`, `"labels"`, `"gradients"`.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def plan(self, network: Network, task: Task) -> Plan:
        """Decide what to do; nothing is changed."""

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
        """The name and the options; `penjing.search.recipes.from_json` reads it back."""
        options = json.dumps(asdict(self))  # type: ignore[call-overload]
        return {"method": type(self).__name__, **json.loads(options)}


def _fingerprint(network: Network) -> tuple[object, ...]:
    """Changes when a tensor is written in place, the graph is edited or the mode is switched."""
    tensors = (*network.named_parameters(), *network.named_buffers())
    return (
        network.training,
        len(network.history),
        tuple(str(node.args) for node in network.graph.nodes),
        tuple((name, id(one), one._version, one.requires_grad) for name, one in tensors),
    )
