"""Shrink: keep some indices of some axes, everywhere at once; and its proof, masking."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from penjing.errors import InputError
from penjing.network.axes import Axis, kept
from penjing.network.groups import Axes, find_axes
from penjing.network.network import Network
from penjing.network.trace import Spelling


def shrink(network: Network, axes: Mapping[str, list[int]]) -> None:
    """Keep the given indices of each named axis and drop the rest, in place.

    Every parameter dimension in which an axis takes part is index-selected, and every constant of
    the graph that spells a size is rewritten.

    Args:
        axes: name of an axis (`find_axes`) to the indices that stay, ascending.

    Raises:
        InputError: an axis doesn't exist, can't shrink, or nothing of it would be left.
    """
    found = find_axes(network)
    keep = _checked(found, axes)
    with torch.no_grad():
        for name, dims in found.trace.tensors.items():
            tensor = network.tensor(name)
            for dim, expression in enumerate(dims):
                index = kept(expression, keep)
                if len(index) < tensor.shape[dim]:
                    tensor = tensor.index_select(dim, torch.tensor(index, device=tensor.device))
            if tensor is not network.tensor(name):
                _replace(network, name, tensor)
    for spelling in found.trace.spellings:
        _rewrite(spelling, sum(len(kept(one, keep)) for one in spelling.sizes))


def mask(network: Network, axes: Mapping[str, list[int]]) -> Network:
    """A copy of full size in which what `shrink` would drop is silenced: its weights are zero.

    Where no statistic is computed over a dropped axis, its outputs equal the shrunk network's.
    """
    found = find_axes(network)
    keep = _checked(found, axes)
    silent = copy.deepcopy(network)
    parameters = dict(silent.named_parameters())
    with torch.no_grad():
        for name, dims in found.trace.tensors.items():
            for dim, expression in enumerate(dims):
                if name in parameters:
                    gone = sorted(
                        set(range(parameters[name].shape[dim])) - set(kept(expression, keep))
                    )
                    parameters[name].index_fill_(dim, torch.tensor(gone, dtype=torch.long), 0.0)
    return silent


def _checked(found: Axes, axes: Mapping[str, list[int]]) -> dict[Axis, list[int]]:
    keep: dict[Axis, list[int]] = {}
    for name, index in axes.items():
        if name not in found:
            raise InputError(f"no axis {name!r} in this network; there are {', '.join(found)}")
        group = found[name]
        if group.pins:
            raise InputError(f"axis {name!r} can't shrink: {group.pins[0]}")
        if not index or min(index) < 0 or max(index) >= group.size:
            raise InputError(
                f"axis {name!r} of size {group.size}: the indices to keep must be one or more "
                f"of 0..{group.size - 1}; found {list(index)[:8]}"
            )
        keep[group.axis] = sorted(set(index))
    return keep


def _replace(network: Network, name: str, tensor: torch.Tensor) -> None:
    path, _, leaf = name.rpartition(".")
    owner = network.get_submodule(path)
    old = getattr(owner, leaf)
    if isinstance(old, torch.nn.Parameter):
        tensor = torch.nn.Parameter(tensor.detach().clone(), requires_grad=old.requires_grad)
    if leaf in owner._parameters or leaf in owner._buffers:
        setattr(owner, leaf, tensor)
    else:
        object.__setattr__(owner, leaf, tensor)


def _rewrite(spelling: Spelling, value: int) -> None:
    node, (first, *rest) = spelling.node, spelling.path
    old: Any = node.kwargs[first] if isinstance(first, str) else node.args[first]
    new: Any = value
    if rest:
        new = list(old)
        new[rest[0]] = value
    if isinstance(first, str):
        node.update_kwarg(first, new)
    else:
        node.update_arg(first, new)
