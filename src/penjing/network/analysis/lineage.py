"""Lineage: the indices of the original's tensors that a pruned network still has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.contract import Plan
from penjing.network.analysis.blocks import without
from penjing.network.axes.algebra import Axis, kept
from penjing.network.axes.groups import Axes, find_axes
from penjing.network.edits.carry_out import carry_out
from penjing.network.graph.network import Network

Indices = dict[str, list[list[int]]]
"""By name of a tensor, the original indices that are left in each of its dimensions.

A dimension that an edit has made anew counts from 0.
"""


def all_indices(network: Network) -> Indices:
    """The indices of every tensor of a network, before anything has gone."""
    return indices_of(network, {})


def surviving(original: Network, plans: Sequence[Plan]) -> Indices:
    """The indices of every tensor of `original` that are left after the plans."""
    indices = all_indices(original)
    current = original
    for plan in plans:
        for edit in plan.edits:
            if edit["edit"] in ("shrink", "leave_out"):
                indices = indices_after(find_axes(current), edit, indices)
        current = carry_out(current, plan)
        indices = indices_of(current, indices)
    return indices


def indices_of(network: Network, known: Indices) -> Indices:
    """The indices of every tensor that a network has: those that are known, where they fit."""
    indices = dict(known)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        old = indices.get(name, [])
        indices[name] = [
            old[dim] if dim < len(old) and len(old[dim]) == size else list(range(size))
            for dim, size in enumerate(tensor.shape)
        ]
    return indices


def indices_after(axes: Axes, edit: Mapping[str, Any], indices: Indices) -> Indices:
    """The indices that are left after an edit that takes indices away.

    Args:
        axes: of the network before the edit.
        edit: `"shrink"` or `"leave_out"`.
        indices: what was left before it.
    """
    keep = _keep(axes, edit)
    left = {name: list(dims) for name, dims in indices.items()}
    for name, expressions in axes.trace.tensors.items():
        for dim, expression in enumerate(expressions):
            left[name][dim] = [indices[name][dim][index] for index in kept(expression, keep)]
    return left


def _keep(axes: Axes, edit: Mapping[str, Any]) -> dict[Axis, list[int]]:
    """By axis, the indices that stay."""
    if edit["edit"] == "shrink":
        return {axes[name].axis: list(what) for name, what in edit["axes"].items()}
    nodes = {node.name: node for node in axes.trace.network.graph.nodes}
    keep: dict[Axis, list[int]] = {}
    for name in edit["values"]:
        keep |= without(axes, nodes[name]) or {}
    return keep
