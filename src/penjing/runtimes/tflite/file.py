"""A `.tflite` file: its operators by name, the size of its weights, and penjing's note in it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from penjing.contract import Json
from penjing.errors import InputError
from penjing.runtimes.signature import Signature, TensorSpec
from penjing.strict_json import parse

KEY = "penjing"
"""The key in a file's metadata for penjing's note: the inputs and the outputs' structure, as JSON.
"""
IDENTIFIER = b"TFL3"
ALIGNMENT = 16
KINDS = {
    code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")
}


TYPES = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}


@dataclass(frozen=True)
class Operator:
    """One operator of a file.

    Attributes:
        name: the name of its first output. In a file that penjing wrote, that is `layer/KIND` or
            `/KIND.position`.
        kind: such as `"CONV_2D"`. Of a custom operator, its own name.
        inputs, outputs: positions of tensors; -1 for an input that isn't given.
    """

    name: str
    kind: str
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


NUMBERS = (schema.TensorType.FLOAT32, schema.TensorType.FLOAT16, schema.TensorType.INT8)
"""Types of which constants are weights; other integers may be shapes."""


def read(content: bytes) -> Any:
    """Parse the file into the objects of its schema.

    Raises:
        InputError: the bytes aren't a `.tflite` file, or an incomplete one.
    """
    try:
        if content[4:8] != IDENTIFIER:
            raise ValueError("it has another identifier")
        model = schema.ModelT.InitFromPackedBuf(content, 0)
        if not model.subgraphs or not model.operatorCodes or not model.buffers:
            raise ValueError("it has no operators")
    except Exception as error:  # broken offsets can raise anything
        raise InputError("this isn't a .tflite file, or it is incomplete") from error
    return model


def write(model: Any) -> bytes:
    """The bytes of the file, with each buffer aligned as kernels and accelerators require."""
    for buffer in model.buffers:
        buffer.__class__ = _Aligned
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), IDENTIFIER)
    return bytes(builder.Output())


class _Aligned(schema.BufferT):  # type: ignore[misc]
    """A buffer with the alignment that the schema requires, which the Python schema forgets."""

    def Pack(self, builder: Any) -> Any:
        data = None
        if self.data is not None:
            content = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), ALIGNMENT)
            builder.head -= len(content)
            builder.Bytes[builder.head : builder.head + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        schema.BufferAddOffset(builder, self.offset)
        schema.BufferAddSize(builder, self.size)
        return schema.BufferEnd(builder)


def opcode(model: Any, number: int, version: int) -> int:
    """The position of an operator's kind, of a version, in the file's list. It is added if missing.

    Args:
        number: of the kind, in the schema's `BuiltinOperator`.
        version: the first one of the kernel that takes what the operator reads.
    """
    for place, code in enumerate(model.operatorCodes):
        if code.builtinCode == number and code.version == version:
            return place
    made = schema.OperatorCodeT()
    made.builtinCode, made.deprecatedBuiltinCode = number, min(number, 127)
    made.version = version
    model.operatorCodes.append(made)
    return len(model.operatorCodes) - 1


def operators(model: Any) -> list[Operator]:
    """The operators of the main graph, in the order of execution."""
    graph = model.subgraphs[0]
    in_order = []
    for operator in graph.operators or []:
        code = model.operatorCodes[operator.opcodeIndex]
        number = max(code.builtinCode, code.deprecatedBuiltinCode)
        kind = text(code.customCode) if code.customCode is not None else KINDS[number]
        outputs = tuple(int(k) for k in operator.outputs)
        name = text(graph.tensors[outputs[0]].name)
        inputs = () if operator.inputs is None else tuple(int(k) for k in operator.inputs)
        in_order.append(Operator(name, kind, inputs, outputs))
    return in_order


def is_constant(model: Any, position: int) -> bool:
    """Whether the file holds the values of the tensor at that position of the main graph."""
    buffer = model.buffers[model.subgraphs[0].tensors[position].buffer]
    return buffer.data is not None and len(buffer.data) > 0


def weight_bytes(model: Any) -> int:
    """Bytes of all weights and biases: constants that are floats or int8, or other integers with
    a scale."""
    buffers = {tensor.buffer for tensor in _weights(model)}
    return sum(len(model.buffers[index].data) for index in buffers)


def _weights(model: Any) -> Iterator[Any]:
    for graph in model.subgraphs:
        for tensor in graph.tensors:
            data = model.buffers[tensor.buffer].data
            scales = None if tensor.quantization is None else tensor.quantization.scale
            if data is not None and len(data) and (tensor.type in NUMBERS or scales is not None):
                yield tensor


def name_ends(model: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Call what the file takes and gives as the model does, in its signature and its graph."""
    graph, signature = model.subgraphs[0], model.signatureDefs[0]
    for entries, names in ((signature.inputs, inputs), (signature.outputs, outputs)):
        for entry, name in zip(entries, names, strict=True):
            entry.name = name
    taken = {text(tensor.name) for tensor in graph.tensors}
    for entry in signature.inputs:
        if entry.name not in taken:
            graph.tensors[entry.tensorIndex].name = entry.name


def signature(model: Any) -> Signature:
    """What the file takes and gives, by the names of its signature where it has one."""
    graph = model.subgraphs[0]
    named = model.signatureDefs[0] if model.signatureDefs else None
    ends = []
    for places, entries in (
        (graph.inputs, named.inputs if named else ()),
        (graph.outputs, named.outputs if named else ()),
    ):
        names = {int(entry.tensorIndex): text(entry.name) for entry in entries}
        ends.append(tuple(_spec(graph.tensors[int(k)], names.get(int(k))) for k in places))
    return Signature(*ends)


def _spec(tensor: Any, name: str | None) -> TensorSpec:
    kind = TYPES[tensor.type].lower()
    shape = tuple(map(int, tensor.shape))
    name = name or text(tensor.name)
    quantization = tensor.quantization
    if quantization is None or quantization.scale is None or len(quantization.scale) != 1:
        return TensorSpec(name, shape, kind)
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return TensorSpec(name, shape, kind, scale, zero)


def note(model: Any, known: Json) -> None:
    """Write penjing's note into the file."""
    buffer, entry = schema.BufferT(), schema.MetadataT()
    buffer.data = np.frombuffer(json.dumps(known).encode(), np.uint8)
    entry.name, entry.buffer = KEY, len(model.buffers)
    model.buffers.append(buffer)
    model.metadata = [*(model.metadata or []), entry]


def noted(model: Any) -> Json:
    """The note that `note` wrote; None for a file of another tool."""
    for entry in model.metadata or []:
        if text(entry.name) == KEY:
            return parse(bytes(model.buffers[entry.buffer].data), f"the note {KEY} in this file")
    return None


def text(value: Any) -> str:
    """A string of the schema, which may be given as bytes."""
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value or "")
