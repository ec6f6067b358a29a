"""`penjing fit`: the search, and what it prints of its result."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.console import console, print_lines
from penjing.cli.flags import AsJson, Python, SshConfig, TaskName, by_field
from penjing.errors import InputError

if TYPE_CHECKING:
    from penjing.trials.result import Result

LOAD = """
import onnxruntime
session = onnxruntime.InferenceSession("{path}")
name = session.get_inputs()[0].name
outputs = session.run(None, {{name: batch}})[0]  # batch: float32, prepared as for training
"""
LOAD_OTHERS = """
from pathlib import Path
from penjing.runtimes.registry import find_runtime
runtime = find_runtime("{runtime}")
outputs = runtime.load(runtime.artifact(Path("{path}"))).run(batch)
"""


@dataclass(frozen=True)
class Fit:
    """What `penjing fit` is told."""

    task: TaskName
    target: Annotated[
        str, typer.Option(help="cpu, gpu, or ssh://user@host[:port]: measured there.")
    ] = "cpu"
    max_drop: Annotated[float, typer.Option(help="Budget in points, such as 1.0.")] = 1.0
    minutes: Annotated[float, typer.Option(help="About how long to take.")] = 10.0
    epochs: Annotated[
        float | None, typer.Option(help="Of each training, instead of --minutes.")
    ] = None
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("fitted")
    goal: Annotated[str, typer.Option(help="latency or size.")] = "latency"
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0
    confidence: Annotated[float, typer.Option(help="Of the bound on the drop.")] = 0.95
    python: Python = "python3"
    ssh_config: SshConfig = None
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run in --out.")] = False
    strategy: Annotated[str, typer.Option(help="quick, mystrategy.py, or package.module:name.")] = (
        "quick"
    )
    as_json: AsJson = False


@by_field
def fit(asked: Fit) -> None:
    """Make candidates, measure each on its file, choose the best that keeps the budget."""
    try:
        result = _fitted(asked)
    except KeyboardInterrupt:
        print(f"penjing: interrupted before {what_is_there(asked.out)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if asked.as_json:
        print(json.dumps(result.to_json()))
    else:
        print_result(result, asked.out)
    if not result.finished:
        raise typer.Exit(130)


def _fitted(asked: Fit) -> Result:
    """`penjing.fit` by flags; imported here, so that no other command waits for it."""
    from penjing.report.markdown import write_report
    from penjing.report.progress import display
    from penjing.search.fit import fit
    from penjing.search.options import FitOptions
    from penjing.search.strategies import find_strategy

    with display(console(stderr=True), asked.as_json) as progress:
        options = FitOptions(
            goal=asked.goal,
            seed=asked.seed,
            confidence=asked.confidence,
            python=asked.python,
            ssh_config=asked.ssh_config,
            overwrite=asked.overwrite,
            resume=asked.resume,
            epochs=asked.epochs,
            strategy=find_strategy(asked.strategy),
            progress=progress,
            report=write_report,
        )
        return fit(asked.task, asked.target, asked.max_drop, asked.minutes, asked.out, options)


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
    return f"anything more was finished; in {out} --resume goes on, --overwrite begins anew"


def print_result(result: Result, out: Path) -> None:
    """Print all candidates, the choice with its reason, and how to load the file."""
    from rich.markup import escape

    from penjing.report.markdown import test_line
    from penjing.report.table import candidates_table, reasons

    wide = console(width=max(console().width, 120))
    wide.print(candidates_table(result))
    print_lines((*reasons(result), *result.notes, *result.verdicts), indent="  ")
    choice = f"chosen: [bold]{escape(result.chosen)}[/], {escape(result.reason)}"
    for line in (choice, test_line(result)):
        wide.print(line, highlight=False, soft_wrap=True)
    if result.artifact:
        path = out / result.artifact
        wide.print(escape(f"file:   {path}   report: {out / 'report.md'}"), highlight=False)
        runtime = result.answer.runtime
        load = LOAD if runtime == "onnxruntime" else LOAD_OTHERS
        print_lines([load.format(path=path, runtime=runtime)])
