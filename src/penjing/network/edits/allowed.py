"""What a plan may hold: the one place where plans are checked before they touch a graph.

A plan can come from a file that somebody else wrote, and names end up in the Python that a graph
is compiled to. So a plan is taken by an allow-list: known edits, known keys, numbers in their
ranges, names of nodes that are there and are of the kind that the edit is about. What isn't listed
is refused.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from penjing.arith.quantizer import weight_ends
from penjing.contract import LeftAlone, Plan, parts_from
from penjing.errors import UnsafeError
from penjing.network.edits.fitting import FITS, unknown_part

MOST_PLANS, MOST_EDITS = 200, 200
LARGEST, SMALLEST = 3.4e38, 1e-45
"""Of the magnitudes that float32 tells from infinity and from zero."""
INT32 = 2**31 - 1
EIGHT_BITS = 255
"""The largest integer of a grid, and how far its ends are apart: runtimes have no wider ones."""
WEIGHT_ENDS = {weight_ends(bits) for bits in range(1, 9)}
Check = Callable[[Any], str]
"""What a value should be, in words, if it isn't that; empty if it is."""


def _names(value: Any) -> str:
    good = _is_list(value) and all(isinstance(name, str) for name in value)
    good = good and len(set(value)) == len(value)
    return "" if good else "a list of names, none twice"


def _parts(value: Any) -> bool:
    return value is None or (
        _is_list(value) and all(not _names(part) and len(part) in (1, 2) for part in value)
    )


def _names_by_name(value: Any) -> str:
    good = _is_object(value) and all(isinstance(name, str) for name in value.values())
    return "" if good else "an object of names"


def _flag(value: Any) -> str:
    return "" if isinstance(value, bool) else "true or false"


def _scales_of_signs(value: Any) -> str:
    return "" if isinstance(value, str) and value in ("one", "two") else '"one" or "two"'


def _threshold(value: Any) -> str:
    return "" if _is_real(value) and 0 <= value < 2 else "a number of at least 0, below 2"


def _axes(value: Any) -> str:
    good = _is_object(value) and all(
        _is_list(indices) and indices and all(_is_integer(index, 0, INT32) for index in indices)
        for indices in value.values()
    )
    return "" if good else "by axis, the indices that stay"


def _value_qparams(value: Any) -> str:
    keys = {"scale", "zero_point", "low", "high", "root"}
    good = _is_object(value) and all(
        _is_object(qparams)
        and set(qparams) == keys
        and _are_qparams(qparams, qparams["zero_point"])
        and _is_scale(qparams["scale"])
        and qparams["scale"] > 0
        and isinstance(qparams["root"], str)
        for qparams in value.values()
    )
    words = "by node, a scale over 0, low <= zero_point <= high in eight bits, a root"
    return "" if good else words


def _weight_qparams(value: Any) -> str:
    good = _is_object(value) and all(
        _is_object(qparams)
        and set(qparams) == {"scales", "low", "high"}
        and _are_qparams(qparams, 0)
        and (qparams["low"], qparams["high"]) in WEIGHT_ENDS
        and _is_scales(qparams["scales"])
        for qparams in value.values()
    )
    return "" if good else "by node, scales that aren't 0, and the ends of 1 to 8 bits"


def _factors(value: Any) -> str:
    good = _is_object(value) and all(
        _is_list(factors)
        and factors
        and all(_is_scale(factor) and factor > 0 for factor in factors)
        for factors in value.values()
    )
    return "" if good else "by node, a list of numbers over 0"


PARAMETERS: dict[str, dict[str, Check]] = {
    "shrink": {"axes": _axes},
    "fold_batch_norm": {},
    "pool_means": {},
    "split_silu": {},
    "fake_quantize": {"activations": _value_qparams, "weights": _weight_qparams},
    "fix_overflow": {},
    "ternarize": {"layers": _names, "scales": _scales_of_signs, "threshold": _threshold},
    "sign_inputs": {
        "layers": _names_by_name, "dropped": _names, "learned": _flag, "shortcuts": _names,
    },
    "binarize": {"layers": _names},
    "give_bias": {"layers": _names},
    "lift_bounds": {"nodes": _names},
    "scale_channels": {"scales": _factors},
}  # fmt: skip
"""By edit, its parameters, all of which must be there, and what each must be."""


def plans_from(data: Any, what: str) -> tuple[Plan, ...]:
    """The plans that were written as JSON, each checked for its form.

    Args:
        what: where they are from, for the message.

    Raises:
        UnsafeError: one of them isn't what `Plan.to_json` gives.
    """
    if not _is_list(data) or len(data) > MOST_PLANS:
        raise UnsafeError(f"{what} must hold a list of at most {MOST_PLANS} plans")
    return tuple(_plan(plan, f"plan {number} of {what}") for number, plan in enumerate(data))


