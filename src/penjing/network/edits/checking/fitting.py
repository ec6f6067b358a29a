"""Fitting: for each kind of edit, what is wrong with the nodes that it names; empty if nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from torch import fx

from penjing.network.analysis.blocks import stride_between
from penjing.network.edits.factorize import misfit_of
from penjing.network.edits.scaling import RELU6, Reach, reaches
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.network import Network
from penjing.network.graph.qparams import qparams_of
from penjing.network.graph.shapes import fake_values
from penjing.network.graph.weights_alone import read_otherwise, weights_alone

Nodes = Mapping[str, fx.Node]


def fake_quantize(
    network: Network,
    nodes: Nodes,
    activations: Mapping[str, Mapping[str, Any]],
    weights: Mapping[str, Mapping[str, Any]],
) -> str:
    """A value or layer that doesn't exist, can't be quantized, or has a wrong number of scales."""
    known = fake_values(network) if activations else {}
    for name, qparams in activations.items():
        root = qparams["root"]
        if name not in nodes or nodes[name].op not in ("call_function", "placeholder"):
            return f"there is no value {name!r}"
        if not _is_real(known.get(nodes[name])):
            return f"{name!r} gives no tensor of real numbers"
        if root not in activations or activations[root]["root"] != root:
            return f"the root {root!r} of {name!r} isn't one of the activations in the edit"
        if _is_taken(network, f"{root}_scale"):
            return f"a layer has the name {root}_scale already"
    if why := _bare_layers(nodes, weights):
        return why
    for name, qparams in weights.items():
        weight = network.tensor(Layer(nodes[name]).weight_name)
        scales = qparams["scales"]
        if len(scales) != len(weight):
            return f"{len(scales)} scales for the {len(weight)} output channels of {name!r}"
        if isinstance(scales[0], Sequence) and weight[0].numel() % len(scales[0]):
            return f"{len(scales[0])} groups in the {weight[0].numel()} weights of {name!r}"
    return ""


def round_tensors(network: Network, nodes: Nodes, tensors: Mapping[str, Mapping[str, Any]]) -> str:
    """A tensor that no embedding or recurrent layer reads alone, or another number of scales."""
    known = weights_alone(network)
    for name, qparams in tensors.items():
        if name not in known or read_otherwise(network, name):
            return f"there is no embedding or recurrent weight {name!r}"
        scales, rows = qparams["scales"], len(network.tensor(name))
        if len(scales) != rows or isinstance(scales[0], Sequence):
            return f"{len(scales)} scales, or groups of them, for the {rows} rows of {name!r}"
    return ""


def bypass(network: Network, nodes: Nodes, values: Mapping[str, str], maps: Sequence[str]) -> str:
    """A value that doesn't exist, or that the other can't stand for."""
    known = fake_values(network) if values else {}
    order = {node: place for place, node in enumerate(network.graph.nodes)}
    for name in maps:
        if name not in values:
            return f"{name!r} is to become a map, but isn't cut"
    for end, start in values.items():
        for name in (end, start):
            if name not in nodes or not _is_real(known.get(nodes[name])):
                return f"there is no value {name!r} of real numbers"
        before, after = known[nodes[start]], known[nodes[end]]
        if nodes[end].op != "call_function" or order[nodes[start]] >= order[nodes[end]]:
            return f"{end!r} isn't computed after {start!r}"
        if before.dtype != after.dtype or (before.shape != after.shape and end not in maps):
            return f"{end!r} and {start!r} differ in shape or type"
        if end in maps and stride_between(before, after) is None:
            return f"no 1x1 convolution or linear layer leads from {start!r} to {end!r}"
    return ""


def fuse(network: Network, nodes: Nodes, layers: Mapping[str, str], front: bool) -> str:
    """A node that doesn't exist; what lies between the nodes is checked when it is fused."""
    for name in (*layers, *layers.values()):
        if name not in nodes or nodes[name].op not in ("call_function", "placeholder"):
            return f"there is no value {name!r}"
    return ""


def factorize(network: Network, nodes: Nodes, layers: Mapping[str, Mapping[str, Any]]) -> str:
    """A layer that doesn't exist, or can't be written with its scheme and ranks."""
    for name, how in layers.items():
        if name not in nodes or nodes[name].target not in LAYERS:
            return f"there is no layer {name!r}"
        if words := misfit_of(network, nodes[name], how["scheme"], how["ranks"]):
            return f"layer {name!r}: {words}"
    return ""


def ternarize(
    network: Network, nodes: Nodes, layers: Sequence[str], scales: str, threshold: float
) -> str:
    """A layer that doesn't exist, or whose weight is computed or quantized already."""
    return _bare_layers(nodes, layers)


