"""Spectra: Fourier transforms and complex numbers, written as real arithmetic.

Runtimes of small devices have no complex numbers. A short-time transform becomes one convolution
with the transform's waves as its kernels, and the real transform of a dimension becomes a matrix
product. A complex value behind them becomes its real and its imaginary part.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from penjing.errors import CaptureError
from penjing.network.capture.explain import line_of
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.surgery import insert_before

aten = torch.ops.aten
Pair = tuple[fx.Node, fx.Node]
"""The real and the imaginary part."""
ON_BOTH_PARTS = {
    aten.alias.default, aten.cat.default, aten.clone.default, aten.contiguous.default,
    aten.detach.default, aten.expand.default, aten.flatten.using_ints, aten.mean.dim,
    aten.narrow.default, aten.neg.default, aten.permute.default, aten.reshape.default,
    aten.select.int, aten.slice.Tensor, aten.squeeze.default, aten.squeeze.dim,
    aten.squeeze.dims, aten.stack.default, aten.sum.dim_IntList, aten.transpose.int,
    aten.unsqueeze.default, aten.view.default, aten.chunk.default,
}  # fmt: skip
"""Operators that do the same to the real and to the imaginary part."""


def spell_out_spectra(program: fx.GraphModule, name: str) -> None:
    """Write Fourier transforms and the complex values behind them as real arithmetic, in place.

    Args:
        program: a graph as `torch.export` made it, whose nodes have their `meta["val"]`.
        name: of the model's class.

    Raises:
        CaptureError: an operator of complex values has no such form here; the message has its line.
    """
    pairs: dict[fx.Node, Pair] = {}
    for node in list(program.graph.nodes):
        transform = TRANSFORMS.get(node.target)
        if transform is not None:
            pairs[node] = transform(program, node)
        elif any(source in pairs for source in node.all_input_nodes):
            made = _in_reals(node, pairs)
            if made is None:
                place, _ = line_of(node.meta)
                raise CaptureError(
                    f"{name} can't be captured{place}: {node.target} of complex numbers has no "
                    "form in real ones here; take abs(), .real, .imag or torch.view_as_real of the "
                    "spectrum"
                )
            if isinstance(made, fx.Node):
                node.replace_all_uses_with(made)
            else:
                pairs[node] = made
    for node in reversed(pairs):
        if not node.users:
            program.graph.erase_node(node)
    if pairs:
        program.graph.eliminate_dead_code()


def _short_time(program: fx.GraphModule, node: fx.Node) -> Pair:
    """x_NL -> both parts of y_NFT: a convolution whose 2 F kernels are waves within the window."""
    size = argument(node, "n_fft")
    hop = argument(node, "hop_length") or size // 4
    length, window = argument(node, "win_length") or size, argument(node, "window")
    waves = _waves(size, argument(node, "onesided") is not False, argument(node, "normalized"))
    left = (size - length) // 2
    inside = (left, size - length - left)
    if window is None:
        waves = waves * torch.nn.functional.pad(torch.ones(length), inside)
        kernel = _held(program, node, waves[:, None])
    else:
        kernel = _held(program, node, waves[:, None])
        if inside != (0, 0):
            window = _new(node, aten.pad.default, window, [*inside])
        kernel = _new(node, aten.mul.Tensor, kernel, window)
    signal = _new(node, aten.unsqueeze.default, read_by(node), 1)
    both = _new(node, aten.conv1d.default, signal, kernel, None, [hop])
    return _halves(node, both, 1)


def _of_a_dimension(program: fx.GraphModule, node: fx.Node) -> Pair:
    """The transform of one dimension, which may be cut or filled up with zeros first."""
    x, size, dim = read_by(node), argument(node, "n"), argument(node, "dim")
    rank, norm = x.meta["val"].dim(), argument(node, "norm")
    dim = (-1 if dim is None else dim) % rank
    x = _new(node, aten.transpose.int, x, dim, rank - 1)
    there = x.meta["val"].shape[-1]
    size = there if size is None else size
    if size > there:
        x = _new(node, aten.pad.default, x, [0, size - there])
    elif size < there:
        x = _new(node, aten.slice.Tensor, x, rank - 1, 0, size)
    scale = {"ortho": size**-0.5, "forward": 1 / size}.get(norm, 1.0)
    waves = _held(program, node, scale * _waves(size, True, False).T)
    both = _new(node, aten.matmul.default, x, waves)
    real, imaginary = _halves(node, both, rank - 1)
    return (
        _new(node, aten.transpose.int, real, dim, rank - 1),
        _new(node, aten.transpose.int, imaginary, dim, rank - 1),
    )


TRANSFORMS: Mapping[Any, Callable[[fx.GraphModule, fx.Node], Pair]] = {
    aten.stft.default: _short_time,
    aten.fft_rfft.default: _of_a_dimension,
}
"""By operator that makes complex values of real ones, the same in real ones."""


def _waves(size: int, one_sided: bool, normalized: bool) -> Tensor:
    """The waves of F frequencies, as (2 F, size): cosines, and then sines with a minus."""
    count = size // 2 + 1 if one_sided else size
    turns = torch.outer(torch.arange(count), torch.arange(size)) % size
    angles = 2 * math.pi * turns.double() / size
    waves = torch.cat([angles.cos(), -angles.sin()]).float()
    return waves * size**-0.5 if normalized else waves


def _halves(place: fx.Node, both: fx.Node, dim: int) -> Pair:
    half = both.meta["val"].shape[dim] // 2
    real, imaginary = (
        _new(place, aten.slice.Tensor, both, dim, start, start + half) for start in (0, half)
    )
    return real, imaginary


def _in_reals(node: fx.Node, pairs: Mapping[fx.Node, Pair]) -> Pair | fx.Node | None:
    """What a node does to complex values, in real ones: their parts, or a real value; None if that
    isn't known."""
    if node.target in ON_BOTH_PARTS:
        return _on_both(node, pairs)
    if node.target in PRODUCTS:
        return _product(node, pairs)
    if node.target in SUMS:
        return _sum(node, pairs)
    form = FORMS.get(node.target)
    return None if form is None else form(node, *pairs[read_by(node)])


