"""Printable: names and messages of others, fit for a terminal.

A file's name, a node's or what a runtime says may hold the bytes by which terminals are told to
clear the screen, to rename the window or to turn the line round. They are shown, not obeyed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping

TURNING = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
"""By which a text is turned from left to right or back, whatever it says."""
CONTROLS = {"Cc", "Cs", "Zl", "Zp"}
"""Categories of control characters, of halves of characters, and of ends of lines."""
OPTION = re.compile(r"`(\w+)(?:='?([^`']+)'?)?`")
"""An option as `penjing.errors` has messages name it, with or without a value."""


def printable(text: str, keep: str = "\n\t") -> str:
    r"""The text, with an escape in place of each character that isn't there to be seen.

    Args:
        keep: controls that stay.

    >>> printable("\x1b[2J model\u202eexe.onnx")
    '\\x1b[2J model\\u202eexe.onnx'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(character if character in keep else _shown(character) for character in text)


def in_a_line(text: str) -> str:
    r"""The same of what must stay in one line, such as a name in a table.

    >>> in_a_line("a\nb")
    'a\\nb'
    """
    return printable(text, keep="")


def with_flags(text: str, flags: Mapping[str, str]) -> str:
    """The text as the command line prints it: a flag in place of each option that it names.

    Args:
        flags: by the name of a parameter in Python; other words in backticks stay.

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
