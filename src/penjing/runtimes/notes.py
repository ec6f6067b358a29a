"""What a file notes of penjing's, read as what anybody may have written there.

A file says by JSON how the model takes its inputs and hands its outputs back. What isn't of that
form is refused, so that it can't lead a session astray.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from penjing.errors import UnsafeError
from penjing.strict_json import parse

WHAT = "the note about inputs and outputs in this file"
MOST_DIMENSIONS, LARGEST_SIZE = 16, 2**31 - 1


def read_structure(text: str, outputs: int) -> Any:
    """How the outputs are handed back, as `penjing.runtimes.interface.structure_of` tells it.

    Args:
        text: JSON.
        outputs: how many the file gives.

    Raises:
        UnsafeError: it is something else, or is of another number of outputs.
    """
    return structure(parse(text, WHAT), outputs)


def structure(found: Any, outputs: int) -> Any:
    """As `read_structure`, of what was read already."""
    names = isinstance(found, list) and all(isinstance(one, str) for one in found)
    if names and len(found) == len(set(found)) == outputs:
        return found
    if found == "tuple" or (found == "tensor" and outputs):
        return found
    raise UnsafeError(f"{WHAT} tells of other outputs than its {outputs}; refused")


def interface(found: Any, outputs: int) -> dict[str, Any]:
    """`"inputs"`, (name, shape, type) each, `"by_sample"`, a flag for each, and `"outputs"`.

    Raises:
        UnsafeError: it is something else.
    """
    keys = {"inputs", "by_sample", "outputs"}
    if not isinstance(found, dict) or set(found) != keys:
        raise UnsafeError(f"{WHAT} must have the keys {', '.join(sorted(keys))}; refused")
    inputs, flags = found["inputs"], found["by_sample"]
    good = isinstance(inputs, list) and all(map(_is_input, inputs)) and _are_flags(flags, inputs)
    if not good:
        raise UnsafeError(f"{WHAT} tells of no inputs that a model can have; refused")
    return {**found, "outputs": structure(found["outputs"], outputs)}


def named_inputs(found: Any, inputs: int) -> list[dict[str, Any]]:
    """`{"name", "dtype", "batched"}` of each input.

    Raises:
        UnsafeError: it is something else, or is of another number of inputs.
    """
    good = isinstance(found, list) and len(found) == inputs and all(map(_is_named, found))
    if not good:
        raise UnsafeError(f"{WHAT} tells of other inputs than its {inputs}; refused")
    named: list[dict[str, Any]] = found
    return named


def _is_named(found: Any) -> bool:
    if not isinstance(found, dict) or set(found) != {"name", "dtype", "batched"}:
        return False
    return (
        isinstance(found["name"], str)
        and _is_type(found["dtype"])
        and isinstance(found["batched"], bool)
    )


def _is_input(found: Any) -> bool:
    if not isinstance(found, list) or len(found) != 3 or not isinstance(found[1], list):
        return False
    name, shape, kind = found
    sizes = all(type(one) is int and 0 <= one <= LARGEST_SIZE for one in shape)
    return isinstance(name, str) and sizes and len(shape) <= MOST_DIMENSIONS and _is_type(kind)


def _is_type(name: Any) -> bool:
    try:
        return isinstance(name, str) and np.dtype(name).kind in "biuf"
    except TypeError:
        return False


def _are_flags(found: Any, inputs: Sequence[Any]) -> bool:
    flags = isinstance(found, list) and all(isinstance(one, bool) for one in found)
    return flags and len(found) == len(inputs)
