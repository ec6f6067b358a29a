"""What to say of files that may answer differently on x86 processors without VNNI."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from penjing.contract import Json, Saturating, some_of
from penjing.processor import Processor


def warning(name: str, saturates: Json, here: Processor) -> str:
    """One line about a file in whose layers sums may overflow 16 bits; empty if none can.

    Args:
        saturates: what `as_json` gave.

    >>> warning("a.onnx", "never", Processor("any", "x86_64", ()))
    ''
    """
    if not isinstance(saturates, list | tuple):
        return ""
    sums = f"sums of two products in {some_of(list(saturates))} can overflow 16 bits"
    if here.adds_in_16_bits:
        return (
            f"{name}: {here} has no VNNI, so {sums} and are cut off; other processors may answer "
            "differently"
        )
    return (
        f"{name}: on x86 processors without VNNI, {sums} and are cut off, so it may answer "
        f"differently there than on {here}"
    )


def as_json(layers: Sequence[Saturating]) -> Json:
    """`"never"`, or the names of the layers in which sums may overflow."""
    return [layer.layer for layer in layers] or "never"


def judged_on(here: Processor) -> dict[str, Any]:
    """The processor, as a record keeps it."""
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
