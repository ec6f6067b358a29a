"""Weights alone: weights that can be integers in a file where the operator computes in float.

These are the tables of embeddings, whose rows are looked up, and the matrices of recurrent layers,
whose values go around and around, so that rounding them adds up.
"""

from __future__ import annotations

import torch
from torch import fx

from penjing.network.graph.network import Network
from penjing.network.graph.recurrent import RECURRENT, matrices_of

EMBEDDING = torch.ops.aten.embedding.default


def reads_alone(reader: fx.Node, weight: fx.Node) -> bool:
    """Whether it looks rows up in this weight, or multiplies by it in each step."""
    if reader.target is EMBEDDING:
        return reader.args[0] is weight
    return reader.target in RECURRENT and weight in matrices_of(reader)


def weights_alone(network: Network) -> dict[str, list[fx.Node]]:
    """By name of each tensor that such an operator reads, in the order of the graph, the nodes
    that hold it. One that another operator reads too, such as the head of a language model, has
    several readers; see `read_otherwise`."""
    held: dict[str, list[fx.Node]] = {}
    for node in network.graph.nodes:
        if node.op == "get_attr" and any(reads_alone(reader, node) for reader in node.users):
            held.setdefault(str(node.target), []).append(node)
    return held


def read_otherwise(network: Network, name: str) -> bool:
    """Whether an operator of another kind reads the tensor."""
    return any(
        not reads_alone(reader, node)
        for node in network.graph.nodes
        if node.op == "get_attr" and node.target == name
        for reader in node.users
    )
