"""The layers of an ONNX file whose 16-bit sums may saturate on x86 processors without VNNI.

Only the file is examined: its integer weights, and the type of the values that they are multiplied
with. So this also works for files of other tools. See `penjing.arith.saturation`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import onnx
import torch
from onnx import numpy_helper

from penjing.arith.saturation import saturates
from penjing.contract import Array, Saturating
from penjing.network.analysis.saturation import is_depthwise

OPERATORS = {
    "QLinearConv": 3, "ConvInteger": 1, "QLinearMatMul": 3, "MatMulInteger": 1, "QGemm": 3,
    "DynamicQuantizeMatMul": 1, "MatMulIntegerToFloat": 1,
}  # fmt: skip
"""The position of the weight among the inputs of each integer operator."""
FLOATS = {"Conv", "MatMul", "Gemm"}
"""Operators that become integer operators if both of their inputs are dequantized."""
LARGEST = 255
"""The largest 8-bit value. Signed values are shifted up by 128 before they are multiplied."""
BYTES = {onnx.TensorProto.INT8, onnx.TensorProto.UINT8}


def saturating(model: onnx.ModelProto) -> list[Saturating]:
    """The layers that may saturate, in order; empty if none can."""
    layers = []
    file = _File(model)
    for node, weight in file.integer_layers():
        over = saturates(torch.from_numpy(weight.copy()), LARGEST)
        if bool(over.any()):
            name = node.name.rpartition("/")[0] or node.name or node.output[0]
            layers.append(Saturating(name, int(over.sum()), len(over)))
    return layers


class _File:
    def __init__(self, model: onnx.ModelProto) -> None:
        self.graph = model.graph
        self.constants = {constant.name: constant for constant in self.graph.initializer}
        self.makers = {name: node for node in self.graph.node for name in node.output}

    def integer_layers(self) -> Iterator[tuple[onnx.NodeProto, Array]]:
        """Each node that multiplies 8-bit values with its own int8 weights, and those weights, with
        one row per output channel."""
        for node in self.graph.node:
            if node.op_type in OPERATORS:
                codes = self.codes(node.input[OPERATORS[node.op_type]])
            elif node.op_type in FLOATS and self.dequantizes(node.input[0]):
                codes = self.dequantized(node.input[1])
            else:
                continue
            if codes is None or codes.dtype != np.int8 or codes.ndim < 2:
                continue
            groups = _attribute(node, "group", 1)
            if not node.op_type.startswith(("Conv", "QLinearConv")):
                turned = bool(_attribute(node, "transB", 0))
                codes = codes if turned else np.moveaxis(codes, -1, 0)
            elif is_depthwise(codes.shape[0], groups, codes.shape[1]):
                continue
            yield node, codes.reshape(len(codes), -1)

    def dequantizes(self, name: str) -> bool:
        """Whether the value is dequantized from computed integers."""
        node = self.makers.get(name)
        if node is None or node.op_type != "DequantizeLinear":
            return False
        return node.input[0] not in self.constants

    def dequantized(self, name: str) -> Array | None:
        """The integers from which a constant is dequantized; None for any other value."""
        node = self.makers.get(name)
        if node is not None and node.op_type == "Transpose":
            return _turned(self.dequantized(node.input[0]), node)
        known = node is not None and node.op_type == "DequantizeLinear"
        return self.codes(node.input[0]) if node is not None and known else None

    def codes(self, name: str) -> Array | None:
        """A constant of 8-bit integers; None if it is computed or of another type."""
        node, tensor = self.makers.get(name), self.constants.get(name)
        if node is not None and node.op_type == "Transpose":
            return _turned(self.codes(node.input[0]), node)
        if node is not None and node.op_type == "Constant":
            tensor = _attribute(node, "value", None)
        if tensor is None or tensor.data_type not in BYTES:
            return None
        return numpy_helper.to_array(tensor)


def _turned(codes: Array | None, by: onnx.NodeProto) -> Array | None:
    return None if codes is None else np.transpose(codes, _attribute(by, "perm", None))


def _attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    for attribute in node.attribute:
        if attribute.name == name:
            return onnx.helper.get_attribute_value(attribute)
    return default
