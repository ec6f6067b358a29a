"""A Network as a `.tflite` file: the integers that the quantizer chose, names that people can read.

The file holds one sample, with the inputs laid out as the model has them. LiteRT fuses a layer
into one integer kernel where quantize and dequantize operators stand around it. So the network is
written in the form that torchao's quantizer gives: weights are real numbers, rounded to their
scales. What LiteRT computes on integers only as a layer is written as one
(`penjing.network.lowering.as_convolutions`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from penjing.arith.fake_quantize import fake_quantize
from penjing.contract import Array
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.graph.layers import CONVOLUTIONS, Layer, layers_of
from penjing.network.graph.qparams import QParams, alone_qparams, value_qparams, weight_qparams
from penjing.network.graph.shapes import shapes
from penjing.network.lowering.form import Form, Kind
from penjing.network.lowering.integers import ROUNDING
from penjing.network.lowering.lower import lowered
from penjing.quiet import quiet_below
from penjing.runtimes.converters import converting
from penjing.runtimes.flat import Flat
from penjing.runtimes.interface import (
    not_by_sample,
    not_in_eight_bits,
    one_sample,
    output_names,
    structure_of,
)
from penjing.runtimes.tflite import file as tflite_file
from penjing.runtimes.tflite import int16 as tflite_int16
from penjing.runtimes.tflite import weights as tflite_weights
from penjing.tasks.task import as_call, batch_dims

aten = torch.ops.aten
KINDS: tuple[Kind, ...] = ("moves", "averages", "maxima", "gates")
FORM = Form(
    torch.int8, codes=False, one_reader=True, choices=True, real_softmax=True, pools=True,
    recurrence=(), convolutions=KINDS, int16=True,
)  # fmt: skip
"""The converter mixes up the layouts of values if several operators read one dequantize."""
CONVOLVING = ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D")
KERNELS = (*CONVOLVING, "FULLY_CONNECTED")


def problems(network: Network) -> list[str]:
    """What of a network's integers and outputs a `.tflite` file can't hold, one line each."""
    return not_by_sample(network) + not_in_eight_bits(network, "LiteRT")


def to_tflite(network: Network, floats: str = "float32") -> bytes:
    """The file's bytes; `floats` as `Runtime.lower` takes it.

    Raises:
        InputError: an operator or integers that the converter lacks, an output that doesn't hold
            one entry for each sample, or a weight beyond float16's range; the message names it.
    """
    if stands_against := problems(network):
        raise InputError(stands_against[0])
    args, kwargs = as_call(network.example)
    rounded = _is_rounded(network)
    with network.evaluating():
        known = _known(network, network(*args, **kwargs))
        wide = _wide_scales(network)
        left = _Left.of(network, real_values=not _rounds_values(network))
        plain = lowered(network, FORM)
        sample = tuple(torch.utils._pytree.tree_leaves(one_sample(network.example)))
        layers = layers_of(plain)
        content = _convert(Flat(plain), sample, rounded)
    model = tflite_file.read(content)
    _put_in_order(model)
    tflite_int16.widen(model, wide)
    gives = output_names(known["outputs"], len(model.signatureDefs[0].outputs))
    tflite_file.name_ends(model, network.input_names, gives)
    owners = _owners(model, layers, shapes(plain))
    _name(model, owners)
    if rounded:
        _round_weights(model, left)
    if floats == "float16":
        tflite_weights.halve(model)
    tflite_file.note(model, known)
    return tflite_file.write(model)


def _wide_scales(network: Network) -> list[float]:
    """The scales of the values of 16 bits."""
    wide = [qparams for qparams in value_qparams(network) if qparams.is_wide]
    return [float(network.tensor(qparams.scale).detach()) for qparams in wide]


def _is_rounded(network: Network) -> bool:
    return any(node.target in ROUNDING for node in network.calls())


def _rounds_values(network: Network) -> bool:
    weights = (*weight_qparams(network).values(), *alone_qparams(network))
    nodes = {qparams.node for qparams in weights}
    return any(node.target in ROUNDING and node not in nodes for node in network.calls())


def _known(network: Network, outputs: Any) -> dict[str, Any]:
    """What a session must know: the inputs, and how outputs are handed back."""
    args, kwargs = as_call(network.example)
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    dims = batch_dims(leaves, True)
    inputs = [
        {
            "name": name,
            "dtype": str(leaf.dtype).removeprefix("torch."),
            "batched": bool(dims[id(leaf)]),
        }
        for name, leaf in zip(network.input_names, leaves, strict=True)
    ]
    return {"inputs": inputs, "outputs": structure_of(outputs)}


def _convert(flat: Flat, sample: tuple[torch.Tensor, ...], rounded: bool) -> bytes:
    with quiet_below():
        import litert_torch
        from litert_torch.quantize import pt2e_quantizer
        from litert_torch.quantize.quant_config import QuantConfig

        config = None
        if rounded:  # what it holds doesn't matter but for one thing: the integers are static
            quantizer = pt2e_quantizer.PT2EQuantizer()
            static = pt2e_quantizer.get_symmetric_quantization_config(is_per_channel=True)
            config = QuantConfig(pt2e_quantizer=quantizer.set_global(static))
        with converting("the LiteRT converter"), torch.no_grad():
            made = litert_torch.convert(flat, sample, quant_config=config)
            content: bytes = made.model_content()
    return content


def _put_in_order(model: Any) -> None:
    """Inputs and outputs in the order of the model's own; the converter's names number them."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for tensors, prefix in ((signature.inputs, "args_"), (signature.outputs, "output_")):
        tensors.sort(key=lambda tensor, prefix=prefix: int(_text(tensor.name).removeprefix(prefix)))
    graph.inputs = [tensor.tensorIndex for tensor in signature.inputs]
    graph.outputs = [tensor.tensorIndex for tensor in signature.outputs]


