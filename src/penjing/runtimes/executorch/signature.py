"""The inputs and outputs of a `.pte` file, as its methods tell them."""

from __future__ import annotations

from typing import Any

from penjing.device.runner import SCALARS
from penjing.runtimes import notes
from penjing.runtimes.executorch.file import FORWARD, plans
from penjing.runtimes.executorch.session import INTERFACE
from penjing.runtimes.interface import numbered, output_names
from penjing.runtimes.signature import Signature, TensorSpec
from penjing.strict_json import parse


def signature(content: bytes) -> Signature:
    """What the method `forward` takes and gives.

    The format has no names: those that penjing noted in the file are taken, else numbers. Where a
    value is an integer that stands for a real number, the methods that ExecuTorch writes, such as
    `input0_scale`, tell the scale.
    """
    methods, program = plans(content)
    method = methods[FORWARD]
    takes = [method.values[place].val for place in method.inputs]
    gives = [method.values[place].val for place in method.outputs]
    names, structure = numbered("input", len(takes)), "tuple"
    if INTERFACE in methods:
        told = notes.interface(
            parse(_constant(methods[INTERFACE], program), notes.WHAT), len(gives)
        )
        names, structure = [name for name, _, _ in told["inputs"]], told["outputs"]
    results = output_names(structure, len(gives))
    return Signature(
        tuple(_spec(names[k], tensor, methods, f"input{k}") for k, tensor in enumerate(takes)),
        tuple(_spec(results[k], tensor, methods, f"output{k}") for k, tensor in enumerate(gives)),
    )


def _spec(name: str, tensor: Any, methods: dict[str, Any], prefix: str) -> TensorSpec:
    scale = zero = None
    if f"{prefix}_scale" in methods:
        scale = float(_number(methods[f"{prefix}_scale"]))
        zero = int(_number(methods[f"{prefix}_zp"]))
    return TensorSpec(name, tuple(tensor.sizes), SCALARS[int(tensor.scalar_type)], scale, zero)


def _number(method: Any) -> float:
    """What a method gives that gives one number."""
    value = method.values[method.outputs[0]].val
    number: float = next(iter(vars(value).values()))
    return number


def _constant(method: Any, program: Any) -> bytes:
    """The bytes of the one tensor that a method gives."""
    tensor = method.values[method.outputs[0]].val
    return bytes(program.constant_buffer[tensor.data_buffer_idx].storage)
