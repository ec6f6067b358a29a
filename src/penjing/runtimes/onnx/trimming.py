"""Trimming: remove what an ONNX file doesn't need. In a small integer network that is a third.

It removes the exporter's notes, attributes that have their default values, zero points that are
zero if ONNX Runtime can fuse without them, and long names of values.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

import numpy as np
import onnx

INTEGER_NAMES = ("QuantizeLinear", "DequantizeLinear")
NETWORK = "network."
"""The prefix of each parameter's name, because the exporter is given the network in a wrapper."""
WITHOUT_ZERO_POINT = {("Conv", 1), ("Conv", 2), ("Gemm", 2)}
"""(operator, input) for which ONNX Runtime fuses a DequantizeLinear without a zero point. For the
weight of a Gemm and for activations it doesn't, and the layer would fall back to floats."""


def trim(model: onnx.ModelProto) -> None:
    """Remove, in place, what changes neither a number nor how ONNX Runtime runs the file."""
    del model.graph.metadata_props[:]
    versions = {opset.domain: opset.version for opset in model.opset_import}
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
    for node in model.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
        _leave_out_defaults(node, versions)
    _leave_out_axes(model.graph)
    _leave_out_zero_points(model.graph)
    _shorten_names(model.graph)


def names_inside(node: onnx.NodeProto) -> Iterator[str]:
    """Values that are read by the graphs in a node (the branches of an If, the body of a Loop)."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs):
            for inner in graph.node:
                yield from inner.input
                yield from names_inside(inner)
            yield from (value.name for value in graph.output)


def _leave_out_defaults(node: onnx.NodeProto, versions: dict[str, int]) -> None:
    """Remove attributes with the default of the operator's schema, or of a plain convolution."""
    known = node.domain in versions and onnx.defs.has(node.op_type, node.domain)
    if not known:
        return
    schema = onnx.defs.get_schema(node.op_type, versions[node.domain], node.domain)
    plain = {"strides": 1, "dilations": 1, "pads": 0} if node.op_type == "Conv" else {}
    for attribute in list(node.attribute):
        declared = schema.attributes.get(attribute.name)
        is_default = declared is not None and attribute == declared.default_value
        if is_default or (
            attribute.name in plain and set(attribute.ints) == {plain[attribute.name]}
        ):
            node.attribute.remove(attribute)


def _leave_out_axes(graph: onnx.GraphProto) -> None:
    """Remove the axis of a quantization with a single scale."""
    scalars = {constant.name for constant in graph.initializer if not constant.dims}
    for node in graph.node:
        if node.op_type in INTEGER_NAMES and node.input[1] in scalars:
            del node.attribute[:]


def _leave_out_zero_points(graph: onnx.GraphProto) -> None:
    constants = {constant.name: constant for constant in graph.initializer}
    readers: dict[str, set[tuple[str, int]]] = defaultdict(set)
    for node in graph.node:
        for position, name in enumerate(node.input):
            readers[name].add((node.op_type, position))
    for node in graph.node:
        zero = constants.get(node.input[2]) if len(node.input) > 2 else None
        if node.op_type == "DequantizeLinear" and zero is not None and node.input[0] in constants:
            kinds = readers[node.output[0]]
            if kinds and kinds <= WITHOUT_ZERO_POINT and not np.any(_array(zero)):
                del node.input[2]
    drop_unread(graph)


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove initializers that no node reads, in place."""
    read = {name for node in graph.node for name in (*node.input, *names_inside(node))}
    read |= {value.name for value in graph.output}
    for constant in list(graph.initializer):
        if constant.name not in read:
            graph.initializer.remove(constant)


def _shorten_names(graph: onnx.GraphProto) -> None:
    """Name values by number, parameters as in the network, and only those nodes that are layers."""
    if any(True for node in graph.node for _ in names_inside(node)):
        return  # an inner graph reads values by name
    kept = {value.name for value in (*graph.input, *graph.output)}
    new = {name: name for name in kept}
    numbers = (str(k) for k in range(10**9))
    for constant in graph.initializer:
        short = constant.name.removeprefix(NETWORK)
        if constant.name not in kept and short != constant.name and short not in new.values():
            new[constant.name] = short
    taken = set(new.values())
    values = [name for node in graph.node for name in node.output if name]
    for name in (*values, *(constant.name for constant in graph.initializer)):
        if name not in new:
            new[name] = next(number for number in numbers if number not in taken)
    for constant in graph.initializer:
        constant.name = new[constant.name]
    for node in graph.node:
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
        if node.name.startswith("/"):
            node.name = ""


def _array(tensor: onnx.TensorProto) -> np.ndarray:
    return np.asarray(onnx.numpy_helper.to_array(tensor))
