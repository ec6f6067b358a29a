"""Edits: the few things that can be done to a network's graph, as plain data.

An edit is a mapping `{"edit": name, ...}`; `EDITS` names the function that carries it out. Passes
only decide; that is why a saved network can be restored by replaying its plans.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from penjing.contract import Plan
from penjing.network.edits.allowed import require_fit, require_form, require_parts
from penjing.network.edits.fake_quantize import fake_quantize, give_bias
from penjing.network.edits.fold import fold_batch_norm, pool_means, split_silu
from penjing.network.edits.scaling import lift_bounds, scale_channels
from penjing.network.edits.shrink import shrink
from penjing.network.edits.sub_integers import binarize, sign_inputs, ternarize
from penjing.network.graph.network import Network
from penjing.network.study.saturation import fix_overflow

EDITS: dict[str, Callable[..., None]] = {
    "shrink": shrink,
    "fold_batch_norm": fold_batch_norm,
    "pool_means": pool_means,
    "split_silu": split_silu,
    "fake_quantize": fake_quantize,
    "fix_overflow": fix_overflow,
    "ternarize": ternarize,
    "sign_inputs": sign_inputs,
    "binarize": binarize,
    "give_bias": give_bias,
    "lift_bounds": lift_bounds,
    "scale_channels": scale_channels,
}
"""Name of an edit to the function (network, **parameters) that changes a network in place."""


def carry_out(network: Network, plan: Plan) -> Network:
    """A copy of `network` with the plan's edits made and the plan added to its history.

    The one place where a network is copied to be edited, and where plans are let through.

    Raises:
        UnsafeError: an edit isn't one that there is, or it or a part is of another network
            (`penjing.network.edits.allowed`).
        InputError: an axis to shrink isn't there, or can't shrink.
    """
    require_form(plan)
    new = copy.deepcopy(network)
    for edit in plan.edits:
        require_fit(new, edit)
        parameters: dict[str, Any] = dict(edit)
        EDITS[parameters.pop("edit")](new, **parameters)
        new.compile_graph()
    require_parts(new, plan)
    new.history = (*network.history, plan)
    return new
