"""JSON that came from a file which somebody else may have written: all of it plain, or refused."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from penjing.errors import UnsafeError

MOST_BYTES = 256 * 2**20
MOST_DIGITS = 30
"""Of an integer; nothing that penjing writes has half as many."""


def parse(data: bytes | str, what: str) -> Any:
    """The value that the text holds.

    Args:
        what: the file or the part of it that the text is, for the message.

    Raises:
        UnsafeError: it isn't UTF-8 or JSON, is nested too deeply or too long, names a key twice, or
            holds NaN, an infinity or an integer that no figure of penjing's can be.
    """
    if len(data) > MOST_BYTES:
        raise UnsafeError(f"{what} is {len(data)} bytes of JSON; at most {MOST_BYTES} are read")
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_number,
            parse_int=_integer, parse_float=_real,
        )  # fmt: skip
    except RecursionError:
        raise UnsafeError(f"{what} is JSON nested too deeply; it isn't penjing's") from None
    except ValueError as error:
        raise UnsafeError(f"{what} is not valid JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} is there twice")
    return mapping


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is no number")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer of {len(digits)} digits")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is beyond what a float can hold")
    return number
