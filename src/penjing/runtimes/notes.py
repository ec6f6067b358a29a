"""What a file notes of penjing's, read as what anybody may have written there.

A file says by JSON how the model takes its inputs and hands its outputs back. What isn't of that
form is refused, so that it can't lead a session astray.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from penjing.errors import UnsafeError
from penjing.strict_json import parse

WHAT = "the note about inputs and outputs in this file"
MOST_DIMENSIONS, LARGEST_SIZE = 16, 2**31 - 1
DEEPEST = 16  # outputs within outputs


def read_structure(text: str, outputs: int) -> Any:
    """How the outputs are handed back, as `penjing.runtimes.interface.structure_of` tells it.

    Args:
        text: JSON.
        outputs: how many the file gives.

    Raises:
        UnsafeError: it is something else, or is of another number of outputs.
    """
    return structure(parse(text, WHAT), outputs)


def structure(told: Any, outputs: int) -> Any:
    """As `read_structure`, of what was read already."""
    names = isinstance(told, list) and all(isinstance(name, str) for name in told)
    if names and len(told) == len(set(told)) == outputs:
        return told
    if told == "tuple" or (told == "tensor" and outputs):
        return told
    if isinstance(told, dict) and _tensors(told) == outputs:
        return told
    raise UnsafeError(f"{WHAT} tells of other outputs than its {outputs}; refused")


def _tensors(told: Any, levels: int = DEEPEST) -> float:
    """How many tensors there are in a nested structure; NaN, which equals nothing, if it is none
    or goes deeper than so many levels."""
    if told == "tensor":
        return 1
    if not isinstance(told, dict) or len(told) != 1 or not levels:
        return math.nan
    ((kind, parts),) = told.items()
    if kind == "dict" and isinstance(parts, dict):
        parts = list(parts.values())
    elif kind != "tuple" or not isinstance(parts, list):
        return math.nan
    return sum((_tensors(part, levels - 1) for part in parts), start=0.0)


def interface(told: Any, outputs: int) -> dict[str, Any]:
    """`"inputs"`, (name, shape, type) each, `"by_sample"`, a flag for each, and `"outputs"`.

    Raises:
        UnsafeError: it is something else.
    """
    keys = {"inputs", "by_sample", "outputs"}
    if not isinstance(told, dict) or set(told) != keys:
        raise UnsafeError(f"{WHAT} must have the keys {', '.join(sorted(keys))}; refused")
    inputs, flags = told["inputs"], told["by_sample"]
    good = isinstance(inputs, list) and all(map(_is_input, inputs)) and _are_flags(flags, inputs)
    if not good:
        raise UnsafeError(f"{WHAT} tells of no inputs that a model can have; refused")
    return {**told, "outputs": structure(told["outputs"], outputs)}


def named_inputs(told: Any, inputs: int) -> list[dict[str, Any]]:
    """`{"name", "dtype", "batched"}` of each input.

    Raises:
        UnsafeError: it is something else, or is of another number of inputs.
    """
    good = isinstance(told, list) and len(told) == inputs and all(map(_is_named, told))
    if not good:
        raise UnsafeError(f"{WHAT} tells of other inputs than its {inputs}; refused")
    named: list[dict[str, Any]] = told
    return named


def _is_named(told: Any) -> bool:
    if not isinstance(told, dict) or set(told) != {"name", "dtype", "batched"}:
        return False
    return (
        isinstance(told["name"], str)
        and _is_type(told["dtype"])
        and isinstance(told["batched"], bool)
    )


def _is_input(told: Any) -> bool:
    if not isinstance(told, list) or len(told) != 3 or not isinstance(told[1], list):
        return False
    name, shape, kind = told
    sizes = all(type(size) is int and 0 <= size <= LARGEST_SIZE for size in shape)
    return isinstance(name, str) and sizes and len(shape) <= MOST_DIMENSIONS and _is_type(kind)


def _is_type(name: Any) -> bool:
    try:
        return isinstance(name, str) and np.dtype(name).kind in "biuf"
    except TypeError:
        return False


def _are_flags(told: Any, inputs: Sequence[Any]) -> bool:
    flags = isinstance(told, list) and all(isinstance(flag, bool) for flag in told)
    return flags and len(told) == len(inputs)
