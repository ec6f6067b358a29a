"""Converters that others wrote: whatever one of them raises is a line about the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penjing.errors import InputError, first_line


@contextmanager
def converting(converter: str, why: Callable[[Exception], str] = first_line) -> Iterator[None]:
    """Within it, a converter runs, which is known to raise anything.

    Only its own calls belong there: an error in what penjing makes for it is a bug, and has to end
    as one.

    Args:
        converter: its name, for the message.
        why: what an error says of it, in one line.

    Raises:
        InputError: the converter can't take the network.

    >>> with converting("the exporter"):
    ...     raise KeyError("aten.odd")
    Traceback (most recent call last):
    penjing.errors.InputError: the exporter can't take this network: 'aten.odd'
    """
    try:
        yield
    except Exception as error:
        raise InputError(f"{converter} can't take this network: {why(error)}") from error
