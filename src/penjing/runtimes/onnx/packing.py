"""Few-bit weights in an ONNX file, packed into as few bytes as they need, at the speed of int8.

An int8 initializer whose codes use a narrow range is stored as bit planes
(`penjing.arith.packing`), or as five ternary codes to a byte. A local function of standard
operators unpacks it. ONNX Runtime folds constants when it loads the file, so it runs exactly the
int8 network, with all its fused kernels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from penjing.arith.packing import (
    TRITS_A_BYTE,
    are_ternary,
    code_range,
    least_bits,
    pack,
    ternary_bytes,
)
from penjing.runtimes.onnx.trimming import names_inside

DOMAIN = "penjing"
PLANES, TRITS = "UnpackPlanes", "UnpackTrits"
LEAST_OPSET = 18
"""The first one with BitwiseAnd."""
MOVES = ("Transpose", "Reshape")
"""Operators that may stand between a weight and its dequantization. They are folded too."""
MAKES_REAL = ("Cast", "DequantizeLinear")


@dataclass(frozen=True)
class _Packed:
    """A weight as it is stored, with the function that unpacks it and that function's inputs."""

    name: str
    function: str
    stored: NDArray[np.uint8]
    shape: tuple[int, ...]
    bits: int

    @property
    def saved(self) -> int:
        """How many bytes packing saves, without counting the call that unpacks it."""
        return int(np.prod(self.shape)) - self.stored.size


def pack_weights(model: onnx.ModelProto) -> onnx.ModelProto:
    """Pack the int8 weights that need only a few bits, if that makes the model smaller.

    A weight is packed if its codes fit into fewer than eight bits, and if it is only read by
    DequantizeLinear or Cast, perhaps after a Transpose or Reshape:

        -1, 1           one plane                          1 bit per code
        -1, 0, 1        five to a byte, base 3             1.6 bits
        others          2 to 7 planes                      2 to 7 bits

    The initializer keeps its name and becomes uint8. Its zero point and scale stay the same.

    Returns:
        A new model, or the given one if packing doesn't pay.
    """
    version = next((opset.version for opset in model.opset_import if not opset.domain), 0)
    if version < LEAST_OPSET:
        return model
    groups: dict[str, list[_Packed]] = defaultdict(list)
    for weight in _few_bits(model.graph):
        groups[weight.function].append(weight)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    for name, group in groups.items():
        function = FUNCTIONS[name](version)
        paying = [weight for weight in group if weight.saved > _cost(weight)]
        if sum(weight.saved - _cost(weight) for weight in paying) > function.ByteSize():
            new.functions.append(function)
            _store(new.graph, paying)
    if not new.functions:
        return model
    new.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return new


def _few_bits(graph: onnx.GraphProto) -> list[_Packed]:
    """The weights that can be packed, in the order of the file."""
    readers: dict[str, list[tuple[onnx.NodeProto, int]]] = defaultdict(list)
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers[name].append((node, position))
    pinned = {value.name for value in (*graph.input, *graph.output)}
    pinned |= {name for node in graph.node for name in names_inside(node)}

    def only_codes(name: str) -> bool:
        return (
            name not in pinned
            and bool(readers[name])
            and all(
                position == 0
                and (
                    node.op_type in MAKES_REAL
                    or (node.op_type in MOVES and only_codes(node.output[0]))
                )
                for node, position in readers[name]
            )
        )

    weights = []
    for constant in graph.initializer:
        within = constant.data_location == TensorProto.DEFAULT
        if constant.data_type == TensorProto.INT8 and within and only_codes(constant.name):
            packed = _packed(constant.name, numpy_helper.to_array(constant))
            weights += [packed] if packed else []
    return weights


def _packed(name: str, codes: NDArray[np.int8]) -> _Packed | None:
    """The weight packed into the fewest bytes; None if its codes need all eight bits."""
    if not codes.size:
        return None
    if are_ternary(codes):
        return _Packed(name, TRITS, ternary_bytes(codes), codes.shape, 2)
    bits = least_bits(codes)
    return None if bits == 8 else _Packed(name, PLANES, pack(codes, bits), codes.shape, bits)


def _cost(weight: _Packed) -> int:
    """About how many bytes the call that unpacks the weight takes."""
    return len(weight.name) + len(weight.function) + len(DOMAIN) + 8 * len(weight.shape) + 48


