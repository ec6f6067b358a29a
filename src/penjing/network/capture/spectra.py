"""Spectra: a short-time Fourier transform, written as one convolution.

`torch.export` would break it up into steps that hold the batch size of the example. As a
convolution, whose kernels are the transform's waves, it takes any batch, and every runtime has it.
What its complex numbers become in a file is said in `penjing.network.lowering.complex`.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from penjing.arith.fourier import fourier_matrix
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.surgery import insert_before, replace

aten = torch.ops.aten


def spell_out_spectra(program: fx.GraphModule) -> None:
    """Write each short-time Fourier transform as a convolution, in place.

    Args:
        program: a graph as `torch.export` made it, whose nodes have their `meta["val"]`.
    """
    for node in list(program.graph.nodes):
        if node.target is aten.stft.default:
            spectrum = _short_time(program, node)
            is_complex = node.meta["val"].is_complex()
            replace(
                node, spectrum if is_complex else _new(node, aten.view_as_real.default, spectrum)
            )


def _short_time(program: fx.GraphModule, node: fx.Node) -> fx.Node:
    """x_NL -> complex y_NFT: a convolution whose 2 F kernels are waves within the window."""
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
    half = both.meta["val"].shape[1] // 2
    parts = [_new(node, aten.slice.Tensor, both, 1, start, start + half) for start in (0, half)]
    return _new(node, aten.complex.default, *parts)


def _waves(size: int, one_sided: bool, normalized: bool) -> Tensor:
    """The waves of F frequencies, as (2 F, size): cosines, and then sines with a minus."""
    matrix = fourier_matrix(size, size, inverse=False, half=one_sided).T
    waves = torch.cat([matrix.real, matrix.imag]).float()
    return waves * size**-0.5 if normalized else waves


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
