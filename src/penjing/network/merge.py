"""Merge: some indices of an axis become part of others, and what reads them takes the sum."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from penjing.errors import InputError
from penjing.network.axes import owners
from penjing.network.groups import Group, find_axes
from penjing.network.network import Network
from penjing.network.shrink import shrink


def merge(network: Network, axes: Mapping[str, Mapping[str, Sequence[Any]]]) -> None:
    """Merge indices of each named axis in place, then drop them.

    Where a layer reads index g, its weights times a scale are added to those with which it reads
    index t: w_t += s w_g. That is exact where the value at g is s times the value at t.

    Args:
        axes: name of an axis to `{"gone": [g, ..], "into": [t, ..], "scale": [s, ..]}`; what isn't
            gone stays.

    Raises:
        InputError: an axis doesn't exist or can't shrink, or an index is merged into one that goes.
    """
    found = find_axes(network)
    keep = {}
    for name, what in axes.items():
        if name not in found:
            raise InputError(f"no axis {name!r} in this network; there are {', '.join(found)}")
        group, gone, into = found[name], list(what["gone"]), list(what["into"])
        if set(gone) & set(into) or not len(gone) == len(into) == len(what["scale"]):
            raise InputError(f"axis {name!r}: an index is merged into one that goes itself")
        keep[name] = [index for index in range(group.size) if index not in set(gone)]
        with torch.no_grad():
            for site in readers(network, group):
                _add(network, group, site, what)
    shrink(network, keep)


def readers(network: Network, group: Group) -> list[tuple[str, int, Any]]:
    """Where layers read the axis: tensor, dimension and expression of their weights' inputs."""
    parameters = dict(network.named_parameters())
    return [
        (site.tensor, site.dim, site.expression)
        for site in group.sites
        if site.dim == 1 and site.tensor in parameters and parameters[site.tensor].dim() > 1
    ]


def _add(
    network: Network, group: Group, site: tuple[str, int, Any], what: Mapping[str, Sequence[Any]]
) -> None:
    name, dim, expression = site
    weight, owner = network.tensor(name), owners(expression, group.axis)
    places = [torch.from_numpy(np.flatnonzero(owner == index)) for index in range(group.size)]
    for gone, into, scale in zip(what["gone"], what["into"], what["scale"], strict=True):
        part = weight.index_select(dim, places[gone]) * scale
        weight.index_add_(dim, places[into], part)
