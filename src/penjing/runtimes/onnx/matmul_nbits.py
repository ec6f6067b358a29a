"""Linear layers with grouped 4-bit weights, as ONNX Runtime's own operator `MatMulNBits`.

In the graph such a layer is `linear(x, w, bias)` on floats, with

    w_OP = dequantize_per_channel_group(codes_OP, scales_OG, zeros_OG, low, high, dtype, size)
    w_OK = w_OP[:, :K]

for O outputs, K inputs, and P = G x size inputs after padding to whole groups. There is no slice if
K = P. Zero points are int32, or None, because torch subtracts them in the type of the codes, which
may overflow.

In the file it is one node. Codes are packed two to a byte, the first in the low half: shape
(O, G, size / 2). Zero points are packed the same way, with shape (O, ceil(G / 2)), and are omitted
if all of them are in the middle of the range.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from penjing.network import Network
from penjing.network.graph.arguments import argument
from penjing.network.graph.layers import Layer
from penjing.network.graph.surgery import insert_before, replace
from penjing.network.graph.tensors import drop_unused, free_name, insert_tensor
from penjing.network.lowering.integers import INTEGERS

aten = torch.ops.aten
BITS = 4
MIDDLE = 8
"""The zero point that MatMulNBits uses if it is given none."""
LEAST_GROUP = 16
"""The smallest group that MatMulNBits takes. Larger ones must be powers of two."""


def with_matmul_nbits(network: Network) -> Network:
    """A copy whose linear layers with grouped weights are `MatMulNBits`.

    A weight stays out of `MatMulNBits` if its group size doesn't fit, if its codes span more than
    16 values, or for readers that aren't linear layers. It is then dequantized in rows of one group
    each, which the exporter can express.

    Returns:
        The copy, or the network itself if it has no grouped weights.
    """
    target = INTEGERS.dequantize_per_channel_group.default
    if not any(node.target is target for node in network.calls()):
        return network
    new = copy.deepcopy(network)
    for node in list(new.calls()):
        if node.target is target:
            weight = _grouped(new, node)
            for linear in _linears(node) if weight.fits else []:
                _fuse(new, linear, weight)
            if node.users:
                _by_rows(new, node, weight)
            else:
                new.graph.erase_node(node)
    drop_unused(new)
    new.compile_graph()
    return new


def matmul_nbits(
    x: Tensor, codes: Tensor, scales: Tensor, zeros: Tensor | None, bias: Tensor | None, inputs: int
) -> Tensor:
    """The operator for `torch.onnx`: y_..O = x_..K w_OK + bias. In PyTorch it computes no numbers.

    Args:
        x: (..., K).
        codes: uint8 (O, G, size / 2).
        scales: (O, G).
        zeros: uint8 (O, ceil(G / 2)).
        bias: (O).
        inputs: K.
    """
    outputs, _, half = codes.shape
    return torch.onnx.ops.symbolic(
        "com.microsoft::MatMulNBits",
        (x, codes, scales, zeros, None, bias),
        {"K": inputs, "N": outputs, "bits": BITS, "block_size": 2 * half},
        dtype=x.dtype,
        shape=(*x.shape[:-1], outputs),
        version=1,
    )


@dataclass(frozen=True)
class _Grouped:
    """A weight in groups: codes_OGS, scales_OG, zeros_OG, and the name of the codes' tensor."""

    name: str
    codes: Tensor
    scales: Tensor
    zeros: Tensor

    @property
    def lowest(self) -> int:
        """The code that is stored as 0. For signed codes, a zero point of 0 is then the middle."""
        return -MIDDLE if self.codes.dtype is torch.int8 else 0

    @property
    def fits(self) -> bool:
        """Whether MatMulNBits supports it: the group size, and at most sixteen codes."""
        size = self.codes.shape[2]
        both = torch.cat([self.codes.flatten(), self.zeros.flatten()]).int() - self.lowest
        power = size >= LEAST_GROUP and size & (size - 1) == 0
        floats = self.scales.dtype is torch.float32
        return power and floats and int(both.min()) >= 0 and int(both.max()) < 2**BITS


