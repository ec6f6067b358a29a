"""A scan of an ONNX file before any library parses it: its number of parts, and external weights.

The scan reads the bytes field by field by protobuf's rules, without creating objects. So a file
with a million empty tensors, which would keep ONNX Runtime busy for minutes, is refused at once. A
file whose weights are in other files is refused too, whatever their paths are, because loaders
follow some of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from penjing.errors import InputError, UnsafeError

MOST_TENSORS, MOST_NODES, MOST_FIELDS, MOST_DEPTH = 50_000, 100_000, 5_000_000, 48
"""A network with a hundred million weights has a few thousand tensors and nodes."""
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
"""For each kind of message, the numbers of the fields that hold other messages, by onnx.proto."""
EXTERNAL_DATA, DATA_LOCATION = 13, 14
"""Field numbers of a tensor."""
FIXED_SIZES = {1: 8, 5: 4}
"""The bytes of a number with a fixed size, by its wire type."""


@dataclass
class _Counts:
    tensors: int = 0
    nodes: int = 0
    fields: int = 0


def require_plain(content: bytes) -> None:
    """Check that an ONNX file that penjing didn't write can be given to a runtime at all.

    Raises:
        UnsafeError: weights are in other files, or there are too many parts, or they are nested
            too deeply.
        InputError: the file isn't a protobuf.
    """
    counts = _Counts()
    try:
        _walk(content, 0, len(content), "model", 0, counts)
    except (IndexError, ValueError):
        raise InputError(
            "ONNX Runtime can't load this file: it isn't an ONNX model, or it is incomplete"
        ) from None


def _walk(data: bytes, place: int, end: int, kind: str, depth: int, counts: _Counts) -> None:
    """Walk through the fields of one message, and through the messages in it."""
    if depth > MOST_DEPTH:
        raise UnsafeError(f"its parts are nested more than {MOST_DEPTH} levels deep; refused")
    _count(kind, counts)
    for field in _fields(data, place, end):
        counts.fields += 1
        if kind == TENSOR and _is_external(field):
            raise _external_weights()
        if field.part is not None and field.number in PARTS[kind]:
            _walk(data, *field.part, PARTS[kind][field.number], depth + 1, counts)


def _is_external(field: _Field) -> bool:
    """Whether a tensor's field says that its numbers are in another file."""
    location = field.number == DATA_LOCATION and field.value != 0
    return location or (field.number == EXTERNAL_DATA and field.part is not None)


class _Field(NamedTuple):
    """A field of a message: its number, and its value or the (start, end) of the part it holds."""

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
                raise ValueError("a part is longer than the whole")
            yield _Field(number, part=(place, place + size))
            place += size
        elif wire in FIXED_SIZES:
            yield _Field(number)
            place += FIXED_SIZES[wire]
        else:
            raise ValueError("a field has an unknown type")
    if place != end:
        raise ValueError("a field is cut off")


def _number(data: bytes, place: int) -> tuple[int, int]:
    """An integer that is stored as seven bits per byte, and the position after it."""
    value = shift = 0
    while True:
        byte = data[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
        if shift > 63:
            raise ValueError("an integer has more than 64 bits")


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


def _external_weights() -> UnsafeError:
    return UnsafeError(
        "some of its weights are in other files, which penjing doesn't open; refused. Save it as "
        "one file where it was made, with onnx.save(onnx.load(...), ...)"
    )
