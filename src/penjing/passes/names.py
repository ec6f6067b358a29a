"""Names: what the options of a pass call layers and axes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from penjing.errors import InputError


def is_in(axis: str, name: str) -> bool:
    """Whether an axis or a layer has that name, or lies inside the layer of that name."""
    return axis == name or axis.startswith((f"{name}.", f"{name}["))


def require_names(
    option: str, given: Iterable[str], known: Sequence[str], what: str = "layer"
) -> None:
    """Refuse an option that names neither one of these nor what lies around them.

    Args:
        option: what the option is called.
        given: the names that it has.
        known: the names of the layers, or axes, that there are.
        what: `"layer"`, or what else they are.

    Raises:
        InputError: a name is unknown.
    """
    for name in given:
        if not any(is_in(other, name) for other in known):
            raise InputError(
                f"{option} names {name!r}, but the network has no such {what}; it has "
                f"{', '.join(known)}"
            )
