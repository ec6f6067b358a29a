"""Shrink: keep some indices of some axes in all tensors at once, and `mask` to verify it."""

from __future__ import annotations

import copy
from collections.abc import Mapping

import torch

from penjing.errors import InputError
from penjing.network.axes.algebra import Axis, kept
from penjing.network.axes.groups import Axes, find_axes
from penjing.network.axes.sizes import rewrite
from penjing.network.graph.network import Network
from penjing.network.graph.places import names_by_tensor, place_of

SILENT = 1e-12


def shrink(network: Network, axes: Mapping[str, list[int]]) -> None:
    """Keep the given indices of each named axis and remove the rest, in place.

    Every dimension of a parameter that has the axis is index-selected. Every size in the arguments
    of the graph is rewritten.

    Args:
        network: the network.
        axes: by name of an axis (`find_axes`), the indices that stay, in ascending order.

    Raises:
        InputError: an axis doesn't exist or can't shrink, or no valid index of it would stay.
    """
    all_axes = find_axes(network)
    take(network, all_axes, _checked(all_axes, axes))


def take(network: Network, all_axes: Axes, keep: Mapping[Axis, list[int]]) -> None:
    """Keep the given indices of each axis in all tensors and arguments, in place."""
    names = names_by_tensor(network)
    with torch.no_grad():
        for name, dims in all_axes.trace.tensors.items():
            old = tensor = network.tensor(name)
            for dim, expression in enumerate(dims):
                index = kept(expression, keep)
                if len(index) < tensor.shape[dim]:
                    tensor = tensor.index_select(
                        dim, torch.tensor(index, dtype=torch.long, device=tensor.device)
                    )
            if tensor is not old:
                if isinstance(old, torch.nn.Parameter):
                    tensor = torch.nn.Parameter(tensor.clone(), requires_grad=old.requires_grad)
                for tied in names[id(old)]:
                    place_of(network, tied).replace(tensor)
    rewrite(all_axes.trace, keep)


def mask(network: Network, axes: Mapping[str, list[int]]) -> Network:
    """A copy of full size in which the weights that `shrink` would remove are almost zero.

    They aren't exactly zero, because weight norm would divide zero by zero. If no statistic is
    computed over a removed index, the outputs equal those of the shrunk network.
    """
    all_axes = find_axes(network)
    keep = _checked(all_axes, axes)
    silent = copy.deepcopy(network)
    parameters = dict(silent.named_parameters())
    with torch.no_grad():
        for name, dims in all_axes.trace.tensors.items():
            for dim, expression in enumerate(dims):
                if name in parameters:
                    gone = sorted(
                        set(range(parameters[name].shape[dim])) - set(kept(expression, keep))
                    )
                    parameters[name].index_fill_(dim, torch.tensor(gone, dtype=torch.long), SILENT)
    return silent


def _checked(all_axes: Axes, axes: Mapping[str, list[int]]) -> dict[Axis, list[int]]:
    keep: dict[Axis, list[int]] = {}
    for name, index in axes.items():
        if name not in all_axes:
            raise InputError(f"this network has no axis {name!r}; it has {', '.join(all_axes)}")
        group = all_axes[name]
        if group.pins:
            raise InputError(f"axis {name!r} can't shrink: {group.pins[0]}")
        if not index or min(index) < 0 or max(index) >= group.size:
            raise InputError(
                f"axis {name!r} of size {group.size} must keep one or more of the indices "
                f"0..{group.size - 1}; found {list(index)[:8]}"
            )
        keep[group.axis] = sorted(set(index))
    return keep
