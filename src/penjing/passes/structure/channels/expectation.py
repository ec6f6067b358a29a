"""Expectation: estimate the mean and covariance of channels from weights and norms, without data.

A batch norm gives each channel the mean beta and the standard deviation |gamma|. A layer norm does
the same for its outputs. How two channels of one layer correlate follows from their weights and
from the covariance of their inputs. Inputs about which nothing is known are taken as uncorrelated.
Neighbouring pixels are assumed to correlate as they do in images. The channels are then treated as
Gaussian variables, and their moments are followed through the functions behind the layer.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, fx

from penjing.arith.gaussian import moments_through
from penjing.network import Network
from penjing.network.analysis.passage import UNCHANGED, Passage
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.batch_norm import batch_norm_of
from penjing.network.graph.layers import Layer

aten = torch.ops.aten
CORRELATION_LENGTH = 2.0
"""In pixels: values at a distance d have the correlation exp(-d / CORRELATION_LENGTH)."""


class Moments(NamedTuple):
    """The mean (n,) and the covariance (n, n) of an axis, float64."""

    mean: Tensor
    covariance: Tensor


class Known(NamedTuple):
    """What is known about the inputs of a layer.

    Attributes:
        moments: the moments of the axis that the layer reads.
        weight: the layer's weights by index of that axis, (O, n, m, taps..): n indices, each in m
            places.
    """

    moments: Moments
    weight: Tensor


def written(network: Network, way: Passage, known: Mapping[fx.Node, Known]) -> Moments:
    """The moments of the values that reach the readers of a passage.

    Args:
        network: the network.
        way: the passage.
        known: what earlier passages gave, by the layer that reads it.
    """
    layer = Layer(way.layer)
    weight = network.tensor(layer.weight_name).detach().double().cpu()
    inputs = _after_norm(network, way.layer)
    by_index = weight[:, :, None]
    if way.layer in known:
        inputs, by_index = known[way.layer]
    taps = by_index.flatten(3) if by_index.dim() > 3 else by_index[..., None]
    turned = taps @ spatial_correlation(way.layer, weight)
    mean = torch.zeros(len(weight), dtype=torch.float64)
    if inputs is not None:
        mean = taps.sum((2, 3)) @ inputs.mean
        turned = torch.einsum("onmk,np->opmk", turned, inputs.covariance)
    covariance = turned.flatten(1) @ taps.flatten(1).T
    if layer.bias is not None:
        mean = mean + network.tensor(str(layer.bias.target)).detach().double().cpu()
    if way.norm is not None:
        norm = batch_norm_of(network, way.norm)
        assert norm is not None
        assert norm.gamma is not None
        assert norm.beta is not None
        gamma, mean = (tensor.detach().double().cpu() for tensor in (norm.gamma, norm.beta))
        scale = gamma / covariance.diagonal().clamp_min(1e-30).sqrt()
        covariance = covariance * torch.outer(scale, scale)
    return Moments(*moments_through(way.function, mean, covariance))


def spatial_correlation(layer: fx.Node, weight: Tensor) -> Tensor:
    """The correlation of the inputs of a kernel's K taps, (K, K); K = 1 for a linear layer."""
    extent = weight.shape[2:]
    axes = [torch.arange(size, dtype=torch.float64) for size in extent]
    if not axes:
        return torch.ones(1, 1, dtype=torch.float64)
    places = torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
    spread = torch.tensor(Layer(layer).dilation, dtype=torch.float64)
    apart = (places[:, None] - places[None]) * spread
    return torch.exp(-apart.norm(dim=-1) / CORRELATION_LENGTH)


def _after_norm(network: Network, layer: fx.Node) -> Moments | None:
    """The moments of a layer's input, if they follow from a layer norm; None otherwise."""
    node = Layer(layer).data
    while node.target in UNCHANGED:
        node = read_by(node)
    if node.target is not aten.layer_norm.default or len(argument(node, "normalized_shape")) != 1:
        return None
    tensors = argument(node, "weight"), argument(node, "bias")
    if None in tensors:
        return None
    gain, mean = (network.tensor(str(source.target)).detach().double().cpu() for source in tensors)
    return Moments(mean, torch.diag(gain.square()))
