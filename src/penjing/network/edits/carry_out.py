"""Carry out: make the edits of a plan on a copy of a network."""

from __future__ import annotations

import copy
from typing import Any

from penjing.contract import Plan
from penjing.network.edits.checking.allowed import require_fit, require_known, require_parts
from penjing.network.edits.table import EDITS
from penjing.network.graph.network import Network


def carry_out(network: Network, plan: Plan) -> Network:
    """Make the edits of a plan on a copy of a network, and add the plan to the copy's history.

    Every edit is made by this function, so no plan escapes the checks.

    Args:
        network: the network, which stays unchanged.
        plan: the plan.

    Raises:
        UnsafeError: an edit is unknown, or an edit or a part of the plan doesn't fit the network
            (`penjing.network.edits.checking.allowed`).
        InputError: an axis to shrink doesn't exist, or can't shrink.
    """
    require_known(plan)
    new = copy.deepcopy(network)
    for edit in plan.edits:
        require_fit(new, edit)
        parameters: dict[str, Any] = dict(edit)
        EDITS[parameters.pop("edit")].make(new, **parameters)
        new.compile_graph()
    require_parts(new, plan)
    new.history = (*network.history, plan)
    return new
