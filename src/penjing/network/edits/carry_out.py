"""Carrying out: a copy of a network with a plan's edits made."""

from __future__ import annotations

import copy
from typing import Any

from penjing.contract import Plan
from penjing.network.edits.allowed import require_fit, require_known, require_parts
from penjing.network.edits.table import EDITS
from penjing.network.graph.network import Network


def carry_out(network: Network, plan: Plan) -> Network:
    """A copy of `network` with the plan's edits made and the plan added to its history.

    The one way by which edits are made, so that no plan gets by unchecked.

    Raises:
        UnsafeError: an edit isn't one that there is, or it or a part is of another network
            (`penjing.network.edits.allowed`).
        InputError: an axis to shrink isn't there, or can't shrink.
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
