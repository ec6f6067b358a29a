"""Recalibrate: measure the mean and variance of batch norms again, on the present network."""

from __future__ import annotations

import copy

import torch

from penjing.network import Network
from penjing.network.graph.arguments import argument, set_argument
from penjing.tasks.task import Batches, as_call

BATCH_NORM = torch.ops.aten.batch_norm.default


def recalibrate(network: Network, batches: Batches) -> Network:
    """A copy of a network whose running statistics are the averages over `batches`.

    Everything else stays in evaluation mode: dropout is off, and no weight changes. Norms without
    running statistics stay as they are.
    """
    new = copy.deepcopy(network).eval()
    norms = [
        node
        for node in new.calls()
        if node.target is BATCH_NORM and argument(node, "running_mean") is not None
    ]
    old = {node: argument(node, "momentum") for node in norms}
    with torch.no_grad():
        for number, (inputs, _) in enumerate(batches, start=1):
            for node in norms:
                set_argument(node, "training", True)
                set_argument(node, "momentum", 1 / number)
            new.compile_graph()
            args, kwargs = as_call(inputs)
            new(*args, **kwargs)
    for node in norms:
        set_argument(node, "training", False)
        set_argument(node, "momentum", old[node])
    new.compile_graph()
    return new
