"""Merge: write combinations of an axis' indices into the layers that read the axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, fx

from penjing.network.axes.algebra import owners
from penjing.network.axes.groups import Group, Site
from penjing.network.graph.batch_norm import BatchNorm, batch_norm_of
from penjing.network.graph.layers import Layer
from penjing.network.graph.network import Network

aten = torch.ops.aten


class Combination(NamedTuple):
    """z ~ weights z_keep + shift, for the values z_n of an axis.

    Attributes:
        keep: the indices that stay, in ascending order.
        weights: the matrix, (n, len(keep)).
        shift: the offset, (n,).
    """

    keep: list[int]
    weights: Tensor
    shift: Tensor


def merge(
    network: Network,
    group: Group,
    readers: Sequence[tuple[fx.Node, Site]],
    made: Combination,
    variance_left: Sequence[Tensor],
) -> None:
    """Write a combination into each reader, in place; removed indices then have weight zero.

    A reader w z becomes (w A) z_keep. Its bias, or the mean of the batch norm behind it, takes
    w shift.

    Args:
        network: the network.
        group: the axis.
        readers: the layers that read the axis, and where in their weights.
        made: the combination.
        variance_left: by reader, the share of each output's variance that is left, by which the
            variance of the batch norm is multiplied; or an empty tensor.
    """
    weights = {site.tensor: read_by_index(network, group, site) for _, site in readers}
    moved: set[Tensor] = set()
    with torch.no_grad():
        for (node, site), left in zip(readers, variance_left, strict=True):
            total = torch.einsum("on...,n->o...", weights[site.tensor], made.shift)
            _shift(network, node, total.flatten(1).sum(1), left, moved)
        for site in {site.tensor: site for _, site in readers}.values():
            taken = torch.einsum("on...,nt->ot...", weights[site.tensor], made.weights)
            weight, places = network.tensor(site.tensor), _places(group, site)
            weight[:, places.flatten()] = 0.0
            weight[:, places[made.keep].flatten()] = taken.flatten(1, 2).to(weight.dtype)


def read_by_index(network: Network, group: Group, site: Site) -> Tensor:
    """The weights that read each index of an axis: w_OI.. as (O, n, m, ..), float64."""
    places = _places(group, site)
    weight = network.tensor(site.tensor).detach().double()
    return weight[:, places.flatten()].reshape(len(weight), *places.shape, *weight.shape[2:])


def _places(group: Group, site: Site) -> Tensor:
    """The places of each index of the axis in the site's dimension, (n, m)."""
    owner = owners(site.expression, group.axis)
    places = [np.flatnonzero(owner == index) for index in range(group.size)]
    return torch.from_numpy(np.stack(places))


def takes_shift(network: Network, reader: fx.Node) -> bool:
    """Whether the reader's bias, or a batch norm behind it, can take a constant."""
    return _norm_behind(network, reader) is not None or _bias_of(network, reader) is not None


def _shift(
    network: Network, reader: fx.Node, shift: Tensor, left: Tensor, moved: set[Tensor]
) -> None:
    """Add a shift to a reader's output, if its bias or a batch norm can take it; each only once."""
    norm = _norm_behind(network, reader)
    taker = _bias_of(network, reader) if norm is None else norm.mean
    if taker is None or taker in moved:
        return
    moved.add(taker)
    taker.add_(shift if norm is None else -shift)
    if norm is not None and len(left):
        norm.variance.mul_(left)


def _norm_behind(network: Network, reader: fx.Node) -> BatchNorm | None:
    """The batch norm that is the only reader of the output, if it has running statistics."""
    users = list(reader.users)
    if len(users) != 1 or users[0].target is not aten.batch_norm.default:
        return None
    return batch_norm_of(network, users[0])


def _bias_of(network: Network, reader: fx.Node) -> Tensor | None:
    bias = Layer(reader).bias
    return None if bias is None else network.tensor(str(bias.target))
