"""Lineage: which indices of the original's tensors a cut network still has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.contract import Plan
from penjing.network.axes import kept
from penjing.network.edit import carry_out
from penjing.network.groups import find_axes
from penjing.network.network import Network

CUTS = ("shrink", "merge")
"""Edits that take indices away."""
Indices = dict[str, list[list[int]]]
"""By tensor, for each of its dimensions, the original's indices that are left."""


def surviving(original: Network, plans: Sequence[Plan]) -> Indices:
    """The indices that are left of every tensor of `original` once the plans are carried out."""
    found = {
        name: [list(range(size)) for size in tensor.shape]
        for name, tensor in original.state_dict().items()
    }
    current = original
    for plan in plans:
        for edit in plan.edits:
            if edit["edit"] in CUTS:
                axes = find_axes(current)
                keep = {
                    axes[name].axis: _kept(what, axes[name].size)
                    for name, what in edit["axes"].items()
                }
                for name, dims in axes.trace.tensors.items():
                    for dim, expression in enumerate(dims):
                        left = kept(expression, keep)
                        found[name][dim] = [found[name][dim][index] for index in left]
        current = carry_out(current, plan)
    return found


def _kept(what: Any, size: int) -> list[int]:
    """The indices that an edit keeps of an axis."""
    if isinstance(what, Mapping):
        gone = set(what["gone"])
        return [index for index in range(size) if index not in gone]
    return list(what)
