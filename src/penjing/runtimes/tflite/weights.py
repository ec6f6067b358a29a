"""Weights of a `.tflite` file in fewer bytes, each with a DEQUANTIZE that converts it to float32.

TensorFlow Lite's own float16 files look the same. XNNPACK and the interpreter's kernels compute
constants once, when the file is loaded, so the layers run on float32.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from numpy.typing import NDArray

from penjing.runtimes.half import LEAST_NUMBERS, require_in_range
from penjing.runtimes.tflite import file as tflite_file

KIND, DEQUANTIZE = "DEQUANTIZE", schema.BuiltinOperator.DEQUANTIZE
VERSIONS = {schema.TensorType.FLOAT16: 3, schema.TensorType.INT8: 5}
"""The first version of DEQUANTIZE that takes float16, and the first with per-channel scales."""


def halve(model: Any) -> None:
    """Store float constants as float16, in place.

    Raises:
        InputError: a number is beyond the range of float16. The message names its tensor.
    """
    made = []
    for position in range(len(model.subgraphs[0].tensors)):
        values = _real(model, position)
        if values is not None and values.size >= LEAST_NUMBERS:
            require_in_range(_name(model, position), values)
            half = values.astype(np.float16)
            made.append(_store(model, position, half, schema.TensorType.FLOAT16))
    _put_first(model, made)


def round_weights(model: Any, scales: Mapping[int, NDArray[np.float32]]) -> None:
    """Store float weights that are multiples of a scale as int8, in place.

    Args:
        model: the file, as `read` of `file` gives it.
        scales: the scale of each channel, by the position of a weight of shape (channels, inputs).
    """
    made = []
    for position, scale in scales.items():
        values, sizes = _real(model, position), np.abs(scale)
        if values is None:
            continue
        whole = np.rint(values.reshape(len(scale), -1) / sizes[:, None]).astype(np.int8)
        operator = _store(model, position, whole, schema.TensorType.INT8)
        qparams = schema.QuantizationParametersT()
        qparams.scale, qparams.zeroPoint, qparams.quantizedDimension = (
            sizes,
            np.zeros(len(scale), int),
            0,
        )
        model.subgraphs[0].tensors[operator.inputs[0]].quantization = qparams
        made.append(operator)
    _put_first(model, made)


def holding(model: Any, values: NDArray[np.float32]) -> list[int]:
    """The positions of the float constants that hold exactly these numbers."""
    positions = []
    for position, tensor in enumerate(model.subgraphs[0].tensors):
        held = _real(model, position)
        same_shape = list(map(int, tensor.shape)) == list(values.shape)
        if held is not None and same_shape and np.array_equal(held, values.reshape(-1)):
            positions.append(position)
    return positions


def codes(model: Any) -> int:
    """How many numbers the file holds as int8."""
    tensors = model.subgraphs[0].tensors
    buffers = {tensor.buffer for tensor in tensors if tensor.type == schema.TensorType.INT8}
    return sum(len(data) for index in buffers if (data := model.buffers[index].data) is not None)


def sources(model: Any) -> dict[int, int]:
    """The position of the constant that each DEQUANTIZE reads, by the position of its output."""
    return {
        operator.outputs[0]: operator.inputs[0]
        for operator in tflite_file.operators(model)
        if operator.kind == KIND and tflite_file.is_constant(model, operator.inputs[0])
    }


def _real(model: Any, position: int) -> NDArray[np.float32] | None:
    """The numbers of a float32 constant; None for any other tensor."""
    tensor = model.subgraphs[0].tensors[position]
    if tensor.type != schema.TensorType.FLOAT32 or not tflite_file.is_constant(model, position):
        return None
    return np.asarray(model.buffers[tensor.buffer].data).view(np.float32)


def _name(model: Any, position: int) -> str:
    return tflite_file.text(model.subgraphs[0].tensors[position].name)


def _store(model: Any, position: int, values: NDArray[Any], kind: int) -> Any:
    """Let a new operator compute a tensor from these stored values, and return that operator."""
    graph, buffer = model.subgraphs[0], schema.BufferT()
    buffer.data = np.frombuffer(values.tobytes(), np.uint8)
    real = graph.tensors[position]
    stored = copy.copy(real)
    stored.type, stored.buffer = kind, len(model.buffers)
    real.name, real.buffer = f"{_name(model, position)}/{KIND}", 0
    model.buffers.append(buffer)
    graph.tensors.append(stored)
    made = schema.OperatorT()
    made.inputs, made.outputs = [len(graph.tensors) - 1], [position]
    made.opcodeIndex = tflite_file.opcode(model, DEQUANTIZE, VERSIONS[kind])
    return made


def _put_first(model: Any, operators: Iterable[Any]) -> None:
    """Let these operators run before all others, and empty the buffers that are now unused."""
    graph = model.subgraphs[0]
    graph.operators = [*operators, *graph.operators]
    read = {tensor.buffer for graph in model.subgraphs for tensor in graph.tensors}
    read |= {entry.buffer for entry in model.metadata or []}
    for place, buffer in enumerate(model.buffers):
        if place not in read:
            buffer.data = None
