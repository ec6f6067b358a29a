"""Complex: write complex numbers as pairs of reals, and Fourier transforms as matrix products.

Exporters support few complex operators. A transform of n values is written as its definition,

    X_k = sum_j x_j exp(-2 pi i j k / n),

which costs n^2 instead of n log n operations, but is an ordinary matrix product.
"""

from __future__ import annotations

import copy
import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import fx

from penjing.arith.fourier import fourier_matrix
from penjing.errors import InputError
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import fake_values
from penjing.network.graph.surgery import insert_before
from penjing.network.graph.tensors import insert_tensor

aten = torch.ops.aten
Pair = tuple[Any, Any]

IN_BOTH_PARTS = {
    aten.reshape.default, aten.permute.default, aten.transpose.int, aten.slice.Tensor,
    aten.select.int, aten.unsqueeze.default, aten.squeeze.dim, aten.expand.default,
    aten.cat.default, aten.stack.default, aten.clone.default, aten.contiguous.default,
    aten.flip.default, aten.roll.default, aten.pad.default, aten.constant_pad_nd.default,
    aten.neg.default, aten.sum.dim_IntList, aten.mean.dim, aten.add.Tensor, aten.sub.Tensor,
    aten.add_.Tensor, aten.sub_.Tensor, aten.copy_.default, aten.zeros_like.default,
    aten.zeros.default, aten.new_zeros.default, aten.index.Tensor, aten.flatten.using_ints,
    aten.movedim.int, aten.alias.default, aten.detach.default, aten.index_select.default,
    aten.split_with_sizes.default, operator.getitem, aten.resolve_conj.default,
}  # fmt: skip
"""Operators that treat the real and the imaginary part alike."""
PRODUCTS = {
    aten.mul.Tensor, aten.matmul.default, aten.bmm.default, aten.mm.default, aten.einsum.default
}  # fmt: skip
"""Operators that are linear in each of two operands."""


def without_complex(network: Network) -> Network:
    """A copy that computes with real numbers only; the network itself if it already does.

    Raises:
        InputError: an operator on complex numbers can't be rewritten; the message names it.
    """
    known = fake_values(network)
    complex_ones = {node.name: value for node, value in known.items() if _is_complex(value)}
    if not complex_ones:
        return network
    new = copy.deepcopy(network)
    shapes = {
        node.name: tuple(value.shape)
        for node, value in known.items()
        if isinstance(value, torch.Tensor)
    }  # fmt: skip
    writer = _Writer(new, shapes, set(complex_ones))
    for node in list(new.graph.nodes):
        writer.visit(node)
    for node in reversed(list(new.graph.nodes)):
        if node in writer.replaced:
            new.graph.erase_node(node)
    new.compile_graph()
    return new


