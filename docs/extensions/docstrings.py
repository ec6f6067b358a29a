"""Docstrings as they are written here, made ready for Sphinx before napoleon reads them.

They are meant to be read in the source. Sphinx reads them as reStructuredText, in which a vertical
bar begins a substitution. napoleon wants one name for each entry of a section, and takes what comes
before the first colon of a result for its type.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from sphinx.application import Sphinx

SECTIONS = ("Args:", "Attributes:", "Raises:")
RESULT = "Returns:"
ENTRY = re.compile(r"(\s+)(\w+(?:, \w+)+)(:(?: .*|$))")
"""Of several names that share a text, such as `mean, std: one figure per channel.`"""
BEFORE_NAPOLEON = 100
CODE = re.compile(r"(`[^`]*`)")


def prepared(lines: Iterable[str]) -> Iterator[str]:
    r"""The lines with an entry for each name, and without bars that mean nothing.

    >>> text = ["|x|, as in `|y|`", "Args:", "    a, b: text", "        more"]
    >>> print("\n".join(prepared(text)))
    \|x\|, as in `|y|`
    Args:
        a: text
            more
        b: text
            more
    """
    lines, within = _without_bars(list(lines)), False
    place = 0
    while place < len(lines):
        line = ":returns:" if lines[place] == RESULT else lines[place]
        within = line in SECTIONS or (within and (not line or line[0].isspace()))
        entry = ENTRY.fullmatch(line) if within else None
        end = place + 1
        if entry is None:
            yield line
        else:
            indent = len(entry[1])
            while end < len(lines) and _depth(lines[end]) > indent:
                end += 1
            for name in entry[2].split(", "):
                yield f"{entry[1]}{name}{entry[3]}"
                yield from lines[place + 1 : end]
        place = end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _without_bars(lines: list[str]) -> list[str]:
    """With bars escaped outside of code; a span of code may go on in the next line."""
    text = "\n".join(lines)
    paragraphs = re.split(r"(\n\s*\n)", text)
    escaped = [part if ">>> " in part else _escaped(part) for part in paragraphs]
    return "".join(escaped).split("\n")


def _escaped(paragraph: str) -> str:
    parts = CODE.split(paragraph)
    return "".join(part if part.startswith("`") else part.replace("|", r"\|") for part in parts)


def _prepare(app: Sphinx, what: str, name: str, value: Any, options: Any, lines: list[str]) -> None:
    lines[:] = list(prepared(lines))


def _sign(*event: Any) -> tuple[str, str] | None:
    """A default that a factory makes is no Python, and types beside it wouldn't be understood.

    Args:
        event: as Sphinx gives them, the signature and the type of what is returned at the end.
    """
    *_, signature, returns = event
    if signature and "<factory>" in signature:
        return signature.replace("<factory>", "..."), returns
    return None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.connect("autodoc-process-docstring", _prepare, priority=BEFORE_NAPOLEON)
    app.connect("autodoc-process-signature", _sign)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
