"""A network as exporters expect it: called with a flat list of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from penjing.network import Network
from penjing.tasks.task import as_call


class Flat(torch.nn.Module):
    """The network with positional tensors as inputs and a tuple of tensors as outputs."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.spec = pytree.tree_structure(as_call(network.example))
        self.train(False)

    def forward(self, *leaves: Any) -> Any:
        """Call the network with flat arguments, and return all outputs as a flat tuple."""
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(pytree.tree_leaves(self.network(*args, **kwargs)))
