"""Integer weights in an ONNX file whose values are floats, so that they become floats at loading.

ONNX Runtime computes a DequantizeLinear again on each run (a ResNet-20 took 2.2 times as long). If
a MatMul reads it, ONNX Runtime also rounds the other factor. But it folds a Cast and a Mul of
constants when it loads the file. Then it runs the float network, with bit-identical weights. So
do recurrent layers even where values are rounded, for they have no integer kernel.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penjing.runtimes.onnx.trimming import drop_unread

RECURRENT = ("GRU", "LSTM", "RNN")
REORDERS = ("Slice", "Concat", "Unsqueeze")


def fold_when_loaded(model: onnx.ModelProto) -> None:
    """Replace the DequantizeLinear of each weight by a Cast and a Mul, in place.

    If values are quantized too, those of other layers than recurrent ones stay, because ONNX
    Runtime then fuses them into integer kernels.
    """
    graph = model.graph
    rounds_values = any(node.op_type == "QuantizeLinear" for node in graph.node)
    recurrent = _read_by_recurrent_layers(graph)
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        stays = rounds_values and node.output[0] not in recurrent
        if stays or not _is_plain(node, constants):
            nodes.append(node)
            continue
        codes, scale = (constants[name] for name in node.input[:2])
        axis = next((attribute.i for attribute in node.attribute if attribute.name == "axis"), 1)
        wide = [n if k == axis else 1 for k, n in enumerate(codes.dims)] if scale.dims else []
        steps = numpy_helper.to_array(scale).reshape(wide)
        real, own = (f"{node.output[0]}/{what}" for what in ("real", "steps"))
        graph.initializer.append(numpy_helper.from_array(steps, own))
        nodes.append(helper.make_node("Cast", [codes.name], [real], to=TensorProto.FLOAT))
        nodes.append(helper.make_node("Mul", [real, own], node.output))
    del graph.node[:]
    graph.node.extend(nodes)
    drop_unread(graph)


def _read_by_recurrent_layers(graph: onnx.GraphProto) -> set[str]:
    """The values that these operators read, also if their gates are put into another order."""
    read: set[str] = set()
    for node in reversed(graph.node):  # readers come after what they read
        if node.op_type in RECURRENT or (node.op_type in REORDERS and set(node.output) & read):
            read |= set(node.input)
    return read


def _is_plain(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it multiplies int8 constants by one scale, or by one scale per channel."""
    if node.op_type != "DequantizeLinear" or not set(node.input) <= set(constants):
        return False
    codes, scale, *zero = (constants[name] for name in node.input)
    if any(np.any(numpy_helper.to_array(tensor)) for tensor in zero) or scale.dims[1:]:
        return False
    return codes.data_type == TensorProto.INT8 and scale.data_type == TensorProto.FLOAT
