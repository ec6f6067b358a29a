"""Recalibrate: batch norm's mean and variance measured again, on the network as it is now."""

from __future__ import annotations

import copy

import torch

from penjing.network import Network
from penjing.task import Batches, as_call

BATCH_NORM = torch.ops.aten.batch_norm.default


def recalibrate(network: Network, batches: Batches) -> Network:
    """A copy whose running statistics are the plain averages over `batches`.

    Everything else stays in evaluation mode: dropout is off and no weight changes. Norms that keep
    no running statistics are left alone.
    """
    new = copy.deepcopy(network).eval()
    norms = [node for node in new.calls() if node.target is BATCH_NORM and node.args[3]]
    old = {node: node.args[6] for node in norms}
    with torch.no_grad():
        for number, (inputs, _) in enumerate(batches, start=1):
            for node in norms:
                node.args = (*node.args[:5], True, 1 / number, *node.args[7:])
            new.compile_graph()
            args, kwargs = as_call(inputs)
            new(*args, **kwargs)
    for node in norms:
        node.args = (*node.args[:5], False, old[node], *node.args[7:])
    new.compile_graph()
    return new
