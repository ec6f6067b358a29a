"""The integer layers of an ONNX file by themselves, each from its own integers to what it gives.

One model holds them all side by side, so that one run shows which of them a processor gets wrong.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import torch
from onnx import helper, numpy_helper

KINDS = {"Conv", "Gemm", "MatMul"}
CLAMPS = {"Relu", "Clip"}
TIE = 1e-3  # steps; how far from the middle between two integers either of them is right
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Layer:
    """A layer that reads integers and gives integers.

    Attributes:
        name: of the layer.
        reads, gives: the values in the whole file.
        nodes: what computes it, in order: the dequantize, the layer, clamps, the quantize.
    """

    name: str
    reads: str
    gives: str
    nodes: tuple[onnx.NodeProto, ...]


class File:
    """An ONNX file in QDQ form and its integer layers."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self.model, graph = model, model.graph
        self.constants = {one.name: numpy_helper.to_array(one) for one in graph.initializer}
        self.makers = {name: node for node in graph.node for name in node.output}
        self.users: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.users.setdefault(name, []).append(node)
        found = (self._layer(node) for node in graph.node if node.op_type in KINDS)
        self.layers = [one for one in found if one is not None]

    def _layer(self, node: onnx.NodeProto) -> Layer | None:
        before = self.makers.get(node.input[0])
        if before is None or before.op_type != "DequantizeLinear":
            return None
        nodes, value = [before, node], node.output[0]
        while len(users := self.users.get(value, [])) == 1:
            nodes.append(users[0])
            value = users[0].output[0]
            if users[0].op_type == "QuantizeLinear":
                name = node.name.rpartition("/")[0] or node.name
                return Layer(name, before.input[0], value, tuple(nodes))
            if users[0].op_type not in CLAMPS:
                return None
        return None

    def telling(self) -> bytes:
        """The whole file, which tells the integers that its layers read as well."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        names = dict.fromkeys(one.reads for one in self.layers)
        model.graph.output.extend(
            helper.make_tensor_value_info(name, onnx.TensorProto.UINT8, None) for name in names
        )
        return bytes(model.SerializeToString())

    def alone(self, shapes: dict[str, tuple[int, ...]]) -> bytes:
        """All layers side by side; inputs and outputs are `0`, `1`, ... and `out0`, ...

        Args:
            shapes: of the integers that they read, of one batch.
        """
        nodes: list[onnx.NodeProto] = []
        inputs, outputs = [], []
        for number, layer in enumerate(self.layers):
            renamed = {layer.reads: str(number), layer.gives: f"out{number}"}
            for node in (*self._weights(layer), *layer.nodes):
                new = onnx.NodeProto()
                new.CopyFrom(node)
                new.name = f"{number}/{len(nodes)}"
                mine = [name for name in node.input if name not in self.constants]
                renamed |= {one: f"{number}/{one}" for one in mine if one not in renamed}
                renamed |= {one: f"{number}/{one}" for one in node.output if one not in renamed}
                new.input[:] = [renamed.get(one, one) for one in node.input]
                new.output[:] = [renamed[one] for one in node.output]
                nodes.append(new)
            sizes: list[str | int | None] = ["batch", *shapes[layer.reads][1:]]
            kind = onnx.TensorProto.UINT8
            inputs.append(helper.make_tensor_value_info(str(number), kind, sizes))
            outputs.append(helper.make_tensor_value_info(f"out{number}", kind, None))
        graph = helper.make_graph(
            nodes, "layers", inputs, outputs, initializer=list(self.model.graph.initializer)
        )
        model = helper.make_model(
            graph, opset_imports=self.model.opset_import, functions=self.model.functions
        )
        model.ir_version = self.model.ir_version
        return bytes(model.SerializeToString())

    def _weights(self, layer: Layer) -> list[onnx.NodeProto]:
        """What makes the layer's weight and bias of constants, in order."""
        found: list[onnx.NodeProto] = []
        waiting = list(layer.nodes[1].input[1:])
        while waiting:
            node = self.makers.get(waiting.pop())
            if node is not None:
                found.insert(0, node)
                waiting += node.input
        return found

    def wrong(self, layer: Layer, codes: Array, given: Array) -> int:
        """How many of the integers that a layer gave aren't the exact sum, rounded.

        Args:
            codes: what it read.
            given: what it gave.
        """
        before, node, *_, after = layer.nodes
        x = self._real(codes, before)
        weight = self._made(node.input[1])
        bias = self._made(node.input[2]) if len(node.input) > 2 else None
        options = {one.name: helper.get_attribute_value(one) for one in node.attribute}
        exact = _computed(node.op_type, x, weight, bias, options)
        low = 0.0 if any(one.op_type == "Relu" for one in layer.nodes) else -np.inf
        scale, zero = (self.constants[one] for one in after.input[1:3])
        steps = np.maximum(exact, low) / np.float64(scale) + float(zero)
        right = np.abs(np.clip(steps, 0, 255) - given) <= 0.5 + TIE
        return int((~right).sum())

    def _made(self, name: str) -> Array:
        """A constant's real numbers, exactly."""
        if name in self.constants:
            return np.asarray(self.constants[name], np.float64)
        node = self.makers[name]
        if node.op_type == "Transpose":
            order = [list(one.ints) for one in node.attribute]
            return np.transpose(self._made(node.input[0]), *order)
        return self._real(self.constants[node.input[0]], node)

    def _real(self, codes: Array, node: onnx.NodeProto) -> Array:
        scale = np.asarray(self.constants[node.input[1]], np.float64)
        zero = np.asarray(self.constants[node.input[2]], np.float64) if len(node.input) > 2 else 0
        if scale.ndim and scale.size > 1:
            axis = next((one.i for one in node.attribute if one.name == "axis"), 1)
            shape = [1] * codes.ndim
            shape[axis] = -1
            scale, zero = scale.reshape(shape), np.reshape(zero, shape) if np.ndim(zero) else zero
        found: Array = (codes.astype(np.float64) - zero) * scale
        return found


def _computed(
    kind: str, x: Array, weight: Array, bias: Array | None, options: dict[str, Any]
) -> Array:
    if kind != "Conv":
        found = x @ (weight.T if options.get("transB") else weight)
        return found if bias is None else found + bias
    pads = list(options.get("pads", [0] * (2 * (x.ndim - 2))))
    sides = [pads[i + k * (x.ndim - 2)] for i in reversed(range(x.ndim - 2)) for k in (0, 1)]
    padded = torch.nn.functional.pad(torch.from_numpy(x), sides)
    convolve = {3: torch.conv1d, 4: torch.conv2d, 5: torch.conv3d}[x.ndim]
    added = None if bias is None else torch.from_numpy(bias.copy())
    made = convolve(
        padded, torch.from_numpy(weight.copy()), added,
        list(options.get("strides", [1] * (x.ndim - 2))), 0,
        list(options.get("dilations", [1] * (x.ndim - 2))), options.get("group", 1),
    )  # fmt: skip
    return made.numpy()
