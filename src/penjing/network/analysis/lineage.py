"""Lineage: the indices of the original's tensors that a pruned network still has."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.contract import Plan
from penjing.network.axes.algebra import kept
from penjing.network.axes.groups import find_axes
from penjing.network.edits.carry_out import carry_out
from penjing.network.graph.network import Network

Indices = dict[str, list[list[int]]]
"""By name of a tensor, the original indices that are left in each of its dimensions.

A dimension that an edit has made anew counts from 0.
"""


def surviving(original: Network, plans: Sequence[Plan]) -> Indices:
    """The indices of every tensor of `original` that are left after the plans."""
    indices = {
        name: [list(range(size)) for size in tensor.shape]
        for name, tensor in (*original.named_parameters(), *original.named_buffers())
    }
    current = original
    for plan in plans:
        for edit in plan.edits:
            if edit["edit"] == "shrink":
                axes = find_axes(current)
                keep = {axes[name].axis: list(what) for name, what in edit["axes"].items()}
                for name, dims in axes.trace.tensors.items():
                    for dim, expression in enumerate(dims):
                        left = kept(expression, keep)
                        indices[name][dim] = [indices[name][dim][index] for index in left]
        current = carry_out(current, plan)
        for name, tensor in (*current.named_parameters(), *current.named_buffers()):
            old = indices.get(name, [])
            indices[name] = [
                old[dim] if dim < len(old) and len(old[dim]) == size else list(range(size))
                for dim, size in enumerate(tensor.shape)
            ]
    return indices
