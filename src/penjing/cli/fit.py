"""`penjing fit`: the search, and what it prints of its result."""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.app import as_flags
from penjing.cli.console import console, print_lines, width
from penjing.cli.flags import (
    BUDGET,
    DEVICE,
    OUTPUT,
    SEARCH,
    AllCandidates,
    AsJson,
    Python,
    Seed,
    SshConfig,
    TaskArguments,
    TaskName,
    by_field,
)
from penjing.errors import InputError, PenjingError

if TYPE_CHECKING:
    from penjing.trials.recipe import Recipe
    from penjing.trials.result import Result


@dataclass(frozen=True)
class Fit:
    """What `penjing fit` is given."""

    task: TaskName
    max_drop: Annotated[
        str,
        typer.Option(
            metavar="AMOUNT",
            help="How much the metric may fall: points (1 point of accuracy is 1 %), an amount in "
            "the metric's own unit, or 5% of what the original has.",
            rich_help_panel=BUDGET,
        ),
    ] = "1.0"
    confidence: Annotated[
        float,
        typer.Option(
            metavar="SHARE",
            help="How certain it must be that the loss is within the budget, from 0.5 to below 1.",
            rich_help_panel=BUDGET,
        ),
    ] = 0.95
    goal: Annotated[
        str,
        typer.Option(
            metavar="GOAL",
            help="What to make small: latency, size (of the file), memory (of values), or several "
            "with weights, such as latency=2,size=1.",
            rich_help_panel=BUDGET,
        ),
    ] = "latency"
    max_ms: Annotated[
        float | None,
        typer.Option(
            metavar="MS",
            help="The longest time of one sample on the device, in milliseconds.",
            rich_help_panel=BUDGET,
        ),
    ] = None
    max_kb: Annotated[
        float | None,
        typer.Option(
            metavar="KB",
            help="The largest file, in kilobytes of 1,000 bytes.",
            rich_help_panel=BUDGET,
        ),
    ] = None
    minutes: Annotated[
        float,
        typer.Option(metavar="MINUTES", help="About how long to search.", rich_help_panel=SEARCH),
    ] = 10.0
    epochs: Annotated[
        float | None,
        typer.Option(
            metavar="EPOCHS",
            help="Train each pruned network for so many epochs, however long that takes, instead "
            "of --minutes.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    strategy: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="What proposes the candidates: joint, which searches blocks, widths and ranks "
            "together; quick, which tries three widths, as joint does where there is too little "
            "time; a file such as mystrategy.py, or package.module:name.",
            rich_help_panel=SEARCH,
        ),
    ] = "joint"
    recipe: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A recipe of your own as JSON (see Recipe.to_json), tried before anything is "
            "pruned; may be given several times.",
            rich_help_panel=SEARCH,
        ),
    ] = None
    seed: Seed = 0
    target: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Where the file will run: cpu or gpu of this machine, a device as "
            "ssh://user@host[:port], or the name of one that isn't here (penjing targets), for "
            "which times are estimated.",
            rich_help_panel=DEVICE,
        ),
    ] = "cpu"
    python: Python = "python3"
    ssh_config: SshConfig = None
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the answer, the report and all candidates are written.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("fitted")
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite", help="Replace an earlier result in --out.", rich_help_panel=OUTPUT
        ),
    ] = False
    resume: Annotated[
        bool,
        typer.Option(
            "--resume", help="Continue an interrupted fit in --out.", rich_help_panel=OUTPUT
        ),
    ] = False
    all: AllCandidates = False
    as_json: AsJson = False
    task_arg: TaskArguments = None


@by_field
def fit(asked: Fit) -> None:
    """Find the file that runs best on a device within an accuracy budget.

    It makes many candidates (several runtimes, 8-bit integers, pruned and trained networks),
    measures each on the file itself, and chooses the best one that keeps the budget.
    """
    from penjing.tasks.reference import with_arguments

    task = with_arguments(asked.task, asked.task_arg or ())
    try:
        result = _fitted(asked, task)
    except PenjingError as error:
        if _is_follower():  # the first process says it
            raise typer.Exit(error.exit_code) from None
        raise
    except KeyboardInterrupt:
        print(f"penjing: interrupted before {what_is_there(asked.out)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if not _is_follower():
        if asked.as_json:
            print(json.dumps(result.to_json()))
        else:
            print_result(result, asked.out, task, asked.all)
    if not result.finished:
        raise typer.Exit(130)


def _fitted(asked: Fit, task: str) -> Result:
    """`penjing.fit` by flags; imported here, so that no other command waits for it."""
    from penjing.report.progress import display
    from penjing.report.write import write_report
    from penjing.search.fit import fit
    from penjing.search.options import FitOptions
    from penjing.search.strategies import find_strategy

    with display(console(stderr=True, quiet=_is_follower())) as progress:
        options = FitOptions(
            goal=asked.goal,
            seed=asked.seed,
            confidence=asked.confidence,
            python=asked.python,
            ssh_config=asked.ssh_config,
            overwrite=asked.overwrite,
            resume=asked.resume,
            epochs=asked.epochs,
            max_ms=asked.max_ms,
            max_kb=asked.max_kb,
            recipes=_recipes(asked.recipe or ()),
            strategy=find_strategy(asked.strategy),
            progress=progress,
            report=write_report,
        )
        return fit(task, asked.target, asked.max_drop, asked.minutes, asked.out, options)


def _is_follower() -> bool:
    """Whether `torchrun` started this process beside a first one."""
    return "WORLD_SIZE" in os.environ and os.environ.get("RANK", "0") != "0"


def _recipes(paths: Sequence[Path]) -> dict[str, Recipe]:
    """The recipes in these files, by the names of the files."""
    from penjing.trials.recipe import Recipe

    recipes: dict[str, Recipe] = {}
    for path in paths:
        if path.stem in recipes:
            raise InputError(f"two recipes are called {path.stem!r}; rename {path}")
        recipes[path.stem] = Recipe.read(path)
    return recipes


def what_is_there(out: Path) -> str:
    """What wasn't done in the folder of a fit that was interrupted early, and what it holds."""
    from penjing.trials.result import RECORD, Result

    try:
        finished = (out / RECORD).exists() and Result.load(out).finished
    except InputError:  # it isn't penjing's, and so not this fit's
        return "anything was finished"
    if not (out / RECORD).exists():
        return f"anything was finished; nothing was written to {out}"
    if finished:
        return f"its end; {out} holds a finished result"
    return f"anything more was finished; in {out} --resume continues, --overwrite starts again"


def print_result(result: Result, out: Path, task: str = "TASK", everything: bool = False) -> None:
    """Print the answer with its reasons, the candidates, the files, and what to do next."""
    from penjing.report.screen import Screen
    from penjing.tools.export import loading_of

    check = loading = ""
    if result.artifact:
        path, answer = out / result.artifact, result.answer
        check = f"penjing verify {shlex.quote(str(path))} --task {shlex.quote(task)}"
        loading = loading_of(path, answer.runtime, answer.sha256)
    all_of_it = f"penjing report {shlex.quote(str(out))} --all"
    screen = Screen(result, out, everything, all_of_it, check, loading, width(), as_flags)
    print_lines(screen.lines())
