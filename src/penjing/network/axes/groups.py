"""Groups: the axes of a network by name, and the tensors that shrink with each of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import nn

from penjing.contract import LeftAlone
from penjing.network.axes.algebra import Axis, Expression, Pin, leaves, resolve
from penjing.network.axes.rules import rule_of
from penjing.network.axes.trace import Trace, trace
from penjing.network.graph.network import Network


@dataclass(frozen=True)
class Site:
    """A dimension of a parameter or buffer that has an axis in it."""

    tensor: str
    dim: int
    expression: Expression


@dataclass(frozen=True)
class Group:
    """An axis with its name and the tensors that it touches.

    Attributes:
        name: the name of the layer whose output it is, such as `"layer1.0.conv1"`. An index follows
            if the axis is only a part of that output, as in `"attn.qkv[1]"`.
        axis: the axis.
        sites: the dimensions of parameters and buffers that shrink with it.
        reserved: why it only shrinks if it is asked for by name; empty if there is no such reason.
    """

    name: str
    axis: Axis
    sites: tuple[Site, ...]
    reserved: str = ""

    @property
    def size(self) -> int:
        """The number of indices of the axis."""
        return self.axis.size

    @property
    def pins(self) -> tuple[Pin, ...]:
        """The reasons why the axis can't shrink; empty if it can."""
        return tuple(self.axis.pins)

    @property
    def mixed(self) -> tuple[Pin, ...]:
        """The statistics that are computed over the axis, and that change when it shrinks."""
        return tuple(self.axis.mixed)

    @property
    def why_not(self) -> str:
        """Why the axis doesn't shrink where nobody asks for it; empty if it does."""
        if self.axis.pins:
            return str(self.axis.pins[0])
        if not self.reserved:
            return ""
        return f"{self.reserved}; it shrinks only if it is asked for by name"

    @property
    def able(self) -> bool:
        """Whether the axis can shrink, be it only if it is asked for by name."""
        return not self.axis.pins and self.axis.size > 1

    @property
    def free(self) -> bool:
        """Whether the axis can shrink without being asked for by name."""
        return self.able and not self.reserved


@dataclass(frozen=True)
class Axes(Mapping[str, Group]):
    """All axes that touch parameters: a mapping by name, in the order of the graph."""

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
        """The axes that can shrink, by name; without those that only do if asked for by name."""
        return {name: group for name, group in self.groups.items() if group.free}

    def left_alone(self) -> tuple[LeftAlone, ...]:
        """The axes that don't shrink, each with its first reason, and operators without a rule."""
        left = [
            LeftAlone(name, group.why_not)
            for name, group in self.groups.items()
            if group.why_not and group.size > 1
        ]
        return (*left, *(LeftAlone(name, str(why)) for name, why in self.trace.unknown.items()))


def find_axes(network: Network) -> Axes:
    """Find the axes of a network: the dimensions of its tensors that have to shrink together.

    An axis that shrinks takes the same indices from every tensor that it touches. An axis that
    can't shrink comes with the reasons. The result is a mapping from the name of an axis, such as
    `"layer1.0.conv1"`, to its `Group`.

    Args:
        network: the network.

    Returns:
        All axes that touch parameters; `Axes.free` has those that can shrink.

    Source: G. Fang, X. Ma, M. Song, M. B. Mi, X. Wang, "DepGraph: Towards Any Structural Pruning",
    2023, for dependency groups.

    >>> import penjing, torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 2))
    >>> axes = find_axes(penjing.capture(model, torch.zeros(2, 4)))
    >>> [(name, group.size) for name, group in axes.free.items()]
    [('0', 8)]
    >>> [(site.tensor, site.dim) for site in axes["0"].sites]
    [('0.weight', 0), ('0.bias', 0), ('1.weight', 1)]
    >>> str(axes["1"].pins[0])
    'it belongs to an output of the model'
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
            axis.pins.append(Pin("only constants have this dimension"))
        name = _name(axis, places)
        while name in groups:
            name += "'"
        groups[name] = Group(name, axis, tuple(places), _why_reserved(network, axis, places))
    return Axes(groups, traced)


def _why_reserved(network: Network, axis: Axis, places: list[Site]) -> str:
    """Why an axis keeps its size, unless asked, that holds the bins of a distribution.

    A detector may predict how likely each of 16 distances is: a softmax, then a sum weighted by the
    distances 0 to 15, which are constants. Without some bins, distances could no longer be told.
    """
    softmax = next((why for why in axis.mixed if "softmax" in why.why), None)
    fixed = [site.tensor for site in places if _is_fixed(network, site)]
    if softmax is None or not fixed:
        return ""
    why = f"it holds the bins of a distribution: the constants {fixed[0]} read a softmax over it"
    return str(Pin(why, softmax.node, softmax.source))


def _is_fixed(network: Network, site: Site) -> bool:
    """Whether a tensor isn't trained: a buffer, a frozen parameter beside others that aren't, or
    one whose values are evenly spaced, as no trained ones are."""
    tensor = network.tensor(site.tensor).detach()
    if not isinstance(network.tensor(site.tensor), nn.Parameter):
        return "running_" not in site.tensor
    trained = [parameter.requires_grad for parameter in network.parameters()]
    if any(trained) and not network.tensor(site.tensor).requires_grad:
        return True
    steps = tensor.movedim(site.dim, 0).diff(dim=0)
    return len(steps) > 1 and bool((steps == steps[0]).all()) and bool(steps.any())


def _name(axis: Axis, sites: list[Site]) -> str:
    """Name an axis after the first weight whose output it is, or the first tensor it touches."""
    weights = [site for site in sites if site.dim == 0 and site.tensor.endswith("weight")]
    site = (weights or sites)[0]
    name = site.tensor.removesuffix(".weight")
    if site.dim:
        name += f".in{site.dim if site.dim > 1 else ''}"
    parts = list(leaves(site.expression))
    return name if len(parts) == 1 else f"{name}[{parts.index(axis)}]"
