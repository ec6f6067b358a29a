"""The directive `command-line`: every command with its arguments and options, from the program."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import typer
from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from penjing.cli import commands  # noqa: F401  it adds the commands to the program
from penjing.cli.app import app as program

NAME = "penjing"
KINDS = {bool: "", float: "number", int: "whole number", Path: "path", str: "text"}
"""By the type of a parameter in Python, what is written for its value."""


def reference() -> str:
    """The reference as Markdown, whose headings begin at the second level."""
    group: Any = typer.main.get_command(program)
    every = program.registered_callback
    lines = ["## Options of every command", ""]
    lines += _table(group.params, _annotations(every.callback if every else None))
    functions = {_name(info): info.callback for info in program.registered_commands}
    for name, command in group.commands.items():
        lines += ["", f"## {NAME} {name}", "", _text(command.help), ""]
        usage = " ".join([_shown(param) for param in command.params if _is_argument(param)])
        lines += ["```text", f"{NAME} {name} {usage} [OPTIONS]".replace("  ", " "), "```", ""]
        lines += _table(command.params, _annotations(functions.get(name)))
        lines += _examples(command.epilog)
    return "\n".join(lines)


def _examples(epilog: str | None) -> list[str]:
    """What the help of a command shows at its end."""
    text = inspect.cleandoc(epilog or "")
    return ["", "```text", *text.split("\n"), "```"] if text else []


def _name(info: Any) -> str:
    return str(info.name or info.callback.__name__.replace("_", "-"))


def _annotations(function: Callable[..., Any] | None) -> Mapping[str, Any]:
    if function is None:
        return {}
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: parameter.annotation for name, parameter in parameters.items()}


def _is_argument(param: Any) -> bool:
    return not param.opts[0].startswith("-")


def _shown(param: Any) -> str:
    if not _is_argument(param):
        return ", ".join(param.opts)
    name = str(param.metavar or param.name.upper())
    return f"{name}..." if param.nargs == -1 and not name.endswith("...") else name


def _table(params: list[Any], annotations: Mapping[str, Any]) -> Iterator[str]:
    yield "| argument or option | value | default | meaning |"
    yield "|---|---|---|---|"
    for param in params:
        if getattr(param, "hidden", False):
            continue
        kind = "" if _is_argument(param) else _kind(annotations.get(param.name, bool))
        name = _shown(param).replace("|", r"\|")
        yield f"| `{name}` | {kind} | {_default(param)} | {_text(param.help)} |"


def _kind(annotation: Any) -> str:
    """What value an option of this type takes; empty for a flag, which takes none."""
    while get_origin(annotation) is not None:
        inner = [part for part in get_args(annotation) if part is not type(None)]
        if get_origin(annotation) is list:
            return f"{_kind(inner[0])}, may be repeated"
        annotation = inner[0]
    return KINDS.get(annotation, "text")


def _default(param: Any) -> str:
    if param.required:
        return "required"
    is_told = isinstance(param.default, str | float | Path) and not isinstance(param.default, bool)
    return f"`{param.default}`" if is_told and str(param.default) else ""


def _text(text: str | None) -> str:
    """In one line, with flags and whatever stands between backticks as code."""
    line = " ".join((text or "").replace("|", r"\|").split())
    return re.sub(r"(?<![`\w-])(--[a-z][a-z-]*)", r"`\1`", line)


class CommandLine(SphinxDirective):
    """`{command-line}`, without arguments or content."""

    def run(self) -> list[nodes.Node]:
        """The reference, parsed."""
        return self.parse_text_to_nodes(reference(), allow_section_headings=True)


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("command-line", CommandLine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
