"""`penjing targets`, `penjing runtimes` and `penjing passes`: what there is."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from penjing.cli.console import print_lines, width
from penjing.cli.flags import AsJson, names_of_passes, names_of_targets
from penjing.errors import InputError


def targets(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="One of them, to be told all that is known of it, with sources.",
            autocompletion=names_of_targets,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the devices that penjing knows, or describe one of them."""
    from penjing.report.lists import target_lines, targets_lines
    from penjing.targets import all_targets, find_target

    known = {name: find_target(name)} if name else all_targets()
    if as_json:
        print(json.dumps({name: asdict(target) for name, target in known.items()}))
    elif name:
        print_lines(target_lines(known[name], width()))
    else:
        print_lines(targets_lines(known, width()))


def runtimes(as_json: AsJson = False) -> None:
    """List the runtimes that penjing writes files for, and how to install missing ones."""
    from penjing.report.lists import runtimes_lines
    from penjing.runtimes.registry import ENTRIES

    if as_json:
        rows = {
            name: asdict(entry)
            | {"install": entry.install, "version": entry.version, "missing": entry.missing}
            for name, entry in ENTRIES.items()
        }
        print(json.dumps(rows))
    else:
        print_lines(runtimes_lines(ENTRIES, width()))


def passes(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="[NAME]",
            help="One of them, to see its formula, options and source.",
            autocompletion=names_of_passes,
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the methods of compression, or describe one of them."""
    from penjing.passes import PASSES
    from penjing.report.passes import pass_lines, passes_lines, to_json

    kinds = {key: kind for key, kind in PASSES.items() if name in (None, key)}
    if not kinds:
        raise InputError(f"there is no pass {name!r}; passes are {', '.join(PASSES)}")
    if as_json:
        print(json.dumps({key: to_json(kind) for key, kind in kinds.items()}))
    elif name:
        print_lines(pass_lines(PASSES[name], width()))
    else:
        print_lines(passes_lines(PASSES, width()))
