"""Help: what a command does, its options in groups, and an example; plain, in 80 columns."""

from __future__ import annotations

import inspect
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import typer
from typer.core import TyperCommand, TyperGroup

from penjing.layout import WIDTH, wrapped

LEFT = 26
"""Columns of the names of options; what they mean begins behind."""
OTHER = "Other options"
"""The group of an option that names no other."""


def width() -> int:
    """Of help: no wider than is good to read."""
    return min(WIDTH, shutil.get_terminal_size().columns)


class Command(TyperCommand):
    """A command whose help is in groups."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        arguments = [param for param in self.get_params(ctx) if _is_argument(param)]
        words = " ".join([ctx.command_path, *map(_metavar, arguments), "[OPTIONS]"])
        sections = [[f"Usage: {words}"], *_paragraphs(self.help), list(_pairs(arguments))]
        sections += [list(section) for section in _groups(self.get_params(ctx))]
        sections.append(_example(self.epilog))
        formatter.write(_joined(sections))


class Group(TyperGroup):
    """The program itself: its commands, and where to begin."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write the help."""
        formatter.write(_joined(self._sections(ctx, list(_groups(self.get_params(ctx))))))

    def overview(self, ctx: Any) -> str:
        """The commands, and where to begin."""
        where = wrapped("For all options: penjing --help, and penjing fit --help.", width())
        return _joined(self._sections(ctx, [where]))

    def _sections(self, ctx: Any, more: Sequence[list[str]]) -> list[list[str]]:
        commands = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        space = max(len(name) for name, _ in commands) + 4
        lines = [
            line
            for name, command in commands
            if command is not None
            for line in wrapped(_first_sentence(command.help), width(), f"  {name}".ljust(space))
        ]
        usage = [f"Usage: {ctx.command_path} COMMAND [OPTIONS]"]
        listed = [_heading("Commands"), *lines]
        return [usage, *_paragraphs(self.help), listed, _example(self.epilog), *more]


def _joined(sections: Sequence[Sequence[str]]) -> str:
    return "\n\n".join("\n".join(section) for section in sections if section) + "\n"


def _heading(text: str) -> str:
    return typer.style(f"{text}:", bold=True)


def _paragraphs(text: str | None) -> Iterator[list[str]]:
    for paragraph in inspect.cleandoc(text or "").split("\n\n"):
        yield wrapped(paragraph, width())


def _first_sentence(text: str | None) -> str:
    return inspect.cleandoc(text or "").split("\n\n")[0]


def _groups(params: Sequence[Any]) -> Iterator[list[str]]:
    """The options of each group, under its name; in the order in which groups come first."""
    options = [param for param in params if not _is_argument(param) and not param.hidden]
    groups = {getattr(param, "rich_help_panel", None) or OTHER: "" for param in options}
    for group in sorted(groups, key=lambda name: name == OTHER):
        mine = [param for param in options if (param.rich_help_panel or OTHER) == group]
        yield [_heading(group), *_pairs(mine)]


def _pairs(params: Sequence[Any]) -> Iterator[str]:
    """Names on the left, what they mean on the right."""
    for param in params:
        name = f"  {_metavar(param)}" if _is_argument(param) else f"  {_spelled(param)}"
        text, indent = _meaning(param), " " * LEFT
        if len(name) + 2 > LEFT:
            yield name
            name = ""
        yield from wrapped(text, width(), name.ljust(LEFT), indent)


def _spelled(option: Any) -> str:
    value = "" if option.is_flag or option.count else f" {_metavar(option)}"
    return ", ".join(option.opts) + value


def _meaning(param: Any) -> str:
    said, default = str(param.help or ""), param.default
    if _is_argument(param) or param.is_flag or default in (None, "", ()) or callable(default):
        return said
    shown = f"{default:g}" if isinstance(default, float) else default
    return f"{said} [default: {shown}]"


def _metavar(param: Any) -> str:
    name = str(param.metavar or param.name.upper())
    return f"{name}..." if param.nargs == -1 and not param.metavar else name


def _is_argument(param: Any) -> bool:
    return bool(param.param_type_name == "argument")


def _example(text: str | None) -> list[str]:
    """Command lines, which stay unbroken, under what they are for."""
    lines = inspect.cleandoc(text or "").splitlines()
    return [_heading(line.removesuffix(":")) if line.endswith(":") else line for line in lines]