def _on_both(node: fx.Node, pairs: Mapping[fx.Node, Pair]) -> Pair | None:
    values = node.meta["val"]
    if not isinstance(values, Tensor):
        return None
    if any(
        source not in pairs and isinstance(source.meta.get("val"), Tensor)
        for source in node.all_input_nodes
    ):
        return None

    def of_part(place: int) -> fx.Node:
        args, kwargs = fx.map_arg(
            (node.args, node.kwargs), lambda n: pairs[n][place] if n in pairs else n
        )
        return _new(node, node.target, *args, **kwargs)

    return of_part(0), of_part(1)


def _product(node: fx.Node, pairs: Mapping[fx.Node, Pair]) -> Pair | None:
    """Of two complex values, or of one and a real one."""
    left, right = _operands(node)
    if left in pairs and right in pairs:
        if node.target is not aten.mul.Tensor:
            return None
        (a, b), (c, d) = pairs[left], pairs[right]

        def times(x: fx.Node, y: fx.Node) -> fx.Node:
            return _new(node, aten.mul.Tensor, x, y)

        return (
            _new(node, aten.sub.Tensor, times(a, c), times(b, d)),
            _new(node, aten.add.Tensor, times(a, d), times(b, c)),
        )
    if left in pairs and _is_real(right):
        real, imaginary = (_new(node, node.target, part, right) for part in pairs[left])
        return real, imaginary
    if right in pairs and _is_real(left) and node.target is aten.mul.Tensor:
        real, imaginary = (_new(node, node.target, left, part) for part in pairs[right])
        return real, imaginary
    return None


def _sum(node: fx.Node, pairs: Mapping[fx.Node, Pair]) -> Pair | None:
    """Of two complex values."""
    left, right = _operands(node)
    if left not in pairs or right not in pairs or argument(node, "alpha") not in (None, 1):
        return None
    real, imaginary = (
        _new(node, node.target, *parts) for parts in zip(pairs[left], pairs[right], strict=True)
    )
    return real, imaginary


def _operands(node: fx.Node) -> tuple[Any, Any]:
    left, right = node.args[:2]
    return left, right


def _is_real(value: Any) -> bool:
    if isinstance(value, fx.Node):
        held = value.meta.get("val")
        return not (isinstance(held, Tensor) and held.is_complex())
    return isinstance(value, int | float)


PRODUCTS = {aten.mul.Tensor, aten.div.Tensor, aten.mul.Scalar, aten.div.Scalar}
SUMS = {aten.add.Tensor, aten.sub.Tensor}
FORMS: Mapping[Any, Callable[[fx.Node, fx.Node, fx.Node], Pair | fx.Node]] = {
    aten.real.default: lambda node, a, b: a,
    aten.imag.default: lambda node, a, b: b,
    aten._conj.default: lambda node, a, b: (a, _new(node, aten.neg.default, b)),
    aten.resolve_conj.default: lambda node, a, b: (a, b),
    aten.view_as_real.default: lambda node, a, b: _new(node, aten.stack.default, [a, b], -1),
    aten.angle.default: lambda node, a, b: _new(node, aten.atan2.default, b, a),
    aten.abs.default: lambda node, a, b: _new(node, aten.sqrt.default, _squared(node, a, b)),
}
"""By operator of one complex value, its form in the real and the imaginary part."""


def _squared(node: fx.Node, a: fx.Node, b: fx.Node) -> fx.Node:
    squares = [_new(node, aten.mul.Tensor, part, part) for part in (a, b)]
    return _new(node, aten.add.Tensor, *squares)


def _held(program: fx.GraphModule, place: fx.Node, tensor: Tensor) -> fx.Node:
    """A node that reads a constant, which the program holds from now on."""
    name = f"{place.name}_waves"
    program.register_buffer(name, tensor)
    node = insert_before(place, name)
    (mode,) = {value.fake_mode for value in _tensors(place) if hasattr(value, "fake_mode")}
    node.meta["val"] = mode.from_tensor(tensor, static_shapes=True)
    return node


def _tensors(node: fx.Node) -> list[Any]:
    return [source.meta["val"] for source in node.all_input_nodes if "val" in source.meta]


def _new(place: fx.Node, target: Any, *args: Any, **kwargs: Any) -> fx.Node:
    """A node in front of another one, which knows what it computes."""
    node = insert_before(place, target, *args, **kwargs)
    values, others = fx.map_arg((args, kwargs), lambda source: source.meta["val"])
    node.meta["val"] = target(*values, **others)
    return node
