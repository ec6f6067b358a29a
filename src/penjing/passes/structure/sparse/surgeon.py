"""Surgeon: what the outputs lose with each single weight, and the weights that make up for it.

Source: Y. LeCun, J. Denker, S. Solla, "Optimal Brain Damage", 1990; B. Hassibi, D. Stork, "Second
Order Derivatives for Network Pruning: Optimal Brain Surgeon", 1993; J. Martens, R. Grosse,
"Optimizing Neural Networks with Kronecker-factored Approximate Curvature", 2015 (the curvature of a
layer as a product); E. Frantar, D. Alistarh, "Optimal Brain Compression", 2022 (row by row).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from penjing.arith.least_squares import NormalEquations, solved_on_support, support_factors
from penjing.network import Network
from penjing.network.analysis.rows import rows_read
from penjing.network.graph.batch_norm import batch_norm_of
from penjing.network.graph.layers import Layer
from penjing.network.graph.qparams import own_bias
from penjing.tasks.task import as_call

POSITIONS = 8000  # of each batch that enter the moments of a layer
MOST_OPERATIONS = 1.3e10
"""Multiplications for the inverses of one layer; beyond it, they are of blocks of inputs."""


@dataclass
class Curvature:
    """How much the outputs of the network change with the weights of one layer.

    Attributes:
        systems: for each group of the layer, the sums of its inputs.
        gains: for each output channel o, E sum over positions of g_o^2, where g is the gradient of
            the network's outputs, combined at random, with respect to the layer's output.
    """

    systems: list[NormalEquations]
    gains: Tensor

    def moments(self, group: int, centred: bool, damping: float) -> Tensor:
        """The covariance of a group's inputs, or E[x x^T], with `damping` on its diagonal."""
        system = self.systems[group]
        moments = system.covariances()[0] if centred else system.xx / max(system.rows, 1)
        size = moments.diagonal().mean().clamp_min(1e-30)
        return moments + damping * size * torch.eye(len(moments), dtype=moments.dtype)


def curvatures(
    network: Network, batches: Sequence[Any], layers: Sequence[fx.Node]
) -> dict[fx.Node, Curvature]:
    """Measure the curvature of layers on samples without labels.

    Args:
        network: the network, which stays unchanged.
        batches: inputs.
        layers: some of its convolutions and linear layers (`READ_AS_ROWS`).
    """
    draw = torch.Generator().manual_seed(0)
    measured = {}
    for node in layers:
        weight, groups = network.tensor(Layer(node).weight_name), Layer(node).groups
        systems = [NormalEquations(weight[0].numel(), 0) for _ in range(groups)]
        measured[node] = Curvature(systems, torch.zeros(len(weight), dtype=torch.float64))
    samples = 0
    for inputs in batches:
        leaves = pytree.tree_leaves(as_call(inputs))
        samples += len(leaves[0])
        with torch.enable_grad():
            _run(network, leaves, measured, draw)
    for curvature in measured.values():
        curvature.gains /= max(samples, 1)
    return measured


def _run(
    network: Network,
    leaves: Sequence[Tensor],
    measured: Mapping[fx.Node, Curvature],
    draw: torch.Generator,
) -> None:
    """Add the inputs and the gradients of one batch to the curvatures."""
    given, known = iter(leaves), {}
    outputs: list[Any] = []
    for node in network.graph.nodes:
        if node.op == "placeholder":
            known[node] = next(given)
        elif node.op == "get_attr":
            known[node] = network.attribute(str(node.target))
        elif node.op == "output":
            outputs = pytree.tree_leaves(fx.map_arg(node.args, known.__getitem__))
        else:
            if node in measured:
                _add_inputs(measured[node], node, known, draw)
            args, kwargs = fx.map_arg((node.args, node.kwargs), known.__getitem__)
            known[node] = node.target(*args, **kwargs)
            if node in measured:
                known[node] = _watched(known[node], measured[node], node)
    real = [value for value in outputs if isinstance(value, Tensor) and value.requires_grad]
    if real:
        signs = [torch.randn(value.shape, generator=draw).to(value) for value in real]
        torch.autograd.backward(real, signs)
        for parameter in network.parameters():
            parameter.grad = None


def _add_inputs(
    curvature: Curvature, node: fx.Node, known: Mapping[fx.Node, Any], draw: torch.Generator
) -> None:
    weight = known[Layer(node).weight].detach()
    rows = rows_read(node, weight, known[Layer(node).data].detach()).cpu()
    if len(rows) > POSITIONS:
        rows = rows[torch.randint(len(rows), (POSITIONS,), generator=draw)]
    for system, part in zip(curvature.systems, rows.chunk(len(curvature.systems), 1), strict=True):
        system.add(part, part[:, :0])


