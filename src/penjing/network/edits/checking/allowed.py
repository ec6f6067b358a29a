"""Allowed: check what a plan holds before it touches a graph.

A plan can come from a file that somebody else wrote, and its names end up in the Python that is
generated from the graph. So plans are checked against an allow-list: known edits, known keys,
numbers within their ranges, and names of existing nodes of the right kind. Everything else is
refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import fx

from penjing.contract import LeftAlone, Plan, parts_from
from penjing.errors import UnsafeError
from penjing.network.edits.checking.checks import is_list, is_object, names
from penjing.network.edits.table import EDITS
from penjing.network.graph.layers import layers_of
from penjing.network.graph.network import Network

MOST_PLANS, MOST_EDITS = 200, 200


def plans_from(data: Any, what: str) -> tuple[Plan, ...]:
    """Read plans from JSON and check their form.

    Args:
        data: the parsed JSON.
        what: where it comes from, for the message.

    Raises:
        UnsafeError: a plan isn't of the form that `Plan.to_json` writes.
    """
    if not is_list(data) or len(data) > MOST_PLANS:
        raise UnsafeError(f"{what} must hold a list of at most {MOST_PLANS} plans")
    return tuple(_plan(plan, f"plan {number} of {what}") for number, plan in enumerate(data))


def _plan(data: Any, what: str) -> Plan:
    wanted = {"method", "options", "edits", "summary", "left_alone", "notes"}
    if not is_object(data) or set(data) - {"parts"} != wanted:  # older plans have no parts
        raise UnsafeError(f"{what} must be an object with the keys {', '.join(sorted(wanted))}")
    parts = {
        "method": isinstance(data["method"], str) and data["method"].isidentifier(),
        "options": is_object(data["options"]),
        "edits": is_list(data["edits"]) and all(map(is_object, data["edits"])),
        "summary": isinstance(data["summary"], str),
        "left_alone": is_list(data["left_alone"]) and all(map(_is_left, data["left_alone"])),
        "notes": is_list(data["notes"]) and all(isinstance(note, str) for note in data["notes"]),
        "parts": _parts(data.get("parts")),
    }
    for key, good in parts.items():
        if not good:
            raise UnsafeError(f"{what} has a malformed value for {key}; make the plan again")
    plan = Plan(
        data["method"], data["options"], tuple(data["edits"]), data["summary"],
        tuple(LeftAlone(**left) for left in data["left_alone"]), tuple(data["notes"]),
        parts_from(data.get("parts")),
    )  # fmt: skip
    try:
        require_known(plan)
    except UnsafeError as error:
        raise UnsafeError(f"{what}: {error}") from error
    return plan


def require_known(plan: Plan) -> None:
    """Check that each edit is known, and that its parameters are complete and within range.

    Raises:
        UnsafeError: an edit isn't; the message names it.
    """
    if len(plan.edits) > MOST_EDITS:
        raise UnsafeError(f"the plan has {len(plan.edits)} edits; at most {MOST_EDITS} are allowed")
    for edit in plan.edits:
        name = edit.get("edit")
        if not isinstance(name, str) or name not in EDITS:
            raise UnsafeError(f"unknown edit {_shown(name)}; known edits are {', '.join(EDITS)}")
        wanted = EDITS[name].checks
        if set(edit) - {"edit"} != set(wanted):
            has = ", ".join(sorted(map(_shown, set(edit) - {"edit"}))) or "none"
            takes = ", ".join(wanted) or "no parameters"
            raise UnsafeError(f"edit {name} takes {takes}; found {has}")
        for key, check in wanted.items():
            if words := check(edit[key]):
                raise UnsafeError(f"edit {name}: {key} must be {words}; found {_shown(edit[key])}")


def require_fit(network: Any, edit: Mapping[str, Any]) -> None:
    """Check that the network has everything that an edit names, and that it is of the right kind.

    Raises:
        UnsafeError: the edit doesn't fit the network; the message says why.
    """
    check = EDITS[edit["edit"]].misfit
    if check is None:
        return
    nodes: dict[str, fx.Node] = {node.name: node for node in network.graph.nodes}
    parameters = {key: value for key, value in edit.items() if key != "edit"}
    if words := check(network, nodes, **parameters):
        raise UnsafeError(f"edit {edit['edit']} doesn't fit this network: {words}")


def require_parts(network: Any, plan: Plan) -> None:
    """Check that the network, after the edits of a plan, has the parts that the plan names.

    Raises:
        UnsafeError: a part is missing; the message names it.
    """
    if words := _unknown_part(network, plan.parts or ()):
        raise UnsafeError(f"plan {plan.method} doesn't fit this network: {words}")


def _parts(value: Any) -> bool:
    return value is None or (
        is_list(value) and all(not names(part) and len(part) in (1, 2) for part in value)
    )


def _is_left(value: Any) -> bool:
    words = is_object(value) and set(value) == {"what", "why"}
    return words and all(isinstance(text, str) for text in value.values())


def _shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unknown_part(network: Network, parts: Iterable[Sequence[str]]) -> str:
    """The first part of a plan that the network doesn't have, in words; empty if it has all."""
    order = {node.name: place for place, node in enumerate(network.graph.nodes)}
    layers = {node.name for node in layers_of(network)}
    for part in parts:
        for name in part:
            if name not in (layers if len(part) == 1 else order):
                return f"there is no {'layer' if len(part) == 1 else 'value'} {name!r}"
        if order[part[0]] > order[part[-1]]:
            return f"{part[0]!r} comes after {part[-1]!r}"
    return ""
