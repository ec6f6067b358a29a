"""Sensitive layers: those whose rounding costs most of what a quantized network loses."""

from __future__ import annotations

import copy
import math
from collections.abc import Collection

import torch
from torch import fx

from penjing.arith.fake_quantize import FAKE_QUANTIZE
from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import Layer, layers_of
from penjing.network.graph.surgery import replace
from penjing.tasks.data import first
from penjing.tasks.targets import moved, samples_in
from penjing.tasks.task import Batches, Task, as_call, loss_of

SAMPLES = 256
ENOUGH = 0.7
"""So much of what rounding adds to the loss shall go."""
MOST = 0.25
"""At most this share of the layers is named, but one always may be."""


def sensitive_layers(rounded: Network, original: Network, task: Task) -> list[str]:
    """The layers without whose rounding the network loses little, the most sensitive first.

    For each layer, the task's loss is measured on training samples while its weight and its output
    aren't rounded. Then layers are taken in the order of what that brings, until most of the added
    loss is gone.

    Args:
        rounded: the quantized network.
        original: the network that it was made from.
        task: its data and its loss.

    Returns:
        Their names; none if rounding adds nothing to the loss, or leaving layers in float doesn't
        help.
    """
    batches = first(task.train, SAMPLES)
    names = list(dict.fromkeys(str(node.meta["layer"]) for node in layers_of(rounded)))
    whole, worst = (_loss(network, task, batches) for network in (original, rounded))
    if not worst > whole:
        return []
    gains = {name: worst - _loss(_without(rounded, {name}), task, batches) for name in names}
    order = sorted(names, key=lambda name: -gains[name])
    most = max(1, math.floor(MOST * len(names)))
    for count in range(1, most + 1):
        left = _loss(_without(rounded, order[:count]), task, batches) - whole
        if left <= (1 - ENOUGH) * (worst - whole):
            return order[:count]
    return order[:most] if gains[order[0]] > 0 else []


def _loss(network: Network, task: Task, batches: Batches) -> float:
    total, count = 0.0, 0
    with torch.no_grad():
        for inputs, targets in batches:
            args, kwargs = as_call(inputs)
            outputs, some = network(*args, **kwargs), samples_in(targets)
            loss = loss_of(task, outputs, moved(targets, network.device))
            total, count = total + float(loss) * some, count + some
    return total / max(count, 1)


def _without(rounded: Network, names: Collection[str]) -> Network:
    """A copy in which the weights and the outputs of these layers aren't rounded."""
    new = copy.deepcopy(rounded)
    for node in layers_of(new):
        if node.meta["layer"] in names:
            layer = Layer(node)
            for part in (layer.weight, layer.bias):
                if part is not None and part.target is FAKE_QUANTIZE:
                    replace(part, read_by(part))
            for reader in _rounding_of(node):
                replace(reader, read_by(reader))
    new.compile_graph()
    return new


def _rounding_of(node: fx.Node) -> list[fx.Node]:
    """What rounds the result of a layer, or of an activation that alone reads it."""
    readers = list(node.users)
    if len(readers) == 1 and readers[0].target is not FAKE_QUANTIZE:
        readers = list(readers[0].users)
    return [reader for reader in readers if reader.target is FAKE_QUANTIZE]
