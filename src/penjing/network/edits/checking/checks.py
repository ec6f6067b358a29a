"""Checks: the form of an edit's parameters, which may come from a file that somebody else wrote.

Each check returns what the value should be, in words, or an empty string if it is that.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from penjing.arith.kernel_factors import RANKS
from penjing.arith.quantizer import INT16, weight_ends

LARGEST, SMALLEST = 3.4e38, 1e-45
"""The largest magnitude in float32 that isn't infinite, and the smallest that isn't zero."""
INT32 = 2**31 - 1
EIGHT_BITS = 255
"""The largest integer of a quantized value, and the largest width of its integer range."""
WEIGHT_ENDS = {weight_ends(bits) for bits in range(1, 9)}
Check = Callable[[Any], str]
"""Returns what a value should be, in words; empty if it is that."""


def names(value: Any) -> str:
    """A list of distinct names."""
    good = is_list(value) and all(isinstance(name, str) for name in value)
    good = good and len(set(value)) == len(value)
    return "" if good else "a list of distinct names"


def names_by_name(value: Any) -> str:
    """A mapping from names to names."""
    good = is_object(value) and all(isinstance(name, str) for name in value.values())
    return "" if good else "an object with names as values"


def holds(value: Any) -> str:
    """What is held in each tensor."""
    good = is_object(value) and all(
        isinstance(mark, str) and mark in ("zeros", "values") for mark in value.values()
    )
    return "" if good and value else 'an object that gives "zeros" or "values" for each tensor'


def flag(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else "true or false"


def scales_of_signs(value: Any) -> str:
    """The number of scales of ternary weights."""
    return "" if isinstance(value, str) and value in ("one", "two") else '"one" or "two"'


def threshold(value: Any) -> str:
    """The share of a row's mean below which a ternary weight is zero."""
    return "" if is_real(value) and 0 <= value < 2 else "a number of at least 0, below 2"


def axes(value: Any) -> str:
    """The indices that stay, by axis."""
    good = is_object(value) and all(
        is_list(indices) and indices and all(is_integer(index, 0, INT32) for index in indices)
        for indices in value.values()
    )
    return "" if good else "an object that gives the indices to keep for each axis"


def value_qparams(value: Any) -> str:
    """The quantization parameters of activations, by node."""
    keys = {"scale", "zero_point", "low", "high", "root"}
    good = is_object(value) and all(
        is_object(qparams)
        and set(qparams) == keys
        and (_are_qparams(qparams, qparams["zero_point"]) or _are_wide(qparams))
        and is_scale(qparams["scale"])
        and qparams["scale"] > 0
        and isinstance(qparams["root"], str)
        for qparams in value.values()
    )
    words = (
        "an object that gives for each node a positive scale, low <= zero_point <= high within "
        "eight bits or those of int16 around 0, and a root"
    )
    return "" if good else words


def weight_qparams(value: Any) -> str:
    """The quantization parameters of weights, by node."""
    good = is_object(value) and all(
        is_object(qparams)
        and set(qparams) == {"scales", "low", "high"}
        and _are_qparams(qparams, 0)
        and (qparams["low"], qparams["high"]) in WEIGHT_ENDS
        and is_scales(qparams["scales"])
        for qparams in value.values()
    )
    words = "an object that gives for each node nonzero scales, and the low and high of 1 to 8 bits"
    return "" if good else words


def factors(value: Any) -> str:
    """The factors of each node's channels."""
    good = is_object(value) and all(
        is_list(factors) and factors and all(is_scale(factor) and factor > 0 for factor in factors)
        for factors in value.values()
    )
    return "" if good else "an object that gives a list of positive numbers for each node"


def layers_factorized(value: Any) -> str:
    """The scheme and the ranks of each layer that becomes several."""
    good = is_object(value) and all(
        is_object(how)
        and set(how) == {"scheme", "ranks"}
        and isinstance(how["scheme"], str)
        and how["scheme"] in RANKS
        and is_list(how["ranks"])
        and len(how["ranks"]) == RANKS[how["scheme"]]
        and all(is_integer(rank, 1, INT32) for rank in how["ranks"])
        for how in value.values()
    )
    words = f"an object that gives for each node a scheme ({', '.join(RANKS)}) and its ranks"
    return "" if good else words


def is_object(value: Any) -> bool:
    """Whether the value is a mapping with names as keys."""
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def is_list(value: Any) -> bool:
    """Whether the value is a list."""
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def is_integer(value: Any, low: int, high: int) -> bool:
    """Whether the value is a whole number in low..high."""
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def is_real(value: Any) -> bool:
    """Whether the value is a number that float32 can hold."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST and math.isfinite(value)


def is_scale(value: Any) -> bool:
    """Whether the value is a number that isn't zero in float32."""
    return is_real(value) and abs(value) >= SMALLEST


def is_scales(value: Any) -> bool:
    """Whether the value is a list of scales, or a list of such lists of equal length."""
    if not is_list(value) or not value:
        return False
    if not is_list(value[0]):
        return all(map(is_scale, value))
    return all(
        is_list(row) and row and len(row) == len(value[0]) and all(map(is_scale, row))
        for row in value
    )


def _are_wide(qparams: Mapping[str, Any]) -> bool:
    integers = (qparams["zero_point"], qparams["low"], qparams["high"])
    return all(is_integer(integer, *INT16) for integer in integers) and integers == (0, *INT16)


def _are_qparams(qparams: Mapping[str, Any], zero: Any) -> bool:
    ends = (qparams["low"], zero, qparams["high"])
    known = all(is_integer(end, -EIGHT_BITS, EIGHT_BITS) for end in ends)
    return known and ends[0] <= zero <= ends[2] and 0 < ends[2] - ends[0] <= EIGHT_BITS