def _is_complex(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return any(_is_complex(part) for part in value)
    return isinstance(value, torch.Tensor) and value.is_complex()


class _Writer:
    """Goes through a graph and inserts, next to each complex node, two real ones to replace it."""

    def __init__(self, network: Network, shapes: dict[str, Any], complex_ones: set[str]) -> None:
        self.network, self.shapes, self.complex_ones = network, shapes, complex_ones
        self.pairs: dict[fx.Node, Pair] = {}
        self.replaced: set[fx.Node] = set()
        self.node: fx.Node

    def visit(self, node: fx.Node) -> None:
        """Rewrite one node in real numbers, if it reads or returns complex ones."""
        gives = node.name in self.complex_ones
        if not gives and not any(source in self.pairs for source in node.all_input_nodes):
            return
        self.node = node
        if node.op == "get_attr":
            tensor = self.network.tensor(str(node.target)).detach()
            result: Any = self.constant(tensor.real), self.constant(tensor.imag)
        else:
            result = self.written(node)
        if gives:
            self.pairs[node] = result
        else:
            node.replace_all_uses_with(result)
        self.replaced.add(node)

    def written(self, node: fx.Node) -> Any:
        """The replacement of a node: a pair, or a single real node."""
        target = node.target
        if target in IN_BOTH_PARTS:
            return tuple(self.in_part(node, part) for part in (0, 1))
        if target in PRODUCTS:
            return self.product(node)
        if target in SINGLE:
            return SINGLE[target](self, *(self.pair(operand) for operand in node.args))
        if "fft_" in str(target):
            return self.fourier(node)
        if isinstance(target, torch._ops.OpOverload) and "sym_size" in str(target):
            return self.call(target, self.pair(read_by(node))[0], argument(node, "dim"))
        raise InputError(
            f"penjing can't rewrite {target} of complex numbers ({node.meta.get('source', '')}) in "
            "real numbers; rewrite that line of the model without complex numbers"
        )

    def call(self, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
        """A new node in front of the node that is being rewritten."""
        return insert_before(self.node, target, *args, **kwargs)

    def constant(self, tensor: torch.Tensor) -> fx.Node:
        """A new constant that is read in front of the node that is being rewritten."""
        name = f"real_constant_{len(self.network._buffers)}"
        return insert_tensor(self.network, self.node, name, tensor.clone().contiguous())

    def pair(self, value: Any) -> Pair:
        """The real and the imaginary part of an argument."""
        if isinstance(value, fx.Node):
            return self.pairs.get(value) or (value, None)
        return (value.real, value.imag) if isinstance(value, complex) else (value, None)

    def in_part(self, node: fx.Node, part: int) -> fx.Node:
        def pick(source: fx.Node) -> Any:
            if source in self.pairs:
                return self.pairs[source][part]
            sums = node.target in (aten.add.Tensor, aten.sub.Tensor, aten.copy_.default)
            # the imaginary part of a real operand is zero in a sum; indices stay as they are
            return self.call(aten.mul.Tensor, source, 0.0) if part and sums else source

        args, kwargs = fx.map_arg((node.args, node.kwargs), pick)
        if part and node.target in (aten.add.Tensor, aten.sub.Tensor):
            args = tuple(0.0 if isinstance(value, int | float) else value for value in args)
        kwargs = {name: value for name, value in kwargs.items() if name != "dtype"}
        return self.call(node.target, *args, **kwargs)

    def product(self, node: fx.Node) -> Pair:
        equation, operands = argument(node, "equation"), argument(node, "tensors", node.args)
        (a, b), (c, d) = (self.pair(operand) for operand in operands)

        def times(left: Any, right: Any) -> Any:
            if equation is not None:
                return self.call(node.target, equation, [left, right])
            return self.call(node.target, left, right)

        if d is None or b is None:
            return (times(a, c), times(b, c)) if d is None else (times(a, c), times(a, d))
        real = self.call(aten.sub.Tensor, times(a, c), times(b, d))
        return real, self.call(aten.add.Tensor, times(a, d), times(b, c))

    def fourier(self, node: fx.Node) -> Any:
        """A Fourier transform, one dimension after the other."""
        name = str(node.target).split(".")[1].removeprefix("fft_")
        source = read_by(node)
        before, after = self.shapes[source.name], self.shapes[node.name]
        several = name.endswith(("2", "n"))
        usual = [-2, -1] if name.endswith("2") else list(range(len(before))) if several else -1
        dims = argument(node, "dim") or usual
        dims = [dims] if isinstance(dims, int) else list(dims)
        scale = {"ortho": 0.5, "forward": 1.0}.get(argument(node, "norm") or "", 0.0)
        inverse = name.startswith("i")
        scale = 1.0 - scale if inverse else scale
        pair = self.pair(source)
        half = "rfft" in name
        order = dims if half and inverse else dims[::-1]
        for dim in order:
            last = half and dim == dims[-1]
            n = before[dim] if last and not inverse else after[dim]
            if last and not inverse:
                given = argument(node, "s" if several else "n")
                n = (given[-1] if isinstance(given, list | tuple) else given) or before[dim]
            matrix = fourier_matrix(before[dim], n, inverse, last) / n**scale
            pair = self.transformed(pair, matrix, dim, last and inverse)
        return pair[0] if half and inverse else pair

    def transformed(self, pair: Pair, matrix: torch.Tensor, dim: int, to_real: bool) -> Pair:
        def times(value: Any, part: torch.Tensor) -> Any:
            turned = self.call(aten.transpose.int, value, dim, -1)
            product = self.call(aten.matmul.default, turned, self.constant(part.float()))
            return self.call(aten.transpose.int, product, dim, -1)

        a, b = pair
        if b is None:
            return times(a, matrix.real), times(a, matrix.imag)
        real = self.call(aten.sub.Tensor, times(a, matrix.real), times(b, matrix.imag))
        if to_real:
            return real, None
        return real, self.call(aten.add.Tensor, times(a, matrix.imag), times(b, matrix.real))


def _length(writer: _Writer, z: Pair) -> fx.Node:
    squares = (writer.call(aten.mul.Tensor, part, part) for part in z)
    return writer.call(aten.sqrt.default, writer.call(aten.add.Tensor, *squares))


def _polar(writer: _Writer, length: Pair, angle: Pair) -> Pair:
    around = (writer.call(function, angle[0]) for function in (aten.cos.default, aten.sin.default))
    real, imag = (writer.call(aten.mul.Tensor, length[0], part) for part in around)
    return real, imag


def _quotient(writer: _Writer, z: Pair, by: Pair) -> Pair:
    if by[1] is not None:
        raise InputError(
            "penjing can't rewrite a division by complex numbers in real numbers; rewrite it in "
            "the model"
        )
    real, imag = (writer.call(aten.div.Tensor, part, by[0]) for part in z)
    return real, imag


SINGLE: dict[Any, Callable[..., Any]] = {
    aten.real.default: lambda writer, z: z[0],
    aten.imag.default: lambda writer, z: z[1],
    aten._conj.default: lambda writer, z: (z[0], writer.call(aten.neg.default, z[1])),
    aten.conj.default: lambda writer, z: (z[0], writer.call(aten.neg.default, z[1])),
    aten.abs.default: _length,
    aten.angle.default: lambda writer, z: writer.call(aten.atan2.default, z[1], z[0]),
    aten.complex.default: lambda writer, a, b: (a[0], b[0]),
    aten.polar.default: _polar,
    aten.div.Tensor: _quotient,
    aten.view_as_real.default: lambda writer, z: writer.call(aten.stack.default, list(z), -1),
    aten.view_as_complex.default: lambda writer, x: tuple(
        writer.call(aten.select.int, x[0], -1, part) for part in (0, 1)
    ),
}
