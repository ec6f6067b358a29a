"""An ONNX file in half precision: only its weights, or its weights and values.

If only weights are in half precision, each is float16 with a Cast to float32 after it. ONNX Runtime
folds constants when it loads the file, so it runs the same nodes as for a float32 file.
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penjing.runtimes.half import LEAST_NUMBERS, require_in_range
from penjing.runtimes.onnx.trimming import INTEGER_NAMES, names_inside


def halve(model: onnx.ModelProto, values: bool) -> onnx.ModelProto:
    """The same model in float16, with float32 inputs and outputs.

    Args:
        model: a float32 model. If it has integers, their scales stay float32.
        values: whether nodes also compute in float16, with a Cast only at inputs and outputs. Then
            a value beyond 65504 becomes infinite, which only shows when the file runs.

    Returns:
        A new model.

    Raises:
        InputError: a weight is beyond the range of float16. The message names it.
    """
    require_halves(model)
    new = onnx.ModelProto()
    new.CopyFrom(model)
    if values:
        from onnxruntime.transformers.float16 import convert_float_to_float16

        converted: onnx.ModelProto = convert_float_to_float16(new, keep_io_types=True)
        return converted
    _store(new.graph)
    return new


def require_halves(model: onnx.ModelProto) -> None:
    """Check that float16 can hold all weights.

    Raises:
        InputError: a weight is beyond its range. The message names it.
    """
    for weight in model.graph.initializer:
        if weight.data_type == TensorProto.FLOAT:
            require_in_range(weight.name, numpy_helper.to_array(weight))


def _store(graph: onnx.GraphProto) -> None:
    """Store each weight as float16, and let its readers read a Cast of it to float32."""
    kept = {value.name for value in (*graph.input, *graph.output)}
    kept |= {name for node in graph.node for name in names_inside(node)}
    kept |= {name for node in graph.node if node.op_type in INTEGER_NAMES for name in node.input}
    new, casts = {}, []
    for weight in graph.initializer:
        numbers = int(np.prod(weight.dims))
        if weight.data_type != TensorProto.FLOAT or weight.name in kept or numbers < LEAST_NUMBERS:
            continue
        weight.CopyFrom(
            numpy_helper.from_array(numpy_helper.to_array(weight).astype("f2"), weight.name)
        )
        new[weight.name] = f"{weight.name}/real"
        casts.append(
            helper.make_node("Cast", [weight.name], [new[weight.name]], to=TensorProto.FLOAT)
        )
    nodes = list(graph.node)
    for node in nodes:
        node.input[:] = [new.get(name, name) for name in node.input]
    del graph.node[:]
    graph.node.extend([*casts, *nodes])
