"""Converters of other projects: whatever one raises becomes one line about the network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from penjing.errors import InputError, first_line


@contextmanager
def converting(converter: str, why: Callable[[Exception], str] = first_line) -> Iterator[None]:
    """Turn any exception within this context into an InputError.

    Converters may raise any kind of exception. Only calls of the converter belong in the context:
    an exception in penjing's own code is a bug, and must end as one.

    Args:
        converter: the name of the converter, for the message.
        why: a function that puts the exception's cause into one line.

    Raises:
        InputError: the converter can't convert the network.

    >>> with converting("the exporter"):
    ...     raise KeyError("aten.odd")
    Traceback (most recent call last):
    penjing.errors.InputError: the exporter can't convert this network: 'aten.odd'
    """
    try:
        yield
    except Exception as error:
        raise InputError(f"{converter} can't convert this network: {why(error)}") from error
