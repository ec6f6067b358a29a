"""Rewrites of an exported ONNX graph, so that integers stay integers from border to border.

The exporter writes what the network says: quantize/dequantize (Q/DQ) pairs around float operators.
Here the float operators between two pairs of one grid that only move values are run on uint8
itself, a clip that the grid already does is dropped, and a two-axis mean becomes a global average
pool. What is left (convolution, add, pool, matrix product) ONNX Runtime fuses with its pairs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from penjing.contract import Array

MOVERS = {
    "Concat", "Expand", "Flatten", "Identity", "MaxPool", "Pad", "Reshape", "Slice", "Split",
    "Squeeze", "Transpose", "Unsqueeze",
}  # fmt: skip


def clean(model: ir.Model) -> None:
    """All rewrites, in place, then names for people and no trace of this machine."""
    graph = model.graph
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            _fold_mean(graph, node)
    for node in list(graph):
        if node.op_type == "QuantizeLinear":
            _drop_clip(node)
    for node in list(graph):
        if node.op_type in MOVERS:
            _move_integers(graph, node)
    _remove_unused(graph)
    _name(graph)
    model.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs, *graph.initializers.values()):
        value.metadata_props.clear()
    model.producer_name, model.producer_version, model.doc_string = "penjing", "", None


def _constant(value: ir.Value | None) -> Array | None:
    return None if value is None or value.const_value is None else value.const_value.numpy()


def _grid(node: ir.Node) -> tuple[Array | None, Array | None]:
    """Scale and zero point of a Q or DQ node."""
    inputs = list(node.inputs)
    return _constant(inputs[1]), _constant(inputs[2]) if len(inputs) > 2 else None


def _same_grid(one: ir.Node, other: ir.Node) -> bool:
    for left, right in zip(_grid(one), _grid(other), strict=True):
        if left is None or right is None or not np.array_equal(left, right):
            return False
    return True


def _only_user(value: ir.Value) -> ir.Node | None:
    users = [node for node, _ in value.uses()]
    return users[0] if len(users) == 1 and not value.is_graph_output() else None


def _drop_clip(quantize: ir.Node) -> None:
    """Remove Relu or Clip before a uint8 Q whose range lies within the clip's."""
    source = quantize.inputs[0]
    clip = source.producer() if source is not None else None
    if clip is None or clip.op_type not in ("Relu", "Clip") or _only_user(source) is not quantize:  # type: ignore[arg-type]
        return
    scale, zero_point = _grid(quantize)
    if scale is None or zero_point is None or zero_point.dtype != np.uint8 or zero_point.any():
        return
    if clip.op_type == "Clip":
        low, high = (_constant(one) for one in (*clip.inputs[1:3], None, None)[:2])
        if low is None or float(low) != 0.0:
            return
        if high is not None and float(scale) * 255 > float(high) * (1 + 1e-5):
            return
    quantize.replace_input_with(0, clip.inputs[0])


def _fold_mean(graph: ir.Graph, quantize: ir.Node) -> None:
    """DQ -> ReduceMean(2, 3) -> Q becomes DQ -> GlobalAveragePool -> Q -> Flatten."""
    source = quantize.inputs[0]
    mean = source.producer() if source is not None else None
    if mean is None or mean.op_type != "ReduceMean" or _only_user(source) is not quantize:  # type: ignore[arg-type]
        return
    axes, shape = _constant(mean.inputs[1]), mean.inputs[0].shape  # type: ignore[union-attr]
    if axes is None or shape is None or len(shape) != 4 or sorted(axes % 4) != [2, 3]:
        return
    pool = ir.node("GlobalAveragePool", [mean.inputs[0]], name=mean.name)
    pool.metadata_props.update(mean.metadata_props)
    graph.insert_before(mean, pool)
    quantize.replace_input_with(0, pool.outputs[0])
    keep = mean.attributes.get("keepdims")
    if keep is None or keep.as_int() == 1:
        return
    stored = quantize.outputs[0]
    flat = ir.node("Flatten", [stored], {"axis": 1})
    flat.metadata_props.update(mean.metadata_props)
    graph.insert_after(quantize, flat)
    for user, index in list(stored.uses()):
        if user is not flat:
            user.replace_input_with(index, flat.outputs[0])


def _move_integers(graph: ir.Graph, node: ir.Node) -> None:
    """DQ -> mover -> Q of one grid becomes the mover on integers."""
    data = list(node.inputs) if node.op_type == "Concat" else list(node.inputs[:1])
    real = [one.producer() if one is not None else None for one in data]
    users = [_only_user(output) for output in node.outputs]
    if not all(one is not None and one.op_type == "DequantizeLinear" for one in real):
        return
    if not all(one is not None and one.op_type == "QuantizeLinear" for one in users):
        return
    if not all(_same_grid(real[0], one) for one in (*real, *users)):  # type: ignore[arg-type]
        return
    if node.op_type == "Pad" and not _pad_with_zero_point(graph, node, real[0]):  # type: ignore[arg-type]
        return
    for index, one in enumerate(real):
        node.replace_input_with(index, one.inputs[0])  # type: ignore[union-attr]
    for user in users:
        stored, output = user.outputs[0], user.inputs[0]  # type: ignore[union-attr]
        output.dtype = stored.dtype  # type: ignore[union-attr]
        stored.replace_all_uses_with(output)


def _pad_with_zero_point(graph: ir.Graph, node: ir.Node, real: ir.Node) -> bool:
    mode = node.attributes.get("mode")
    fill = _constant(node.inputs[2]) if len(node.inputs) > 2 else np.zeros(())
    if (mode is not None and mode.as_string() != "constant") or fill is None or fill.any():
        return False
    zero_point = real.inputs[2]
    if len(node.inputs) < 3:
        node.resize_inputs(3)
    node.replace_input_with(2, zero_point)
    return True


def _remove_unused(graph: ir.Graph) -> None:
    for node in reversed(list(graph)):
        if not any(one.uses() or one.is_graph_output() for one in node.outputs):
            graph.remove(node, safe=True)
    for name, value in list(graph.initializers.items()):
        if not value.uses() and not value.is_graph_output():
            del graph.initializers[name]


def _name(graph: ir.Graph) -> None:
    """Name each node layer/operator and keep the layer, and nothing else, as its metadata."""
    taken: dict[str, int] = {}
    for node in graph:
        layer = layer_of(node)
        name = f"{layer}/{node.op_type}" if layer else node.op_type
        taken[name] = taken.get(name, 0) + 1
        node.name = name if taken[name] == 1 else f"{name}_{taken[name]}"
        node.metadata_props.clear()
        node.doc_string = None
        if layer:
            node.metadata_props["penjing.layer"] = layer
        for output in node.outputs:
            output.metadata_props.clear()


def layer_of(node: ir.Node) -> str:
    """The module path that an exported node came from, `""` if unknown."""
    import ast

    scopes: Any = node.metadata_props.get("pkg.torch.onnx.name_scopes")
    if scopes is None:
        return ""
    return str(ast.literal_eval(scopes)[0])