def _store(graph: onnx.GraphProto, weights: Sequence[_Packed]) -> None:
    """Replace the initializers, and let their readers read the unpacked codes."""
    constants = {constant.name: constant for constant in graph.initializer}
    taken = set(constants) | {name for node in graph.node for name in node.output}
    taken |= {value.name for value in graph.input}

    def shared(name: str, value: NDArray[Any]) -> str:
        if name not in constants:
            constants[name] = numpy_helper.from_array(value, name)
            graph.initializer.append(constants[name])
        return name

    new, calls = {}, []
    for weight in weights:
        constants[weight.name].CopyFrom(numpy_helper.from_array(weight.stored, weight.name))
        inputs = [weight.name]
        if weight.function == PLANES:
            inputs += [
                shared(f"penjing.places{weight.bits}", _places(weight.bits)),
                shared(f"penjing.low{weight.bits}", np.array(code_range(weight.bits)[0], np.int32)),
            ]
        shape = "x".join(map(str, weight.shape))
        inputs.append(shared(f"penjing.{shape}", np.array(weight.shape, np.int64)))
        new[weight.name] = next(
            name for k in range(len(taken) + 1) if (name := f"codes{k}") not in taken
        )
        taken.add(new[weight.name])
        calls.append(helper.make_node(weight.function, inputs, [new[weight.name]], domain=DOMAIN))
    nodes = list(graph.node)
    for node in nodes:
        if node.domain != DOMAIN:
            node.input[:] = [new.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend([*calls, *nodes])


def _places(bits: int) -> NDArray[np.uint8]:
    """The value of each bit plane: 1, 2, 4, ... The single plane of -1 and 1 counts 2."""
    return np.array([[2]] if bits == 1 else [[2**k for k in range(bits)]], np.uint8)


def _planes_function(version: int) -> onnx.FunctionProto:
    """Map planes (B, C), places (1, B), low and shape to codes: places x bits + low."""
    return _function(
        PLANES,
        version,
        ["stored", "places", "low", "shape"],
        {
            "k": np.arange(8, dtype=np.uint8),
            "one": np.array(1, np.uint8),
            "last": np.array([-1]),
            "rows": np.array([0, -1]),
        },
        [
            ("Unsqueeze", ["stored", "last"], "a", {}),
            ("BitShift", ["a", "k"], "b", {"direction": "RIGHT"}),
            ("BitwiseAnd", ["b", "one"], "c", {}),
            ("Reshape", ["c", "rows"], "d", {}),
            ("MatMulInteger", ["places", "d"], "e", {}),
            ("Add", ["e", "low"], "digits", {}),
        ],
    )


def _trits_function(version: int) -> onnx.FunctionProto:
    """Map bytes (C,) and shape to codes: the digits in base 3, minus one."""
    return _function(
        TRITS,
        version,
        ["stored", "shape"],
        {
            "powers": 3 ** np.arange(TRITS_A_BYTE, dtype=np.int32),
            "three": np.array(3, np.int32),
            "one": np.array(1, np.int32),
            "last": np.array([-1]),
        },
        [
            ("Cast", ["stored"], "a", {"to": TensorProto.INT32}),
            ("Unsqueeze", ["a", "last"], "b", {}),
            ("Div", ["b", "powers"], "c", {}),
            ("Mod", ["c", "three"], "d", {}),
            ("Sub", ["d", "one"], "digits", {}),
        ],
    )


Step = tuple[str, list[str], str, Mapping[str, Any]]


def _function(
    name: str,
    version: int,
    inputs: list[str],
    constants: Mapping[str, NDArray[Any]],
    steps: Sequence[Step],
) -> onnx.FunctionProto:
    """A function whose `steps` compute int32 `digits`.

    The digits of the last byte may be too many. They are cut off, and the rest becomes int8 of the
    given shape.
    """
    nodes = [
        helper.make_node("Constant", [], [key], value=numpy_helper.from_array(value))
        for key, value in {**constants, "start": np.array([0])}.items()
    ]
    ending: list[Step] = [
        ("Cast", ["digits"], "w", {"to": TensorProto.INT8}),
        ("Reshape", ["w", "last"], "x", {}),
        ("ReduceProd", ["shape"], "count", {}),
        ("Slice", ["x", "start", "count"], "y", {}),
        ("Reshape", ["y", "shape"], "codes", {}),
    ]
    nodes += [
        helper.make_node(kind, read, [to], **more) for kind, read, to, more in (*steps, *ending)
    ]
    opset = [helper.make_opsetid("", version)]
    return helper.make_function(DOMAIN, name, inputs, ["codes"], nodes, opset)


FUNCTIONS = {PLANES: _planes_function, TRITS: _trits_function}
