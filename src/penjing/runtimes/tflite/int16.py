"""Values of 16 bits in a `.tflite` file, which the converter can't write: int8 made int16.

The converter gets values of 16 bits as int8 with a scale `COARSER` times as large, so that it
writes integer kernels around them. In its file these tensors become int16 again. A kernel for int16
takes int16 values, int8 weights and an int64 bias, and gives int16. Where an operator has eight
bits at one end and 16 at the other, a QUANTIZE converts integers:

    8 bits read     q16 = q8 - z8, with the same scale, which loses nothing
    8 bits given    the operator gives int16 with the scale s8 / 128, and these are rounded again
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from penjing.arith.quantizer import COARSER
from penjing.runtimes.tflite import file as tflite_file

WEIGHTED = {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}
TABLES = {"LOGISTIC", "TANH"}
TABLE_SCALE = 1 / 2**15
"""The scale that kernels of sigmoid and tanh for int16 must give."""
BETWEEN = {"QUANTIZE", "DEQUANTIZE"}
FINER = 128
"""How many times finer the scale is of what is rounded to eight bits afterwards. All integers of
eight bits, whatever their zero point, then are within int16."""
INT8, INT16 = schema.TensorType.INT8, schema.TensorType.INT16
QUANTIZE = schema.BuiltinOperator.QUANTIZE
VERSIONS = {
    "ADD": 3, "AVERAGE_POOL_2D": 3, "CONCATENATION": 3, "CONV_2D": 4, "DEPTHWISE_CONV_2D": 5,
    "DEQUANTIZE": 3, "FULLY_CONNECTED": 7, "LOGISTIC": 3, "MAX_POOL_2D": 3, "MEAN": 3, "MUL": 4,
    "PAD": 3, "QUANTIZE": 2, "RELU": 3, "RELU6": 3, "SLICE": 4, "SUB": 5, "TANH": 3, "TRANSPOSE": 5,
}  # fmt: skip
"""The first version of each kind of operator that takes int16, as TensorFlow Lite tells them
(`op_version.cc`)."""


def widen(model: Any, scales: Iterable[float]) -> None:
    """Make int16 of what stands for values of 16 bits, in place.

    Args:
        model: the file, as `read` of `file` gives it.
        scales: those of the values of 16 bits.
    """
    graph = model.subgraphs[0]
    wide = {np.float32(scale * COARSER): scale for scale in scales}
    for position, tensor in enumerate(graph.tensors):
        steps = _steps(tensor)
        if len(steps) == 1 and steps[0] in wide and not tflite_file.is_constant(model, position):
            _become_int16(tensor, wide[steps[0]])
    operators = []
    for operator, told in zip(graph.operators, tflite_file.operators(model), strict=True):
        before, after = ([], []) if told.kind in BETWEEN else _around(model, operator, told.kind)
        _set_version(model, operator, told.kind)
        operators += [*before, operator, *after]
    graph.operators = operators


def _steps(tensor: Any) -> list[np.float32]:
    """The scales of an int8 tensor whose zero points are 0; none for any other tensor."""
    quantization = tensor.quantization
    if tensor.type != INT8 or quantization is None or quantization.scale is None:
        return []
    return [] if np.any(quantization.zeroPoint) else list(map(np.float32, quantization.scale))


def _become_int16(tensor: Any, scale: float) -> None:
    tensor.type, tensor.quantization = INT16, schema.QuantizationParametersT()
    tensor.quantization.scale = np.array([scale], np.float32)
    tensor.quantization.zeroPoint = np.zeros(1, np.int64)


def _around(model: Any, operator: Any, kind: str) -> tuple[list[Any], list[Any]]:
    """The operators that convert integers before and after one that has 16 bits at either end."""
    tensors = model.subgraphs[0].tensors
    operator.inputs, operator.outputs = list(operator.inputs), list(operator.outputs)
    reads = [0] if kind in WEIGHTED else range(len(operator.inputs))
    reads = [k for k in reads if operator.inputs[k] >= 0]
    ends = [*(operator.inputs[k] for k in reads), *operator.outputs]
    if not any(tensors[position].type == INT16 for position in ends):
        return [], []
    if kind in WEIGHTED and len(operator.inputs) > 2 and operator.inputs[2] >= 0:
        _widen_bias(model, operator)
    before, after = [], []
    for k in reads:
        position = operator.inputs[k]
        if tensors[position].type == INT8:
            common = operator.outputs[0] if kind == "CONCATENATION" else position
            operator.inputs[k] = _copied(model, position, float(_scale(tensors[common])))
            before.append(_quantize(model, position, operator.inputs[k]))
    for k, position in enumerate(operator.outputs):
        scale = _scale(tensors[position])
        wanted = scale / FINER if tensors[position].type == INT8 else scale
        wanted = TABLE_SCALE if kind in TABLES else wanted
        if tensors[position].type == INT8 or wanted != scale:
            operator.outputs[k] = _copied(model, position, wanted)
            after.append(_quantize(model, operator.outputs[k], position))
    if hasattr(operator.builtinOptions, "potScaleInt16"):
        operator.builtinOptions.potScaleInt16 = False
    return before, after


def _set_version(model: Any, operator: Any, kind: str) -> None:
    """Let the file say that it needs a kernel for int16, where an operator has such values."""
    tensors, code = model.subgraphs[0].tensors, model.operatorCodes[operator.opcodeIndex]
    ends = [position for position in (*operator.inputs, *operator.outputs) if position >= 0]
    if kind in VERSIONS and any(tensors[position].type == INT16 for position in ends):
        version = max(code.version, VERSIONS[kind])
        operator.opcodeIndex = tflite_file.opcode(model, code.builtinCode, version)


def _scale(tensor: Any) -> float:
    return float(tensor.quantization.scale[0])


def _copied(model: Any, position: int, scale: float) -> int:
    """The position of a new int16 tensor that is otherwise like another one."""
    tensors = model.subgraphs[0].tensors
    made = copy.copy(tensors[position])
    made.name, made.buffer = f"{tflite_file.text(made.name)}/int16", 0
    _become_int16(made, scale)
    tensors.append(made)
    return len(tensors) - 1


def _widen_bias(model: Any, operator: Any) -> None:
    """Give a layer the same bias as int64, with the scale of its sums."""
    tensors = model.subgraphs[0].tensors
    old, finer = tensors[operator.inputs[2]], 1
    if tensors[operator.inputs[0]].type == INT16:
        finer = round(COARSER)
    made, buffer = copy.copy(old), schema.BufferT()
    codes = np.asarray(model.buffers[old.buffer].data, np.uint8).view(np.int32)
    buffer.data = np.frombuffer((codes.astype(np.int64) * finer).tobytes(), np.uint8)
    made.type, made.buffer = schema.TensorType.INT64, len(model.buffers)
    made.quantization = copy.copy(old.quantization)
    made.quantization.scale = np.float32(old.quantization.scale) / np.float32(finer)
    model.buffers.append(buffer)
    tensors.append(made)
    operator.inputs[2] = len(tensors) - 1


def _quantize(model: Any, source: int, result: int) -> Any:
    made = schema.OperatorT()
    made.inputs, made.outputs = [source], [result]
    made.builtinOptionsType = schema.BuiltinOptions.QuantizeOptions
    made.builtinOptions = schema.QuantizeOptionsT()
    made.opcodeIndex = tflite_file.opcode(model, QUANTIZE, VERSIONS["QUANTIZE"])
    return made
