"""A network as exporters want it: called with a flat list of tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree as pytree

from penjing.network import Network
from penjing.tasks.task import as_call


class Flat(torch.nn.Module):
    """The network with its inputs one by one and its outputs in a tuple, as exporters want it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.spec = pytree.tree_structure(as_call(network.example))
        self.train(False)

    def forward(self, *leaves: Any) -> Any:
        """All outputs as a flat tuple, of all inputs as flat arguments."""
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(pytree.tree_leaves(self.network(*args, **kwargs)))
