"""Wrapped: text in lines of a terminal's width, broken between words and nowhere else."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

WIDTH = 80


def wrapped(text: str, width: int = WIDTH, indent: str = "", first: str | None = None) -> str:
    """The text in lines of at most `width` columns; a longer word, such as a path, stays whole.

    Args:
        indent: what every line begins with.
        first: what the first line begins with instead.

    >>> print(wrapped("a sentence of several words", 16, indent="  ", first="- "))
    - a sentence of
      several words
    """
    return textwrap.fill(
        text,
        width,
        initial_indent=indent if first is None else first,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )


def in_columns(rows: Sequence[tuple[str, str]], width: int = WIDTH) -> str:
    """Two columns: a word, and a text that is wrapped beside it. A word that comes again in the
    next row isn't repeated.

    >>> print(in_columns([("file", "model.onnx"), ("note", "one thing"), ("note", "another")]))
    file  model.onnx
    note  one thing
          another
    """
    margin = max((len(word) for word, _ in rows), default=0) + 2
    lines, before = [], ""
    for word, text in rows:
        head = "" if word == before else word
        lines.append(wrapped(text, width, " " * margin, head.ljust(margin)))
        before = word
    return "\n".join(lines)