def _watched(value: Tensor, curvature: Curvature, node: fx.Node) -> Tensor:
    """The value, which adds its squared gradient to the curvature when that is computed."""
    if not value.requires_grad:
        value = value.detach().requires_grad_().clone()
    dim = 1 if Layer(node).dimensions else -1

    def add(gradient: Tensor) -> None:
        rows = gradient.detach().movedim(dim, -1).flatten(0, -2)
        curvature.gains += rows.square().sum(0, dtype=torch.float64).cpu()

    value.register_hook(add)  # type: ignore[no-untyped-call]
    return value


class Surgery:
    """One layer whose weights are removed step by step.

    With the original row w0 of an output, the moments A of its inputs and its gain g, the row
    changes the outputs of the network by about g (w - w0) A (w - w0). On a support S the best row
    is w_S = A_SS^-1 (A w0)_S, and without weight p as well, the change grows by
    g w_p^2 / [A_SS^-1]_pp, which is the weight's score.
    """

    def __init__(
        self, network: Network, node: fx.Node, curvature: Curvature, damping: float
    ) -> None:
        self.network, self.node, self.curvature = network, node, curvature
        norm = next(iter(node.users)) if len(node.users) == 1 else None
        is_norm = norm is not None and norm.target is torch.ops.aten.batch_norm.default
        self.norm = batch_norm_of(network, norm) if norm is not None and is_norm else None
        self.bias = own_bias(node)
        centred = self.norm is not None or self.bias is not None
        groups = range(len(curvature.systems))
        self.moments = [curvature.moments(group, centred, damping).float() for group in groups]
        self.weight = network.tensor(Layer(node).weight_name)
        self.first = self.weight.detach().flatten(1).cpu().float()
        self.now = self.first.clone()
        self.inverses = torch.cat(
            [
                torch.cholesky_inverse(torch.linalg.cholesky(moments)).diagonal().expand_as(rows)
                for moments, rows in zip(self.moments, self.first.chunk(len(groups)), strict=True)
            ]
        )

    def scores(self, gains: Tensor) -> Tensor:
        """What the outputs lose with each weight, in the weight's shape; -1 where it is zero."""
        losses = self.now.square() / self.inverses * gains[:, None].float()
        return torch.where(self.now == 0, -1.0, losses).view(self.weight.shape)

    def keep(self, mask: Tensor, again: bool) -> None:
        """Remove the weights outside a mask, and set the others to the best that is left.

        Args:
            mask: in the shape of the weight.
            again: whether scores are wanted after this.
        """
        support = mask.flatten(1).cpu() & (self.first != 0)
        parts, inverses = [], []
        for moments, rows, kept in zip(
            self.moments,
            self.first.chunk(len(self.moments)),
            support.chunk(len(self.moments)),
            strict=True,
        ):
            parts.append(solved_on_support(moments, rows @ moments, kept).float())
            if again:
                inverses.append(inverse_diagonals(moments, kept))
        self.now = torch.cat(parts)
        if again:
            self.inverses = torch.cat(inverses)
        self._write()

    @torch.no_grad()
    def _write(self) -> None:
        """Write the weights, and move the mean of the norm, or the bias, with the mean output."""
        old = self.weight.detach().flatten(1).cpu().double()
        shifts = []
        parts = (part.chunk(len(self.moments)) for part in (self.now.double(), old))
        for system, new, before in zip(self.curvature.systems, *parts, strict=True):
            shifts.append((new - before) @ system.x / max(system.rows, 1))
        shift = torch.cat(shifts)
        if self.norm is not None:
            self.norm.mean.add_(shift.to(self.norm.mean))
        elif self.bias is not None:
            bias = self.network.tensor(str(self.bias.target))
            bias.sub_(shift.to(bias))
        self.weight.copy_(self.now.view_as(self.weight))


def inverse_diagonals(moments: Tensor, support: Tensor) -> Tensor:
    """The diagonal of A[S, S]^-1 for each row's support S, (M, N).

    The inputs are split into blocks, which count as independent of each other, if the inverses of
    whole rows would take too long.
    """
    rows, inputs = support.shape
    width = max(8, min(inputs, int(math.sqrt(MOST_OPERATIONS / (rows * inputs)))))
    each = max(1, 2**23 // width**2)
    blocks = []
    for start in range(0, inputs, width):
        part = slice(start, start + width)
        block = moments[part, part]
        inverses = [
            torch.cholesky_inverse(support_factors(block, kept)).diagonal(dim1=1, dim2=2)
            for kept in torch.split(support[:, part], each)
        ]
        blocks.append(torch.cat(inverses))
    return torch.cat(blocks, 1)
