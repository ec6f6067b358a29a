"""The layers of an OpenVINO file whose 16-bit sums may saturate on x86 processors without VNNI.

Only the graph is examined: int8 weights that are dequantized, and values that are quantized. So
this also works for files of other tools. See `penjing.arith.saturation`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from penjing.arith.saturation import saturates
from penjing.contract import Array, Saturating
from penjing.network.analysis.saturation import is_depthwise

LARGEST = 255
"""The largest 8-bit value. Signed values are shifted up by 128 before they are multiplied."""
CONVOLUTIONS = {"Convolution", "GroupConvolution"}
LAYERS = CONVOLUTIONS | {"MatMul"}
REAL_AGAIN = {"Multiply", "Subtract", "Convert", "Reshape", "Transpose"}
"""Operators that may stand between integers and the layer that reads them as floats."""
MOVES = {"Reshape", "Transpose", "Squeeze", "Unsqueeze", "MaxPool", "Concat", "Pad", "StridedSlice"}


def saturating(model: Any) -> list[Saturating]:
    """The layers of an `openvino.Model` that may saturate, in order; empty if none can."""
    layers = []
    for node in model.get_ordered_ops():
        if node.get_type_name() not in LAYERS or not _is_rounded(node.input_value(0).get_node()):
            continue
        codes = _codes(node.input_value(1).get_node())
        rows = None if codes is None else _rows(node, codes)
        if rows is None:
            continue
        over = saturates(torch.from_numpy(rows.copy()), LARGEST)
        if bool(over.any()):
            name = node.get_friendly_name()
            layers.append(Saturating(name.rpartition("/")[0] or name, int(over.sum()), len(over)))
    return layers


def _codes(node: Any) -> Array | None:
    """The integers of a weight; None if it isn't an int8 constant."""
    while node.get_type_name() in REAL_AGAIN:
        node = node.input_value(0).get_node()
    if node.get_type_name() != "Constant" or node.get_element_type().to_dtype() != np.int8:
        return None
    return np.asarray(node.get_data())


def _rows(node: Any, codes: Array) -> Array | None:
    """One row for each output channel; None for depthwise layers, where nothing is added."""
    kind = node.get_type_name()
    if kind == "GroupConvolution":  # groups, outputs of each, inputs of each, window
        groups, outputs, inputs = list(node.input_value(1).get_shape())[:3]
        if is_depthwise(groups * outputs, groups, inputs):
            return None
        return codes.reshape(groups * outputs, -1)
    if kind == "MatMul" and not node.get_attributes()["transpose_b"]:
        codes = np.moveaxis(codes, -1, 0)
    return codes.reshape(len(codes), -1) if codes.ndim > 1 else None


def _is_rounded(node: Any) -> bool:
    """Whether the value is computed and quantized to eight bits."""
    while True:
        kind = node.get_type_name()
        if kind == "FakeQuantize":
            return int(node.get_attributes()["levels"]) <= LARGEST + 1
        if kind == "Convert":
            return node.input_value(0).get_element_type().to_dtype() in (np.int8, np.uint8)
        if kind not in REAL_AGAIN | MOVES:
            return False
        node = node.input_value(0).get_node()
