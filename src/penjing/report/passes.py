"""Passes: what each method does, with its formula, options and source, from its docstring."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, fields, is_dataclass
from typing import Any

from penjing.contract import Json
from penjing.layout import Column, Line, table, wrapped
from penjing.passes import Pass

HEADINGS = ("Attributes:", "Raises:", "Source:")
ROOMS = {
    "structure": "Make the structure smaller:",
    "training": "Train:",
    "rounding": "Use fewer bits:",
}
"""The rooms of the passes, and what they are for."""


@dataclass(frozen=True)
class Description:
    """What the docstring of a pass says.

    Attributes:
        name: of the pass.
        room: the folder of the pass: `"structure"`, `"training"` or `"rounding"`.
        what: its first sentence.
        text: the paragraphs that follow, as they stand; those that are indented are formulas.
        options: by names, as the docstring lists them, what they mean.
        defaults: by option, the default, as `to_json` would give it; None where there is none.
        requires, provides: the conditions with the default options.
        source: the papers.
    """

    name: str
    room: str
    what: str
    text: tuple[str, ...]
    options: Mapping[str, str]
    defaults: Mapping[str, Json]
    requires: tuple[str, ...]
    provides: tuple[str, ...]
    source: str


def described(kind: type[Pass]) -> Description:
    """Read the docstring of a pass.

    >>> from penjing.passes import Merge
    >>> described(Merge).requires
    ('no quantized weights or activations',)
    """
    sections = _sections(inspect.cleandoc(kind.__doc__ or ""))
    paragraphs = sections[""].split("\n\n")
    return Description(
        kind.__name__,
        kind.__module__.split(".")[2],
        _joined(paragraphs[0]),
        tuple(paragraphs[1:]),
        _options(sections.get("Attributes:", "")),
        {field.name: _default(field) for field in fields(kind)},  # type: ignore[arg-type]
        _conditions(kind, "requires"),
        _conditions(kind, "provides"),
        _joined(sections.get("Source:", "")),
    )


def _conditions(kind: type[Pass], what: str) -> tuple[str, ...]:
    """The conditions of a pass; with the default options, where they depend on options."""
    conditions = getattr(kind, what)
    if not isinstance(conditions, frozenset):  # a property; some passes have options to be given
        step = object.__new__(kind)
        for field in fields(kind):  # type: ignore[arg-type]
            object.__setattr__(step, field.name, _value(field))
        conditions = getattr(step, what)
    return tuple(sorted(condition.value for condition in conditions))


def to_json(kind: type[Pass]) -> Json:
    """The description as plain data."""
    return asdict(described(kind))


def passes_lines(kinds: Mapping[str, type[Pass]], width: int) -> list[Line]:
    """All passes, by room."""
    lines: list[Line] = []
    for room, heading in ROOMS.items():
        descriptions = [about for about in map(described, kinds.values()) if about.room == room]
        columns = [Column("pass"), Column("what it does", fit="wrap")]
        laid = table(columns, [[about.name, about.what] for about in descriptions], width)
        lines += [(heading, "bold"), *laid.body, ""]
    return [
        *lines, *wrapped("To see what one does, its formula, options and source:", width),
        "  penjing passes NAME",
    ]  # fmt: skip


def pass_lines(kind: type[Pass], width: int) -> list[Line]:
    """All that is told of one pass."""
    about = described(kind)
    lines: list[Line] = [(about.name, "bold"), *wrapped(about.what, width, "  "), ""]
    for paragraph in about.text:
        if paragraph.startswith(" "):
            for line in paragraph.splitlines():
                indent = " " * (len(line) - len(line.lstrip()) + 2)
                lines += wrapped(line, width, indent) if len(line) + 2 > width else [f"  {line}"]
        else:
            lines += wrapped(_joined(paragraph), width, "  ")
        lines.append("")
    if about.options:
        lines.append(("Options", "bold"))
    for names, meaning in about.options.items():
        lines += [f"  {_with_defaults(names, about.defaults)}", *wrapped(meaning, width, "    ")]
    for heading, conditions in (("Needs", about.requires), ("Gives", about.provides)):
        if conditions:
            lines += ["", (heading, "bold"), *(f"  {condition}" for condition in conditions)]
    return [*lines, "", ("Source", "bold"), *wrapped(about.source, width, "  ")]


def _sections(text: str) -> dict[str, str]:
    """The text by heading; what stands in front of the first is under the empty one."""
    sections: dict[str, list[str]] = {"": []}
    heading = ""
    for line in text.splitlines():
        if line.startswith(">>>"):
            break
        start = next((word for word in HEADINGS if line.startswith(word)), None)
        if start is not None:
            heading = start
            sections[heading] = []
            line = line.removeprefix(start).lstrip()
        sections[heading].append(line)
    return {name: "\n".join(lines).strip("\n") for name, lines in sections.items()}


def _options(text: str) -> dict[str, str]:
    """By the names of options, their meaning."""
    options: dict[str, str] = {}
    names = ""
    for line in inspect.cleandoc(text).splitlines():
        start = re.match(r"([a-z_0-9]+(?:, [a-z_0-9]+)*): (.*)", line)
        if start and not line.startswith(" "):
            names = start[1]
            options[names] = start[2]
        elif names:
            options[names] += f" {line.strip()}"
    return options


def _value(field: Any) -> Any:
    """The default of a field; None if it has none."""
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()


def _default(field: Any) -> Json:
    value = _value(field)
    return asdict(value) if is_dataclass(value) and not isinstance(value, type) else value


def _with_defaults(names: str, defaults: Mapping[str, Json]) -> str:
    """The names of options, each with its default where that is a word or a number."""
    plain = (str, int, float, bool)
    return ", ".join(
        f"{name} = {defaults[name]!r}" if isinstance(defaults.get(name), plain) else name
        for name in names.split(", ")
    )


def _joined(paragraph: str) -> str:
    return " ".join(paragraph.split())