@dataclass(frozen=True)
class _Left:
    """What the converter leaves real of a network's integer weights: those of linear layers, if
    values are real numbers, and the matrices of recurrent layers, which all steps of the unrolled
    recurrence read.

    Attributes:
        linear, alone: their real numbers, and the scales that make integers of them.
        convolving: the integers of all other layers.
    """

    linear: Sequence[tuple[Array, Array]]
    alone: Sequence[tuple[Array, Array]]
    convolving: int

    @classmethod
    def of(cls, network: Network, real_values: bool) -> _Left:
        layers = weight_qparams(network) if real_values else {}
        linear = {layers[node].source_name: layers[node] for node in layers
                  if node.target not in CONVOLUTIONS}  # fmt: skip
        names = {qparams.source_name for qparams in layers.values()} - linear.keys()

        def parts(qparams: QParams) -> tuple[Array, Array]:
            steps = network.tensor(qparams.scale).detach().cpu()
            weight = network.tensor(qparams.source_name).detach().cpu()
            real = fake_quantize(weight, steps, 0, qparams.low, qparams.high)
            return real.numpy(), steps.numpy()

        return cls(
            [parts(qparams) for qparams in linear.values()],
            [parts(qparams) for qparams in alone_qparams(network)],
            sum(network.tensor(name).numel() for name in names),
        )


def _round_weights(model: Any, left: _Left) -> None:
    """Store them as integers. They are found by their numbers.

    Raises:
        InputError: some quantized weights aren't multiples of their scales any more, or are still
            real numbers.
    """
    places = [tflite_weights.holding(model, real) for real, _ in left.linear]
    changed = sum(
        real.size for (real, _), some in zip(left.linear, places, strict=True) if not some
    )
    missing = changed + max(0, left.convolving - tflite_weights.codes(model))
    if missing:
        whole = left.convolving + sum(real.size for real, _ in left.linear)
        raise InputError(
            f"the LiteRT converter keeps {missing} of {whole} integer weights as real numbers, as "
            "where it multiplies them by a norm's; round values too: Quantize(outputs=True)"
        )
    places += [tflite_weights.holding(model, real) for real, _ in left.alone]
    scales = {
        place: steps
        for (_, steps), some in zip((*left.linear, *left.alone), places, strict=True)
        for place in some
    }
    tflite_weights.round_weights(model, scales)


def _name(model: Any, owners: Mapping[int, str]) -> None:
    """Name operators by the layer whose weight they use, and weights as the model does."""
    graph = model.subgraphs[0]
    stored = tflite_weights.sources(model)
    taken = {str(tensor.name) for tensor in graph.tensors}
    for place, operator in enumerate(tflite_file.operators(model)):
        owner = owners.get(place, "")
        name = f"{owner}/{operator.kind}" if owner else f"/{operator.kind}.{place}"
        name = f"{name}.{place}" if name in taken else name
        taken.add(name)
        for k, output in enumerate(operator.outputs):
            graph.tensors[output].name = f"{name}:{k}" if k else name
        if owner:
            for position, part in zip(operator.inputs[1:3], ("weight", "bias"), strict=False):
                position = stored.get(position, position)
                if position >= 0 and tflite_file.is_constant(model, position):
                    graph.tensors[position].name = f"{owner}.{part}"


def _owners(model: Any, layers: list[torch.fx.Node], known: Any) -> dict[int, str]:
    """By the place of an operator with weights, the layer that these are of.

    The converter keeps the order of layers; where their number or a shape says otherwise (it split
    one, or folded one away) nothing is claimed.
    """
    owners: dict[int, str] = {}
    stored = tflite_weights.sources(model)
    placed = list(enumerate(tflite_file.operators(model)))
    for kinds, wanted in (
        (CONVOLVING, [layer for layer in layers if layer.target in CONVOLUTIONS]),
        (("FULLY_CONNECTED",), [layer for layer in layers if layer.target not in CONVOLUTIONS]),
    ):
        mine = [
            (place, operator)
            for place, operator in placed
            if operator.kind in kinds
            and (operator.inputs[1] in stored or tflite_file.is_constant(model, operator.inputs[1]))
        ]
        sizes = [
            sorted(model.subgraphs[0].tensors[operator.inputs[1]].shape) for _, operator in mine
        ]
        if sizes == [sorted(known[Layer(layer).weight]) for layer in wanted]:
            owners |= {
                place: str(layer.meta["layer"])
                for (place, _), layer in zip(mine, wanted, strict=True)
            }
    return owners


_text = tflite_file.text
