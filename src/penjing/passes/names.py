"""Names: what the options of a pass call layers and axes."""

from __future__ import annotations


def is_in(axis: str, name: str) -> bool:
    """Whether an axis or a layer has that name, or lies inside the layer of that name."""
    return axis == name or axis.startswith((f"{name}.", f"{name}["))
