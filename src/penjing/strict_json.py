"""Strict reading of JSON from files that somebody else may have written."""

from __future__ import annotations

import json
import math
from typing import Any, NoReturn

from penjing.errors import UnsafeError

MOST_BYTES = 256 * 2**20
MOST_DIGITS = 30
"""The most digits of an integer. Nothing that penjing writes has half as many."""


def parse(data: bytes | str, what: str) -> Any:
    """Parse JSON.

    Args:
        data: the text.
        what: what the text is, such as the name of its file, for the message.

    Raises:
        UnsafeError: the text isn't UTF-8 or JSON, is nested too deeply or too long, has a key
            twice, or holds NaN, an infinity or an integer with too many digits.
    """
    if len(data) > MOST_BYTES:
        raise UnsafeError(
            f"{what} is {len(data)} bytes of JSON, but penjing reads at most {MOST_BYTES}; refused"
        )
    try:
        text = data.decode("utf-8") if isinstance(data, bytes) else data
        return json.loads(
            text, object_pairs_hook=_object, parse_constant=_no_number,
            parse_int=_integer, parse_float=_real,
        )  # fmt: skip
    except RecursionError:
        raise UnsafeError(
            f"{what} is JSON that is nested too deeply, so penjing didn't write it; refused"
        ) from None
    except ValueError as error:
        raise UnsafeError(f"{what} is not valid JSON: {error}") from error


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice[:80]!r} occurs twice")
    return mapping


def _no_number(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def _integer(digits: str) -> int:
    if len(digits) > MOST_DIGITS:
        raise ValueError(f"an integer has {len(digits)} digits, at most {MOST_DIGITS} are allowed")
    return int(digits)


def _real(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise ValueError(f"{digits[:40]} is too large for a float")
    return number
