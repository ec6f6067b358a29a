"""Codebooks in an ONNX file: weights of few distinct values are stored as codes and a table.

The codes are an int8 initializer, which `penjing.runtimes.onnx.packing` stores in the bits that
they need. A Cast and a Gather (or GatherElements, for a table for each row) look the weights up.
ONNX Runtime folds them when it loads the file, so it runs the same network as with plain weights.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penjing.arith.packing import stored_bytes

MOST_VALUES = 256
READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
REAL = (TensorProto.FLOAT, TensorProto.FLOAT16)
NODE_BYTES = 300
"""About how many bytes the nodes, names and shapes for one table take."""


def write_codebooks(model: onnx.ModelProto) -> None:
    """Store weights as codes where that makes the file smaller, in place.

    A weight qualifies if it, or each row of it, has at most 256 distinct values. It stays the same,
    bit for bit.
    """
    graph = model.graph
    constants = {constant.name: constant for constant in graph.initializer}
    made = []
    for name in _weights(graph):
        constant = constants.get(name)
        if constant is None or constant.data_type not in REAL:
            continue
        weight = numpy_helper.to_array(constant)
        coded = _coded(weight)
        if coded is None:
            continue
        codes, table = coded
        saved = weight.nbytes - stored_bytes(codes) - table.nbytes - NODE_BYTES
        if weight.ndim < 2 or saved <= 0:
            continue
        made += _nodes(graph, name, codes, table, weight.shape)
        graph.initializer.remove(constant)
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *nodes])


def _weights(graph: onnx.GraphProto) -> Iterator[str]:
    """The names of the second inputs of layers, each once, through transposes."""
    behind = {node.output[0]: node.input[0] for node in graph.node if node.op_type == "Transpose"}
    seen = set()
    for node in graph.node:
        if node.op_type not in READERS:
            continue
        name = node.input[1]
        while name in behind:
            name = behind[name]
        if name not in seen:
            seen.add(name)
            yield name


def _coded(
    weight: NDArray[np.floating],
) -> tuple[NDArray[np.int8], NDArray[np.floating]] | None:
    """Signed codes and the values that they stand for: of the weight, or of each row.

    Code c stands for entry c of the table, counted from its end if c is negative, as Gather does.
    """
    values, index = np.unique(weight, return_inverse=True)
    if len(values) <= MOST_VALUES:
        codes, table = _signed(index.reshape(weight.shape), values)
        return codes, table
    rows = weight.reshape(len(weight), -1)
    of_rows = [np.unique(row, return_inverse=True) for row in rows]
    most = max(len(values) for values, _ in of_rows)
    if most > MOST_VALUES:
        return None
    padded = [np.pad(values, (0, most - len(values)), "edge") for values, _ in of_rows]
    made = [_signed(index, row) for (_, index), row in zip(of_rows, padded, strict=True)]
    return np.stack([codes for codes, _ in made]), np.stack([table for _, table in made])


def _signed(
    index: NDArray[np.intp], values: NDArray[np.floating]
) -> tuple[NDArray[np.int8], NDArray[np.floating]]:
    """Codes around zero, so that they need as few bits as there are values; two are -1 and 1."""
    count = len(values)
    if count == 2:
        return (2 * index - 1).astype(np.int8), np.array(
            [values[0], values[1], values[0]], values.dtype
        )
    low = count // 2
    return (index - low).astype(np.int8), np.roll(values, -low)


def _nodes(
    graph: onnx.GraphProto,
    name: str,
    codes: NDArray[np.int8],
    table: NDArray[np.floating],
    shape: tuple[int, ...],
) -> list[onnx.NodeProto]:
    """Add the codes and the table, and return the nodes that compute the weight from them."""
    rows = table.ndim == 2
    graph.initializer.append(numpy_helper.from_array(codes, f"{name}.codes"))
    graph.initializer.append(numpy_helper.from_array(table, f"{name}.values"))
    cast = helper.make_node("Cast", [f"{name}.codes"], [f"{name}.index"], to=TensorProto.INT32)
    read, to = [f"{name}.values", f"{name}.index"], f"{name}.rows" if rows else name
    look = helper.make_node("GatherElements" if rows else "Gather", read, [to], axis=int(rows))
    nodes = [cast, look]
    if rows:
        sizes = numpy_helper.from_array(np.array(shape, np.int64), f"{name}.shape")
        graph.initializer.append(sizes)
        nodes.append(helper.make_node("Reshape", [to, sizes.name], [name]))
    for node in nodes:
        node.name = f"{node.output[0]}/{node.op_type}"
    return nodes
