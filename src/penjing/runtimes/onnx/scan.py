"""A look at an ONNX file before any library parses it: how many parts, and whether all is within.

The bytes are walked by protobuf's own rules, field by field, without making objects of them. So a
file of a million empty tensors, over which ONNX Runtime thinks for minutes, is refused at once; and
so is one whose weights lie in other files, whatever their paths are, for loaders follow some.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from penjing.errors import InputError, UnsafeError

MOST_TENSORS, MOST_NODES, MOST_FIELDS, MOST_DEPTH = 50_000, 100_000, 5_000_000, 48
"""Networks of a hundred million weights have some thousand tensors and nodes."""
TENSOR, NODE = "tensor", "node"
PARTS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "graph": {1: NODE, 5: TENSOR, 15: "sparse"},
    NODE: {5: "attribute"},
    "attribute": {5: TENSOR, 6: "graph", 10: TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: TENSOR, 2: TENSOR},
    "function": {7: NODE, 11: "attribute"},
    "training": {1: "graph", 2: "graph"},
    TENSOR: {},
}
"""By kind of message, the numbers of the fields that hold others; from onnx.proto."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Fields of a tensor."""
FIXED_SIZES = {1: 8, 5: 4}
"""By wire type of a number whose size is given, its bytes."""


@dataclass
class _Counts:
    tensors: int = 0
    nodes: int = 0
    fields: int = 0


def require_plain(content: bytes) -> None:
    """Check that an ONNX file from elsewhere can be given to a runtime at all.

    Raises:
        UnsafeError: weights lie in other files, or there are too many parts, or they are nested
            too deeply.
        InputError: it is no protobuf.
    """
    counts = _Counts()
    try:
        _walk(content, 0, len(content), "model", 0, counts)
    except (IndexError, ValueError):
        raise InputError(
            "ONNX Runtime can't load this file: it is no ONNX model, or a part of one"
        ) from None


def _walk(data: bytes, place: int, end: int, kind: str, depth: int, counts: _Counts) -> None:
    """Go through the fields of one message, and through the messages within it."""
    if depth > MOST_DEPTH:
        raise UnsafeError(f"its parts are nested more than {MOST_DEPTH} deep; refused")
    _count(kind, counts)
    for field in _fields(data, place, end):
        counts.fields += 1
        if kind == TENSOR and _lies_elsewhere(field):
            raise _elsewhere()
        if field.part is not None and field.number in PARTS[kind]:
            _walk(data, *field.part, PARTS[kind][field.number], depth + 1, counts)


def _lies_elsewhere(field: _Field) -> bool:
    """Whether a tensor's field says that its numbers are in another file."""
    location = field.number == DATA_LOCATION and field.value != 0
    return location or (field.number == EXTERNAL_DATA and field.part is not None)


class _Field(NamedTuple):
    """A field of a message: its number, and its value or where the part lies that it holds."""

    number: int
    value: int = 0
    part: tuple[int, int] | None = None


def _fields(data: bytes, place: int, end: int) -> Iterator[_Field]:
    while place < end:
        key, place = _number(data, place)
        number, wire = key >> 3, key & 7
        if wire == 0:
            value, place = _number(data, place)
            yield _Field(number, value)
        elif wire == 2:
            size, place = _number(data, place)
            if place + size > end:
                raise ValueError("a part that is longer than the whole")
            yield _Field(number, part=(place, place + size))
            place += size
        elif wire in FIXED_SIZES:
            yield _Field(number)
            place += FIXED_SIZES[wire]
        else:
            raise ValueError("a field of no known kind")
    if place != end:
        raise ValueError("a field that is cut off")


def _number(data: bytes, place: int) -> tuple[int, int]:
    """An integer of seven bits a byte, and the place behind it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("an integer of more than 64 bits")


def _count(kind: str, counts: _Counts) -> None:
    counts.tensors += kind == TENSOR
    counts.nodes += kind == NODE
    for what, count, most in (
        ("tensors", counts.tensors, MOST_TENSORS),
        ("nodes", counts.nodes, MOST_NODES),
        ("fields", counts.fields, MOST_FIELDS),
    ):
        if count > most:
            raise UnsafeError(f"it has more than {most} {what}; refused")


def _elsewhere() -> UnsafeError:
    return UnsafeError(
        "some of its weights lie in other files; refused: make it one file, by "
        "onnx.save(onnx.load(..), ..) where it is from"
    )
