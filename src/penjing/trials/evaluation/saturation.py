"""What to say of files that may decide otherwise on x86 processors without VNNI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.contract import Json, Saturating, some_of
from penjing.processor import Processor


def warning(name: str, saturates: Json, here: Processor) -> str:
    """One line about a file whose layers may leave 16 bits; empty if none can.

    Args:
        saturates: what `as_json` gave.

    >>> warning("a.onnx", "never", Processor("any", "x86_64", ()))
    ''
    """
    if not isinstance(saturates, list | tuple):
        return ""
    what = f"{name}: sums of two products may leave 16 bits in {some_of(list(saturates))}"
    if here.adds_in_16_bits:
        return f"{what}; {here} has no VNNI and cuts them off, so other processors decide otherwise"
    return f"{what}; x86 processors without VNNI cut them off and may decide otherwise than {here}"


def as_json(layers: Sequence[Saturating]) -> Json:
    """`"never"`, or the names of the layers that may."""
    return [layer.layer for layer in layers] or "never"


def judged_on(here: Processor) -> dict[str, Any]:
    """The processor as a record keeps it."""
    return {
        "processor": here.name,
        "architecture": here.architecture,
        "instructions": list(here.instructions),
        "threads": 1,
    }


def processor_of(record: Mapping[str, Json]) -> Processor:
    """The inverse of `judged_on`."""
    name, architecture = str(record["processor"]), str(record["architecture"])
    return Processor(name, architecture, tuple(record["instructions"]))
