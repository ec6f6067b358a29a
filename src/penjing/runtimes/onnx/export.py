"""A Network as an ONNX model: quantize and dequantize nodes, names that people can read."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

import onnx
import torch

from penjing.errors import first_line
from penjing.network import Network
from penjing.network.graph.layers import CONVOLUTIONS
from penjing.network.lowering.form import UNSIGNED, Form
from penjing.network.lowering.lower import lowered
from penjing.quiet import quiet
from penjing.runtimes.converters import converting
from penjing.runtimes.flat import Flat
from penjing.runtimes.interface import output_names, structure_of
from penjing.runtimes.onnx.matmul_nbits import with_matmul_nbits
from penjing.runtimes.onnx.trimming import trim
from penjing.tasks.task import as_call, batch_dims

KERNELS = {"Conv": CONVOLUTIONS, "Gemm MatMul MatMulNBits": {torch.ops.aten.linear.default}}
"""ONNX operators, and what they are in the graph."""
OUTPUTS_KEY = "penjing.outputs"
"""In a model's metadata: how its outputs are to be handed back, as JSON."""
BATCH = "batch"
"""What a file calls the size that is free."""
PROTOBUF_LIMIT = 2 * 2**30


def too_large_for_onnx(network: Network) -> list[str]:
    """One line if the weights don't fit into one ONNX model."""
    tensors = network.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    if size < PROTOBUF_LIMIT:
        return []
    return [f"{size} bytes of weights exceed the {PROTOBUF_LIMIT} of one ONNX file"]


def to_onnx(network: Network, form: Form = UNSIGNED) -> onnx.ModelProto:
    """Export with a free batch size; weights of few bits still take a byte each.

    Args:
        form: how integers are written down.

    Raises:
        InputError: the exporter can't express an operator; the message names it.
    """
    args, kwargs = as_call(network.example)
    leaves = tuple(torch.utils._pytree.tree_leaves((args, kwargs)))
    batch = torch.export.Dim(BATCH)
    dims = batch_dims(leaves, batch)
    free = (tuple(dims[id(leaf)] for leaf in leaves),)
    kernels = {
        kind: [str(node.meta["layer"]) for node in network.calls() if node.target in targets]
        for kind, targets in KERNELS.items()
    }
    with network.evaluating(), quiet():
        outputs = network(*args, **kwargs)
        flat = Flat(with_matmul_nbits(lowered(network, form)))
        with converting("the ONNX exporter", _why):
            program = torch.export.export(flat, leaves, dynamic_shapes=free)
            exported = torch.onnx.export(program, dynamo=True, verbose=False)
    assert exported is not None
    model = _named(exported.model_proto, network.input_names, outputs, kernels)
    trim(model)
    return model


def _why(error: BaseException) -> str:
    """The operator that the exporter lacks; else what the error behind its own long one says."""
    while type(error).__name__ == "ConversionError" and error.__cause__ is not None:
        error = error.__cause__
    lacking = re.search(r"No ONNX function found for <OpOverload\(op='([^']+)'", str(error))
    if lacking is None:
        return first_line(error)
    return (
        f"it has no form of the operator {lacking[1]}; write that in other operators, or take "
        "another runtime (penjing runtimes)"
    )


def _new_names(
    graph: onnx.GraphProto, inputs: Sequence[str], outputs: Sequence[str]
) -> dict[str, str]:
    """What to call the exporter's values: inputs and outputs as the model does.

    An ONNX graph has one namespace. An output that is called like an input gets `_out` behind its
    name, and any other value that is called like one of them gets `_inner`.
    """
    new = dict(zip([value.name for value in graph.input], inputs, strict=True))
    for value, name in zip(graph.output, outputs, strict=True):
        new[value.name] = f"{name}_out" if name in inputs else name
    inner = [constant.name for constant in graph.initializer]
    inner += [name for node in graph.node for name in node.output]
    taken = {*new.values(), *inner}
    for name in inner:
        if name in new.values() and name not in new:
            other = f"{name}_inner"
            while other in taken:
                other += "_"
            taken.add(other)
            new[name] = other
    return new


def _named(
    model: onnx.ModelProto, inputs: Sequence[str], outputs: Any, kernels: dict[str, list[str]]
) -> onnx.ModelProto:
    """Names that people can read: inputs, outputs, and nodes by the layer whose weight they use."""
    graph, structure = model.graph, structure_of(outputs)
    new = _new_names(graph, inputs, output_names(structure, len(graph.output)))
    sizes = []
    for value in (*graph.input, *graph.output):
        value.name = new[value.name]
        sizes += [size for size in value.type.tensor_type.shape.dim if size.dim_param]
    symbol = next((size.dim_param for size in sizes), "")  # the exporter's own
    for size in sizes:  # alone or in an expression
        size.dim_param = re.sub(rf"\b{symbol}\b", BATCH, size.dim_param)
    layers = {
        constant.name: constant.name.removeprefix("network.").rpartition(".")[0]
        for constant in graph.initializer
    }
    constants = {constant.name for constant in graph.initializer}
    for kind, names_of_kind in kernels.items():
        nodes = [
            node
            for node in graph.node
            if node.op_type in kind.split() and node.input[1] in constants
        ]
        if len(nodes) == len(names_of_kind):  # folding renames weights, but keeps the order
            pairs = zip(nodes, names_of_kind, strict=True)
            layers |= {node.input[1]: layer for node, layer in pairs if layer}
    for constant in graph.initializer:
        constant.name = new.get(constant.name, constant.name)
    used: set[str] = set()
    for position, node in enumerate(graph.node):
        weights = [layers[name] for name in node.input if layers.get(name)]
        node.input[:] = [new.get(name, name) for name in node.input]
        node.output[:] = [new.get(name, name) for name in node.output]
        if node.op_type in ("DequantizeLinear", "Transpose") and weights:
            layers[node.output[0]] = weights[0]
        name = f"{weights[0]}/{node.op_type}" if weights else f"/{node.op_type}.{position}"
        node.name = name if name not in used else f"{name}.{position}"
        used.add(node.name)
    del graph.value_info[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, {OUTPUTS_KEY: json.dumps(structure)})
    return model
