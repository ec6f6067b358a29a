"""What a `.pte` file holds: operators that a delegate runs, those that are left, and weights."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

from penjing.contract import Placement

FORWARD = "forward"
"""Name of the method that a network becomes."""
DELEGATE = "XnnpackBackend"
LEFT = "XNNPACK didn't take it; ExecuTorch's portable kernel runs it"
TYPES = "xnn_datatype_"


def placements(content: bytes, method: str) -> list[Placement]:
    """The operators of a method, in order; those of XNNPACK with the type of what they give.

    The file keeps no names: an operator's is where it stands, such as `xnnpack0/3` for the fourth
    of the first part that XNNPACK runs.
    """
    program = _read(content).program
    plan = next(plan for plan in program.execution_plan if plan.name == method)
    placed: list[Placement] = []
    for instruction in (step.instr_args for chain in plan.chains for step in chain.instructions):
        kind, place = type(instruction).__name__, len(placed)
        if kind == "DelegateCall":
            delegate = plan.delegates[instruction.delegate_index]
            data = bytes(program.backend_delegate_data[delegate.processed.index].data)
            placed += _delegated(delegate.id, data, instruction.delegate_index)
        elif kind == "KernelCall":
            operator = plan.operators[instruction.op_index]
            placed.append(
                Placement(f"kernel{place}", f"{operator.name}.{operator.overload}", "cpu", LEFT)
            )
    return placed


def bytes_of_weights(content: bytes, method: str) -> int:
    """Of all constants that a method reads, and of all that its delegates keep."""
    file = _read(content)
    plan = next(plan for plan in file.program.execution_plan if plan.name == method)
    buffers = {getattr(value.val, "data_buffer_idx", 0) for value in plan.values} - {0}
    own = sum(len(file.program.constant_buffer[index].storage) for index in buffers)
    named = file.named_data.buffers if file.named_data else []
    return own + sum(len(getattr(entry, "buffer", entry)) for entry in named)


def plans(content: bytes) -> tuple[dict[str, Any], Any]:
    """The methods of a file by name, in ExecuTorch's own form, and the program that has them."""
    program = _read(content).program
    return {plan.name: plan for plan in program.execution_plan}, program


def _read(content: bytes) -> Any:
    from executorch.exir._serialize._program import deserialize_pte_binary

    return deserialize_pte_binary(content)


def _delegated(name: str, data: bytes, index: int) -> list[Placement]:
    if name != DELEGATE:
        return [Placement(f"{name}{index}", "delegate", name)]
    graph = _graph(data)
    types: dict[int, str] = {}
    for value in (xvalue["xvalue_union"] for xvalue in graph["xvalues"]):
        tensor = value.get("tensor_value", value)
        types[tensor["id_out"]] = tensor["datatype"].removeprefix(TYPES)
    placed = []
    for position, node in enumerate(graph["xnodes"]):
        kind = node["xnode_union_type"].removeprefix("XNN")
        gives = next(i for key, i in node["xnode_union"].items() if re.match(r"output\d*_id", key))
        placed.append(Placement(f"xnnpack{index}/{position}", f"{kind} {types[gives]}", "xnnpack"))
    return placed


def _graph(data: bytes) -> dict[str, Any]:
    """XNNPACK's own graph, by the schema and the compiler that come with ExecuTorch."""
    from executorch.backends.xnnpack.serialization import xnnpack_graph_serialize as xnnpack
    from executorch.exir._serialize import _flatbuffer

    header = xnnpack.XNNHeader.from_bytes(data[: xnnpack.XNNHeader.EXPECTED_LENGTH])
    begin, size = header.flatbuffer_offset, header.flatbuffer_size
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        schema, binary = folder / "schema.fbs", folder / "graph.bin"
        schema.write_bytes(xnnpack._get_schema_bytes())
        binary.write_bytes(data[begin : begin + size])
        _flatbuffer._flatc_decompile(name, str(schema), str(binary))
        text = (folder / "graph.json").read_text()
    graph: dict[str, Any] = json.loads(re.sub(r": (-?)inf\b", r": \1Infinity", text))
    return graph