def binarize(network: Network, nodes: Nodes, layers: Sequence[str]) -> str:
    """A layer that doesn't exist, or whose weight is computed or quantized already."""
    return _bare_layers(nodes, layers)


def sign_inputs(
    network: Network,
    nodes: Nodes,
    layers: Mapping[str, str],
    dropped: Sequence[str],
    learned: bool,
    shortcuts: Sequence[str],
) -> str:
    """A layer that doesn't read the named value, or a node that can't be removed before a sign."""
    known = fake_values(network)
    shapes = {node: value.shape for node, value in known.items() if _is_real(value)}
    for name in dropped:
        node = nodes.get(name)
        if node is None or node.target in LAYERS or not _keeps_shape(node, shapes):
            return f"{name!r} isn't an elementwise function"
        if len(shapes[node]) < 2:
            return f"{name!r} has no channels"
    for name, read in layers.items():
        if why := _not_read(nodes, name, read, shapes):
            return why
    for name in shortcuts:
        if name not in layers or shapes[nodes[name]] != shapes[nodes[layers[name]]]:
            return f"the input and the output of layer {name!r} differ in shape"
    return ""


def _not_read(nodes: Nodes, name: str, read: str, shapes: Mapping[fx.Node, Any]) -> str:
    """Why `name` isn't a layer that reads the real tensor `read`, directly or behind one node."""
    if name not in nodes or nodes[name].target not in LAYERS:
        return f"there is no layer {name!r}"
    data = Layer(nodes[name]).data
    if nodes.get(read) not in (data, *data.args[:1]):
        return f"layer {name!r} doesn't read {read!r}"
    if shapes.get(nodes[read]) != shapes.get(data):
        return f"layer {name!r} doesn't read {read!r}"
    return "" if nodes[read] in shapes else f"{read!r} gives no tensor of real numbers"


def give_bias(network: Network, nodes: Nodes, layers: Sequence[str]) -> str:
    """A layer that doesn't exist, has a bias already, or has a computed weight."""
    for name in layers:
        if name not in nodes or nodes[name].target not in LAYERS:
            return f"there is no layer {name!r}"
        layer = Layer(nodes[name])
        qparams = qparams_of(layer.weight)
        if (qparams.source if qparams else layer.weight).op != "get_attr":
            return f"the weight of {name!r} is computed"
        if layer.bias is not None:
            return f"layer {name!r} has a bias already"
    return ""


def hold(network: Network, nodes: Nodes, tensors: Mapping[str, str]) -> str:
    """A tensor that isn't a parameter of real numbers."""
    parameters = dict(network.named_parameters())
    for name in tensors:
        if name not in parameters or not parameters[name].is_floating_point():
            return f"there is no parameter {name!r} of real numbers"
    return ""


def lift_bounds(network: Network, known: Nodes, nodes: Sequence[str]) -> str:
    """A node that isn't a ReLU6 of the network."""
    for name in nodes:
        if name not in known or known[name].target not in RELU6:
            return f"there is no ReLU6 {name!r}"
    return ""


def scale_channels(network: Network, nodes: Nodes, scales: Mapping[str, Sequence[float]]) -> str:
    """A layer that can't be scaled, or that has another number of channels."""
    by_name = {node.name: reach for node, reach in reaches(network).items()}
    for name, factors in scales.items():
        reach = by_name.get(name, "there is no such layer")
        if not isinstance(reach, Reach) or reach.bounds:
            return f"{name!r} can't be scaled: {reach}"
        weight = network.tensor(Layer(nodes[name]).weight_name)
        if len(factors) != len(weight):
            return f"{len(factors)} scales for the {len(weight)} output channels of {name!r}"
    return ""


def _bare_layers(nodes: Nodes, names: Iterable[str]) -> str:
    """A layer that doesn't exist, or whose weight can't be quantized."""
    for name in names:
        if name not in nodes or nodes[name].target not in LAYERS:
            return f"there is no layer {name!r}"
        if Layer(nodes[name]).weight.op != "get_attr":
            return f"the weight of {name!r} is computed or quantized already"
    return ""


def _is_real(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.is_floating_point()


def _keeps_shape(node: fx.Node, shapes: Mapping[fx.Node, Any]) -> bool:
    source = node.args[0] if node.args else None
    return (
        node.op == "call_function"
        and isinstance(source, fx.Node)
        and node in shapes
        and shapes.get(source) == shapes[node]
    )


def _is_taken(network: Network, name: str) -> bool:
    """Whether a layer or an attribute has the name, so that no parameter can take it."""
    return name in network._modules or hasattr(type(network), name)