def _grouped(network: Network, node: fx.Node) -> _Grouped:
    sources: list[Any] = [argument(node, name) for name in ("input", "scales", "zero_points")]
    codes, scales, zeros = (
        source and network.tensor(str(source.target)).cpu() for source in sources
    )
    scales = scales.reshape(len(codes), -1)
    zeros = torch.zeros_like(scales) if zeros is None else zeros.reshape(scales.shape)
    grouped = codes.reshape(*scales.shape, -1)
    return _Grouped(str(sources[0].target), grouped, scales, zeros.to(torch.int32))


def _linears(node: fx.Node) -> list[fx.Node]:
    """Linear layers that read the whole weight, perhaps without padding, and only as a weight."""
    linears = []
    for user in node.users:
        readers = list(user.users) if _takes_first_inputs(user) else [user]
        linears += [
            reader
            for reader in readers
            if reader.target is aten.linear.default and Layer(reader).data not in (node, user)
        ]
    return linears


def _takes_first_inputs(node: fx.Node) -> bool:
    """Whether the node is w[:, :K]."""
    if node.target is not aten.slice.Tensor:
        return False
    dim, start, end, step = (argument(node, name) for name in ("dim", "start", "end", "step"))
    return dim in (1, -1) and not start and type(end) is int and end > 0 and step == 1


def _fuse(network: Network, linear: fx.Node, weight: _Grouped) -> None:
    """Replace a linear layer by the operator, with its own tensors."""
    view, source = Layer(linear), Layer(linear).weight
    outputs, groups, size = weight.codes.shape
    inputs = groups * size
    if source.target is aten.slice.Tensor:
        inputs = min(inputs, argument(source, "end"))
    codes = (weight.codes.int() - weight.lowest).reshape(outputs, -1)
    zeros = weight.zeros - weight.lowest
    codes[:, inputs:] = zeros.repeat_interleave(size, 1)[:, inputs:]  # padding is zero
    tensors = {
        "": _halves(codes).reshape(outputs, groups, size // 2),
        "_scale": weight.scales,
        "_zero_point": None if bool((zeros == MIDDLE).all()) else _halves(zeros),
    }
    layer = str(linear.meta.get("layer") or weight.name.rpartition(".")[0])
    parts: list[fx.Node | None] = []
    for ending, tensor in tensors.items():
        name = free_name(network, f"{layer}.nbits{ending}".lstrip("."))
        parts.append(None if tensor is None else insert_tensor(network, linear, name, tensor))
    replace(linear, insert_before(linear, matmul_nbits, view.data, *parts, view.bias, inputs))
    if not source.users and source.target is aten.slice.Tensor:
        network.graph.erase_node(source)


def _halves(values: Tensor) -> Tensor:
    """Pack values below 16, two to a byte along the last dimension, the first in the low half."""
    padded = torch.nn.functional.pad(values, (0, values.shape[-1] % 2)).reshape(len(values), -1, 2)
    return (padded[..., 0] | padded[..., 1] << BITS).to(torch.uint8)


def _by_rows(network: Network, node: fx.Node, weight: _Grouped) -> None:
    """Compute the same weight with an operator that ONNX can express: each row is one group."""
    outputs, groups, size = weight.codes.shape
    kind = weight.codes.dtype
    limits = torch.iinfo(kind)
    tensors = {
        "rows": weight.codes.reshape(-1, size),
        "rows_scale": weight.scales.reshape(-1),
        "rows_zero_point": weight.zeros.reshape(-1).to(kind),
    }
    path = weight.name.rpartition(".")[0]
    parts = []
    for ending, tensor in tensors.items():
        name = free_name(network, f"{path}.{ending}".lstrip("."))
        parts.append(insert_tensor(network, node, name, tensor.contiguous()))
    operator = INTEGERS.dequantize_per_channel.default
    rows = insert_before(node, operator, *parts, 0, limits.min, limits.max, kind)
    replace(node, insert_before(node, aten.reshape.default, rows, [outputs, groups * size]))
