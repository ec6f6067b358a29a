"""Groups: the axes of a network that can shrink, by name, and all that shrinks with each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from penjing.contract import LeftAlone
from penjing.network.axes.algebra import Axis, Expression, Pin, leaves, resolve
from penjing.network.axes.rules import rule_of
from penjing.network.axes.trace import Trace, trace
from penjing.network.graph.network import Network


@dataclass(frozen=True)
class Site:
    """A dimension of a parameter or buffer in which an axis takes part."""

    tensor: str
    dim: int
    expression: Expression


@dataclass(frozen=True)
class Group:
    """An axis with a name and the tensors that it touches.

    Attributes:
        name: the layer whose output it is (`"layer1.0.conv1"`), with the place within that
            dimension where it is only a part of it (`"attn.qkv[1]"`).
        sites: the parameter dimensions that shrink with it.
    """

    name: str
    axis: Axis
    sites: tuple[Site, ...]

    @property
    def size(self) -> int:
        """How many indices the axis has."""
        return self.axis.size

    @property
    def pins(self) -> tuple[Pin, ...]:
        """Why it can't shrink; empty if it can."""
        return tuple(self.axis.pins)

    @property
    def mixed(self) -> tuple[Pin, ...]:
        """Statistics that are computed over it, which shrinking changes."""
        return tuple(self.axis.mixed)

    @property
    def free(self) -> bool:
        """Whether it can shrink."""
        return not self.axis.pins and self.axis.size > 1


@dataclass(frozen=True)
class Axes(Mapping[str, Group]):
    """All axes that touch parameters, by name; a mapping, in the order of the graph."""

    groups: Mapping[str, Group]
    trace: Trace

    def __getitem__(self, name: str) -> Group:
        return self.groups[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.groups)

    def __len__(self) -> int:
        return len(self.groups)

    @property
    def free(self) -> dict[str, Group]:
        """Those that can shrink."""
        return {name: group for name, group in self.groups.items() if group.free}

    def pinned(self) -> tuple[LeftAlone, ...]:
        """Those that can't, each with its first reason, and operators that have no rule."""
        left = [
            LeftAlone(name, str(group.pins[0]))
            for name, group in self.groups.items()
            if group.pins and group.size > 1
        ]
        return (*left, *(LeftAlone(name, str(why)) for name, why in self.trace.unknown.items()))


def find_axes(network: Network) -> Axes:
    """The axes of a network: what shrinks together, and what can't and why.

    >>> import torch
    >>> from penjing.network import capture
    >>> two = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> [name for name in find_axes(capture(two, torch.zeros(2, 4))).free]
    ['0']
    """
    traced = trace(network, rule_of)
    parameters = {name for name, _ in network.named_parameters()}
    sites: dict[Axis, list[Site]] = {}
    for tensor, dims in traced.tensors.items():
        for position, dim in enumerate(dims):
            for axis in dict.fromkeys(leaves(dim)):
                sites.setdefault(axis, []).append(Site(tensor, position, resolve(dim)))
    groups: dict[str, Group] = {}
    for axis, places in sites.items():
        if not any(site.tensor in parameters for site in places):
            axis.pins.append(Pin("only constants have it"))
        name = _name(axis, places)
        while name in groups:
            name += "'"
        groups[name] = Group(name, axis, tuple(places))
    return Axes(groups, traced)


def _name(axis: Axis, sites: list[Site]) -> str:
    """After the first weight whose output it is, else the first tensor it touches."""
    weights = [site for site in sites if site.dim == 0 and site.tensor.endswith("weight")]
    site = (weights or sites)[0]
    name = site.tensor.removesuffix(".weight")
    if site.dim:
        name += f".in{site.dim if site.dim > 1 else ''}"
    parts = list(leaves(site.expression))
    return name if len(parts) == 1 else f"{name}[{parts.index(axis)}]"
