"""`penjing report`: the result of an earlier fit, once more."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from penjing.cli.fit import print_result
from penjing.cli.flags import AllCandidates, AsJson, by_field
from penjing.errors import InputError


@dataclass(frozen=True)
class Report:
    """What `penjing report` is given."""

    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="The --out of an earlier fit.")]
    all: AllCandidates = False
    as_json: AsJson = False


@by_field
def report(asked: Report) -> None:
    """Print the result of an earlier fit again."""
    from penjing.trials.result import RECORD, Result

    if not (asked.folder / RECORD).exists():
        raise InputError(f"no {RECORD} in {asked.folder}; give the `out` of an earlier fit")
    result = Result.load(asked.folder)
    if asked.as_json:
        print(json.dumps(result.to_json()))
    else:
        print_result(result, asked.folder, everything=asked.all)
