"""Table: the edits that a plan can make, with the checks of their parameters.

An edit is a mapping `{"edit": name, ...}` whose other keys are its parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from penjing.network.edits.bypass import bypass
from penjing.network.edits.checking import checks, fitting
from penjing.network.edits.factorize import factorize
from penjing.network.edits.fake_quantize import fake_quantize, give_bias
from penjing.network.edits.fold import fold_batch_norm, pool_means, split_silu
from penjing.network.edits.fuse import fuse
from penjing.network.edits.hold import hold
from penjing.network.edits.leave_out import leave_out
from penjing.network.edits.overflow import fix_overflow
from penjing.network.edits.round_tensors import round_tensors
from penjing.network.edits.scaling import lift_bounds, scale_channels
from penjing.network.edits.shrink import shrink
from penjing.network.edits.sub_integers import binarize, sign_inputs, ternarize


@dataclass(frozen=True)
class Edit:
    """One kind of edit.

    Attributes:
        make: changes a network in place: (network, **parameters).
        checks: the check of each parameter; all of them must be given.
        misfit: says which parameter doesn't fit a network: (network, nodes by name, **parameters).
            None if the parameters name no nodes, or if `make` checks them itself.
        reduces: whether it makes the structure smaller, so that `Compensate` has something to do.
    """

    make: Callable[..., None]
    checks: Mapping[str, checks.Check] = field(default_factory=dict)
    misfit: Callable[..., str] | None = None
    reduces: bool = False


EDITS: dict[str, Edit] = {
    "shrink": Edit(shrink, {"axes": checks.axes}, reduces=True),
    "bypass": Edit(
        bypass, {"values": checks.names_by_name, "maps": checks.names}, fitting.bypass, reduces=True
    ),
    "factorize": Edit(
        factorize, {"layers": checks.layers_factorized}, fitting.factorize, reduces=True
    ),
    "fold_batch_norm": Edit(fold_batch_norm),
    "fuse": Edit(
        fuse, {"layers": checks.names_by_name, "front": checks.flag}, fitting.fuse, reduces=True
    ),
    "leave_out": Edit(leave_out, {"values": checks.names}, reduces=True),
    "pool_means": Edit(pool_means),
    "split_silu": Edit(split_silu),
    "fake_quantize": Edit(
        fake_quantize,
        {"activations": checks.value_qparams, "weights": checks.weight_qparams},
        fitting.fake_quantize,
    ),
    "fix_overflow": Edit(fix_overflow),
    "round_tensors": Edit(round_tensors, {"tensors": checks.weight_qparams}, fitting.round_tensors),
    "ternarize": Edit(
        ternarize,
        {"layers": checks.names, "scales": checks.scales_of_signs, "threshold": checks.threshold},
        fitting.ternarize,
    ),
    "sign_inputs": Edit(
        sign_inputs,
        {
            "layers": checks.names_by_name,
            "dropped": checks.names,
            "learned": checks.flag,
            "shortcuts": checks.names,
        },
        fitting.sign_inputs,
    ),
    "binarize": Edit(binarize, {"layers": checks.names}, fitting.binarize),
    "give_bias": Edit(give_bias, {"layers": checks.names}, fitting.give_bias),
    "lift_bounds": Edit(lift_bounds, {"nodes": checks.names}, fitting.lift_bounds),
    "hold": Edit(hold, {"tensors": checks.holds}, fitting.hold, reduces=True),
    "scale_channels": Edit(scale_channels, {"scales": checks.factors}, fitting.scale_channels),
}
"""All edits by name."""