def _plan(data: Any, what: str) -> Plan:
    wanted = {"method", "options", "edits", "summary", "left_alone", "notes"}
    if not _is_object(data) or set(data) - {"parts"} != wanted:  # which older plans don't have
        raise UnsafeError(f"{what} must be an object with the keys {', '.join(sorted(wanted))}")
    parts = {
        "method": isinstance(data["method"], str) and data["method"].isidentifier(),
        "options": _is_object(data["options"]),
        "edits": _is_list(data["edits"]) and all(map(_is_object, data["edits"])),
        "summary": isinstance(data["summary"], str),
        "left_alone": _is_list(data["left_alone"]) and all(map(_is_left, data["left_alone"])),
        "notes": _is_list(data["notes"]) and all(isinstance(note, str) for note in data["notes"]),
        "parts": _parts(data.get("parts")),
    }
    for key, good in parts.items():
        if not good:
            raise UnsafeError(f"{what} has another {key} than a pass gives; make it again")
    plan = Plan(
        data["method"], data["options"], tuple(data["edits"]), data["summary"],
        tuple(LeftAlone(**left) for left in data["left_alone"]), tuple(data["notes"]),
        parts_from(data.get("parts")),
    )  # fmt: skip
    try:
        require_form(plan)
    except UnsafeError as error:
        raise UnsafeError(f"{what}: {error}") from error
    return plan


def require_form(plan: Plan) -> None:
    """Check that each edit is a known one whose parameters are all there, in type and range.

    Raises:
        UnsafeError: one is not; the message names it.
    """
    if len(plan.edits) > MOST_EDITS:
        raise UnsafeError(f"a plan of {len(plan.edits)} edits; at most {MOST_EDITS} are made")
    for edit in plan.edits:
        name = edit.get("edit")
        if not isinstance(name, str) or name not in PARAMETERS:
            raise UnsafeError(f"no edit {_shown(name)}; there are {', '.join(PARAMETERS)}")
        wanted = PARAMETERS[name]
        if set(edit) - {"edit"} != set(wanted):
            has = ", ".join(sorted(map(_shown, set(edit) - {"edit"}))) or "none"
            raise UnsafeError(f"edit {name} takes {', '.join(wanted) or 'nothing'}; found {has}")
        for key, check in wanted.items():
            if words := check(edit[key]):
                raise UnsafeError(f"edit {name}: {key} must be {words}; found {_shown(edit[key])}")


def require_fit(network: Any, edit: Mapping[str, Any]) -> None:
    """Check that all that an edit of sound form names is in the network, and is what it's about.

    Raises:
        UnsafeError: it's of another network, or of none; the message says what is wrong.
    """
    nodes: dict[str, fx.Node] = {node.name: node for node in network.graph.nodes}
    check = FITS.get(edit["edit"])
    if check is None:
        return
    parameters = {key: value for key, value in edit.items() if key != "edit"}
    if words := check(network, nodes, **parameters):
        raise UnsafeError(f"edit {edit['edit']} doesn't fit this network: {words}")


def require_parts(network: Any, plan: Plan) -> None:
    """Check that the parts that a plan names are in the network, as its edits have left it.

    Raises:
        UnsafeError: one is not; the message names it.
    """
    if words := unknown_part(network, plan.parts or ()):
        raise UnsafeError(f"plan {plan.method} doesn't fit this network: {words}")


def _is_object(value: Any) -> bool:
    return isinstance(value, Mapping) and all(isinstance(key, str) for key in value)


def _is_list(value: Any) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str | bytes)


def _is_integer(value: Any, low: int, high: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and low <= value <= high


def _is_real(value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return number and abs(value) <= LARGEST and math.isfinite(value)


def _is_scale(value: Any) -> bool:
    return _is_real(value) and abs(value) >= SMALLEST


def _is_scales(value: Any) -> bool:
    if not _is_list(value) or not value:
        return False
    if not _is_list(value[0]):
        return all(map(_is_scale, value))
    return all(
        _is_list(row) and row and len(row) == len(value[0]) and all(map(_is_scale, row))
        for row in value
    )


def _are_qparams(qparams: Mapping[str, Any], zero: Any) -> bool:
    ends = (qparams["low"], zero, qparams["high"])
    known = all(_is_integer(end, -EIGHT_BITS, EIGHT_BITS) for end in ends)
    return known and ends[0] <= zero <= ends[2] and 0 < ends[2] - ends[0] <= EIGHT_BITS


def _is_left(value: Any) -> bool:
    words = _is_object(value) and set(value) == {"what", "why"}
    return words and all(isinstance(text, str) for text in value.values())


def _shown(value: Any) -> str:
    """A value in a message, cut short."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
