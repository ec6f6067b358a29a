"""How a model is called and how its outputs are handed back, which any runtime must keep."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree

from penjing.contract import Array, Input
from penjing.network import Network
from penjing.task import as_call, batch_dims


class Flat(torch.nn.Module):
    """The network with its inputs one by one and its outputs in a tuple, as exporters want it."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.spec = pytree.tree_structure(as_call(network.example))
        self.train(False)

    def forward(self, *leaves: Any) -> Any:
        args, kwargs = pytree.tree_unflatten(leaves, self.spec)
        return tuple(pytree.tree_leaves(self.network(*args, **kwargs)))


def one_sample(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example's call with its first sample alone."""
    call = as_call(example)
    dims = batch_dims(call, 0)

    def cut(one: torch.Tensor) -> torch.Tensor:
        return one[:1] if dims[id(one)] else one

    found: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(cut, call)
    return found


def input_names(keywords: Iterable[str], count: int) -> list[str]:
    """What the inputs are called: by the model's keywords, or by number."""
    return list(keywords) or [f"input{k or ''}" for k in range(count)]


def structure_of(outputs: Any) -> Any:
    """`"tensor"`, `"tuple"` or the names of a dict: plain data that a file can hold."""
    if isinstance(outputs, dict):
        return list(outputs)
    return "tuple" if isinstance(outputs, list | tuple) else "tensor"


def in_order(inputs: Any, takes: Sequence[Input]) -> list[Array]:
    """One batch's inputs, given in any way that a session takes, in the order of the model's."""
    if isinstance(inputs, dict):
        return [inputs[one.name] for one in takes]
    return list(inputs) if isinstance(inputs, tuple) else [inputs]


def handed_back(found: Sequence[Array], structure: Any) -> Any:
    """The outputs in the structure that `structure_of` told of."""
    if isinstance(structure, list):
        return dict(zip(structure, found, strict=True))
    return found[0] if structure == "tensor" else tuple(found)
