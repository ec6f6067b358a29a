"""Factor fit: the second moments of a layer's inputs, and the factors that fit them best."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from penjing.arith.kernel_factors import composed, rebalanced, split
from penjing.arith.least_squares import NormalEquations
from penjing.arith.low_rank import RIDGE, balanced, principal
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.rows import sampled
from penjing.network.graph.batch_norm import BatchNorm, batch_norm_of
from penjing.network.graph.layers import Layer
from penjing.network.graph.qparams import own_bias

aten = torch.ops.aten
ROWS = 20_000
"""How many positions of all samples enter a second moment at most."""
MOST_PRODUCTS = 4e11
"""Multiplications for one second moment: half a minute. Beyond it, fewer rows are used."""
SMALLEST_GAIN = 1e-3
"""The least that the errors of a channel count, relative to the channel that counts most."""


@dataclass(frozen=True)
class _Shift:
    """What can take a constant that is added to a layer's output: its bias, or a batch norm.

    Attributes:
        norm: the batch norm with running statistics that is the only reader of the layer, or None.
        bias: the bias that only this layer has, or None.
    """

    norm: BatchNorm | None
    bias: Tensor | None

    @classmethod
    def behind(cls, network: Network, node: fx.Node) -> _Shift:
        """What is there for a layer."""
        users, norm = list(node.users), None
        if len(users) == 1 and users[0].target is aten.batch_norm.default:
            norm = batch_norm_of(network, users[0])
        bias = own_bias(node)
        return cls(norm, None if bias is None else network.tensor(str(bias.target)))

    @property
    def there(self) -> bool:
        """Whether a constant can be added."""
        return self.norm is not None or self.bias is not None

    def gains(self, outputs: int) -> Tensor:
        """By how much each channel's errors are scaled, (O, 1), float64."""
        if self.norm is None:
            return torch.ones(outputs, 1, dtype=torch.float64)
        gain = self.norm.gain.abs().cpu()
        return gain.clamp_min(SMALLEST_GAIN * float(gain.max()) + 1e-30)[:, None]

    def add(self, values: Tensor) -> None:
        """Add a constant to each channel of the output."""
        if self.bias is not None:
            self.bias.add_(values.to(self.bias))
        elif self.norm is not None:
            self.norm.mean.sub_(values.to(self.norm.mean))


def weight_and_moment(
    cache: ActivationCache, node: fx.Node, draw: torch.Generator
) -> tuple[Tensor, Tensor]:
    """The weight of a layer, with each output scaled as the batch norm behind it scales its errors,
    and the second moment of the inputs, centred if something can take the mean."""
    weight = cache.network.tensor(Layer(node).weight_name)
    system = NormalEquations(weight[0].numel(), 0)
    for x, y in zip(cache.value(Layer(node).data), cache.value(node), strict=True):
        rows, _ = sampled(node, weight, x, y, _per_batch(weight, cache), draw)
        system.add(rows, rows[:, :0])
    shift = _Shift.behind(cache.network, node)
    matrix = weight.double().cpu()
    gains = shift.gains(len(matrix))
    scaled = (matrix.flatten(1) * gains).view_as(matrix)
    return scaled, _moment(system, shift.there)


def fit(
    nodes: Sequence[fx.Node],
    original: ActivationCache,
    student: ActivationCache,
    by_outputs: bool,
    draw: torch.Generator,
) -> None:
    """Write the factors of a layer that reproduce its outputs best, in place.

    With the outputs y of the original and the inputs x that the first factor has now, the matrix
    w + E[(y - w x) x^T] S^-1 fits y best. The factors are the best ones of this matrix.

    Args:
        nodes: the factors, in order. The last has the name of the layer in the original.
        original: the activations of the network before.
        student: the activations of the network that has the factors.
        by_outputs: keep the principal components of y instead of what the inputs can explain best.
        draw: draws the positions to use.
    """
    last, network = nodes[-1], student.network
    node = original.nodes[last.name]
    weight = original.network.tensor(Layer(node).weight_name)
    shift = _Shift.behind(network, last)
    system, outputs = _sums(nodes, node, original, student, draw, by_outputs)
    change, offset = system.solve(RIDGE, shift.there)
    gains = shift.gains(len(weight))
    target = weight.double().cpu().flatten(1) + change
    scaled, moment = (target * gains).view_as(weight.double()), _moment(system, shift.there)
    old = [network.tensor(Layer(part).weight_name) for part in nodes]
    scheme = _scheme(old)
    if by_outputs:
        rank = len(old[0])
        directions = principal(_moment(outputs, True) * gains * gains.T, rank)
        left, right = balanced(directions, directions.T @ scaled.flatten(1))
        parts = [right.view(old[0].shape), left.view(old[1].shape)]
    else:
        ranks = [len(part) for part in old[:-1]]
        parts = list(split(scheme, scaled, ranks, moment))
    parts[-1] = (parts[-1].flatten(1) / gains).view_as(parts[-1])
    parts = list(rebalanced(parts))
    for tensor, values in zip(old, parts, strict=True):
        tensor.copy_(values)
    mean = system.x / max(system.rows, 1)
    if shift.there:
        shift.add(offset + (target - composed(scheme, parts)) @ mean)


def _sums(
    nodes: Sequence[fx.Node],
    node: fx.Node,
    original: ActivationCache,
    student: ActivationCache,
    draw: torch.Generator,
    by_outputs: bool,
) -> tuple[NormalEquations, NormalEquations]:
    """The sums for what the layer's outputs lack, given its inputs now, and those of the outputs.

    The latter are zero unless `by_outputs`.
    """
    weight = original.network.tensor(Layer(node).weight_name)
    bias = Layer(node).bias
    constant = 0.0 if bias is None else original.network.tensor(str(bias.target))
    system = NormalEquations(weight[0].numel(), len(weight))
    outputs = NormalEquations(len(weight), 0)
    batches = zip(student.value(Layer(nodes[0]).data), original.value_of(node.name), strict=True)
    for x, y in batches:
        read, given = sampled(node, weight, x, y, _per_batch(weight, original), draw)
        system.add(read, given - read @ weight.flatten(1).T - constant)
        if by_outputs:
            outputs.add(given, given[:, :0])
    return system, outputs


def _scheme(parts: Sequence[Tensor]) -> str:
    """The scheme by which a layer became factors of these shapes."""
    first, last = parts[0], parts[-1]
    if len(parts) == 3:
        return "tucker"
    return "spatial" if last[0, 0].numel() > 1 else "matrices" if first.dim() == 2 else "channel"


def _moment(system: NormalEquations, centred: bool) -> Tensor:
    return system.covariances()[0] if centred else system.xx / max(system.rows, 1)


def _per_batch(weight: Tensor, cache: ActivationCache) -> int:
    unknowns = weight[0].numel()
    rows = max(4 * unknowns, min(ROWS, int(MOST_PRODUCTS / unknowns**2)))
    return max(1, rows // len(cache.batches))
