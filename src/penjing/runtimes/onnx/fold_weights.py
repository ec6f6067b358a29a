"""Integer weights of an ONNX file in which no value is rounded: real again when it is loaded.

ONNX Runtime computes a DequantizeLinear anew at each run (2.2 times the time of a ResNet-20), and
where a MatMul reads it, rounds the other factor too. A Cast and a Mul of constants it folds when it
loads the file: what runs then is the network of real numbers, with the same weights to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penjing.runtimes.onnx.trimming import drop_unread


def fold_when_loaded(model: onnx.ModelProto) -> None:
    """Write, in place, each weight's DequantizeLinear as a Cast and a Mul; unless values are
    rounded, for then it is fused into an integer kernel."""
    graph = model.graph
    if any(node.op_type == "QuantizeLinear" for node in graph.node):
        return
    constants = {constant.name: constant for constant in graph.initializer}
    nodes = []
    for node in graph.node:
        if not _is_plain(node, constants):
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


def _is_plain(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Whether it stands for codes times one scale, or one scale for each channel."""
    if node.op_type != "DequantizeLinear" or not set(node.input) <= set(constants):
        return False
    codes, scale, *zero = (constants[name] for name in node.input)
    if any(np.any(numpy_helper.to_array(tensor)) for tensor in zero) or scale.dims[1:]:
        return False
    return codes.data_type == TensorProto.INT8 and scale.data_type == TensorProto.FLOAT
