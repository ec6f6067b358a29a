"""Merge: similar channels and nodes become one, with no data."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Group, Network, find_axes
from penjing.network.axes import owners
from penjing.network.merge import readers
from penjing.passes.contract import Pass
from penjing.passes.importance import importances
from penjing.passes.widths import Widths, allowed
from penjing.task import Task

aten = torch.ops.aten
LAYERS = {
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default, aten.conv2d.padding,
    aten.linear.default,
}  # fmt: skip
HOMOGENEOUS = {
    aten.relu.default, aten.relu_.default, aten.max_pool2d.default, aten.avg_pool2d.default,
    aten.adaptive_avg_pool2d.default, aten.mean.dim, aten.dropout.default, aten.dropout_.default,
    aten.feature_dropout.default, aten.flatten.using_ints, aten.reshape.default,
    aten.squeeze.dims, aten.batch_norm.default,
}  # fmt: skip
"""Operators f with f(s x) = s f(x) for s > 0, channel by channel (a batch norm folds away)."""
SELECTIONS = ("similarity", "importance")


@dataclass(frozen=True)
class Merge(Pass):
    """Merge channels whose weights point the same way; the next layers take the scaled sum.

    With v_i = (w_i, b_i) the weights and bias of channel i, batch norm folded in, v_j stands for
    s v_i with s = <v_j, v_i> / |v_i|^2. As ReLU and pooling are positively homogeneous, adding
    s > 0 times what reads j to what reads i makes up for j exactly where v_j = s v_i. Axes written
    by more than one layer, or passed through anything else, are left alone and named.

    Attributes:
        ratio, ranking, keep, multiple, skip: as for `PruneChannels`.
        selection: which channels stay: `"similarity"` takes, one by one, the channel that makes
            all others best expressible (what is lost, weighted by how strongly it is read);
            `"importance"` takes the largest l2 norms.
        threshold: a channel whose cosine with the best match is below this is dropped unmerged.

    Raises:
        InputError: an option is out of range, or `skip` names nothing.

    Source: W. Kim, S. Kim, M. Park, G. Jeon, "Neuron Merging: Compensating for Pruned Neurons",
    2020; for choosing by clusters D. Wang et al., "Forget the Data and Fine-Tuning! Just Fold the
    Network to Compress", 2025.
    """

    ratio: float = 0.5
    ranking: str = "per-axis"
    keep: int = 1
    multiple: int = 1
    skip: tuple[str, ...] = ()
    selection: str = "similarity"
    threshold: float = 0.0

    needs: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        self._widths()
        if self.selection not in SELECTIONS:
            raise InputError(
                f"selection must be {' or '.join(SELECTIONS)}; found {self.selection!r}"
            )
        if not 0 <= self.threshold <= 1:
            raise InputError(f"threshold must be a cosine in [0, 1]; found {self.threshold}")
        object.__setattr__(self, "skip", tuple(self.skip))

    def plan(self, network: Network, task: Task) -> Plan:
        """For every axis that can be merged, which channel becomes part of which."""
        groups, left = allowed(find_axes(network), self.skip, skip_mixed=False)
        rows: dict[str, Tensor] = {}
        alone = list(left)
        for group in groups:
            found = _rows(network, group)
            if isinstance(found, str):
                alone.append(LeftAlone(group.name, found))
            else:
                rows[group.name] = found
        by_name = {group.name: group for group in groups if group.name in rows}
        scores = importances(network, by_name, "l2")
        counts = self._widths().counts(scores, by_name)
        axes = {
            name: self._assign(rows[name], _read(network, by_name[name]), scores[name], count)
            for name, count in counts.items()
            if count < len(scores[name])
        }
        edits = ({"edit": "merge", "axes": axes},) if axes else ()
        total = sum(len(one["gone"]) for one in axes.values())
        merged = sum(scale > 0 for one in axes.values() for scale in one["scale"])
        summary = f"{total} channels in {len(axes)} axes go, {merged} of them merged"
        options = asdict(self) | {"skip": list(self.skip)}
        name = type(self).__name__
        return Plan(name, options, edits, summary if axes else "", tuple(alone))

    def _assign(self, rows: Tensor, read: Tensor, score: Tensor, count: int) -> dict[str, Any]:
        """What goes, into what, and by which scale."""
        inner = rows @ rows.T
        norms = inner.diagonal().clamp_min(1e-30)
        scale = (inner / norms[None]).clamp_min(0.0)  # [j, i]: row j as so many times row i
        cosine = inner / (norms[:, None] * norms[None]).sqrt()
        scale = torch.where(cosine >= self.threshold, scale, 0.0)
        lost = norms[:, None] - 2 * scale * inner + scale.square() * norms[None]
        lost = lost.clamp_min(0.0) * read[:, None]
        if self.selection == "importance":
            keep = torch.topk(score, count).indices.tolist()
        else:
            keep = _best_representatives(lost, norms * read, count)
        gone = [index for index in range(len(rows)) if index not in set(keep)]
        chosen = torch.tensor(keep)
        into = chosen[lost[gone][:, chosen].argmin(1)].tolist()
        scales = [float(scale[j, i]) for j, i in zip(gone, into, strict=True)]
        return {"gone": gone, "into": into, "scale": scales}

    def _widths(self) -> Widths:
        return Widths(self.ratio, self.ranking, self.keep, self.multiple)


def _best_representatives(lost: Tensor, nothing: Tensor, count: int) -> list[int]:
    """Indices whose rows, as representatives, lose least; greedy, each the best next one."""
    keep: list[int] = []
    best = nothing.clone()
    for _ in range(count):
        gains = (best[:, None] - lost).clamp_min(0.0).sum(0)
        gains[keep] = -1.0
        keep.append(int(gains.argmax()))
        best = torch.minimum(best, lost[:, keep[-1]])
    return keep


def _rows(network: Network, group: Group) -> Tensor | str:
    """Weights and bias of each channel, batch norm folded in, (size, n); or why not."""
    weights = [
        site for site in group.sites if site.dim == 0 and network.tensor(site.tensor).dim() > 1
    ]
    if len(weights) != 1:
        return f"{len(weights)} layers write it"
    if weights[0].expression is not group.axis:
        return "it is only a part of a layer's output"
    nodes = [
        node
        for node in network.calls()
        if node.target in LAYERS
        and isinstance(node.args[1], fx.Node)
        and node.args[1].target == weights[0].tensor
    ]
    if len(nodes) != 1 or (len(nodes[0].args) > 6 and nodes[0].args[6] != 1):
        return "its layer is shared or grouped"
    norm: list[fx.Node] = []
    why = _homogeneous(nodes[0], {name for name, _, _ in readers(network, group)}, norm)
    if why or len(norm) > 1:
        return why or "more than one batch norm follows"
    weight = network.tensor(weights[0].tensor).detach().double().flatten(1)
    bias = torch.zeros(len(weight), dtype=torch.float64)
    if len(nodes[0].args) > 2 and isinstance(nodes[0].args[2], fx.Node):
        bias = network.tensor(str(nodes[0].args[2].target)).detach().double()
    if norm:
        gamma, beta, mean, variance = (
            None if one is None else network.tensor(str(cast(fx.Node, one).target)).detach()
            for one in norm[0].args[1:5]
        )
        if gamma is None or beta is None or mean is None or variance is None:
            return "its batch norm has no weights or statistics"
        factor = gamma.double() / (variance.double() + float(cast(float, norm[0].args[7]))).sqrt()
        weight, bias = weight * factor[:, None], beta.double() + (bias - mean.double()) * factor
    return torch.cat([weight, bias[:, None]], 1)


def _homogeneous(start: fx.Node, known: set[str], norms: list[fx.Node]) -> str | None:
    """Why what happens between the layer and its readers isn't homogeneous; None if it is."""
    waiting, seen = list(start.users), {start}
    while waiting:
        node = waiting.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.target in LAYERS:
            if cast(fx.Node, node.args[1]).target not in known:
                return f"{node.name} reads it in another way"
            continue
        if node.target not in HOMOGENEOUS:
            return f"{str(node.target).removeprefix('aten.')} is not positively homogeneous"
        if node.target is aten.batch_norm.default:
            if cast(fx.Node, node.args[0]) is not start:
                return "a batch norm comes after another operator"
            norms.append(node)
        waiting += list(node.users)
    return None


def _read(network: Network, group: Group) -> Tensor:
    """How strongly each index is read: the summed squares of the weights that read it."""
    total = torch.zeros(group.size, dtype=torch.float64)
    for name, dim, expression in readers(network, group):
        weight = network.tensor(name).detach().double()
        squares = weight.square().sum([one for one in range(weight.dim()) if one != dim])
        owner = torch.from_numpy(owners(expression, group.axis))
        total.index_add_(0, owner[owner >= 0], squares[owner >= 0])
    return total
