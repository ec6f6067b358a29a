"""Printable: make names and messages from outside safe to print on a terminal.

The name of a file or node, or a message of a runtime, may contain control characters that clear the
screen, rename the window or reverse the text. They are printed as escapes instead.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""Characters that change the direction of text."""
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories of control characters, surrogates, and line and paragraph separators."""
OPTION = re.compile(r"`(\w+)(?:='?([^`']+)'?)?`")
"""An option in a message (see `penjing.errors`), with or without a value."""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""Replace each invisible or control character in the text by an escape.

    Args:
        text: the text.
        keep: control characters that stay.

    >>> printable("\x1b[2J model\u202eexe.onnx")
    '\\x1b[2J model\\u202eexe.onnx'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in keep else _shown(character) for character in text)


def in_a_line(text: str) -> str:
    r"""As `printable`, but for text that must stay in one line, such as a name in a table.

    >>> in_a_line("a\nb")
    'a\\nb'
    """
    return printable(text, keep="")


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """Replace each option in backticks by the command line's flag.

    Args:
        text: the text.
        flags: the flags by the names of Python's parameters. Other words in backticks stay.

    >>> with_flags("take `any='thing'`, not another `forward`", {"any": "--any"})
    'take --any thing, not another `forward`'
    """

    def flag(match: re.Match[str]) -> str:
        name, value = match.groups()
        return " ".join(filter(None, (flags[name], value))) if name in flags else match[0]

    return OPTION.sub(flag, text)


def _shown(character: str) -> str:
    if character not in TURNING and unicodedata.category(character) not in CONTROLS:
        return character
    if "\udc80" <= character <= "\udcff":  # a byte of a name that isn't UTF-8
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode("ascii")
