"""Coding: an estimate of the bytes that a network takes once its weights are coded."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.arith.codebooks import entropy_bits
from penjing.network import Network
from penjing.network.analysis.held import held

FLOATS = (16, 32)


@dataclass(frozen=True)
class CodedTensor:
    """A weight with zeros or equal values that are held.

    Attributes:
        name: its name.
        numbers: how many numbers it has.
        nonzero: how many of them aren't zero.
        values: how many distinct values it has, zero included.
        estimated_bytes: the entropy of its codes, and its codebook or its remaining numbers.
    """

    name: str
    numbers: int
    nonzero: int
    values: int
    estimated_bytes: int


@dataclass(frozen=True)
class CodedSize:
    """An estimate of a coded network; the file itself isn't written.

    Attributes:
        tensors: the weights whose zeros or equal values are held.
        other_bytes: all other parameters and buffers, as floats.
    """

    tensors: tuple[CodedTensor, ...]
    other_bytes: int

    @property
    def estimated_bytes(self) -> int:
        """All of them together."""
        return self.other_bytes + sum(tensor.estimated_bytes for tensor in self.tensors)


def coded_size(network: Network, bits: int = 32) -> CodedSize:
    """Estimate the bytes of a network whose weights are coded by their entropy.

    A weight with shared values takes the entropy of its codes and a codebook, for the tensor or for
    each row, whichever is smaller. A sparse weight takes the entropy of the zeros' places, and
    `bits` for each other number. Everything else takes `bits` a number. Names and shapes aren't
    counted. A good entropy coder comes within a percent of the estimate.

    Args:
        network: the network.
        bits: of a float: 16 or 32.

    Raises:
        ValueError: `bits` is another number.

    >>> from penjing.network import capture
    >>> size = coded_size(capture(torch.nn.Linear(8, 4), torch.zeros(2, 8)))
    >>> size.estimated_bytes == 4 * (8 * 4 + 4)
    True
    """
    if bits not in FLOATS:
        raise ValueError(f"bits must be 16 or 32; found {bits}")
    marks, tensors, other = held(network), [], 0
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if name in marks:
            tensors.append(_coded(name, tensor.detach(), marks[name] == "values", bits))
        elif tensor.is_floating_point():
            other += tensor.numel() * bits // 8
    return CodedSize(tuple(tensors), other)


def _coded(name: str, weight: Tensor, shared: bool, bits: int) -> CodedTensor:
    values, codes = torch.unique(weight, return_inverse=True)
    nonzero = int((weight != 0).sum())
    if shared:
        rows = weight.flatten(1)
        whole = entropy_bits(codes) + bits * len(values)
        each = sum(entropy_bits(row) + bits * _distinct(row) for row in rows)
        size = min(whole, each)
    else:
        size = entropy_bits(weight != 0) + bits * nonzero
    return CodedTensor(name, weight.numel(), nonzero, len(values), math.ceil(size / 8))


def _distinct(row: Tensor) -> int:
    return len(torch.unique(row))
