"""The command line: reads arguments, calls the rest, prints."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from penjing.errors import (
    InputError,
    MachineError,
    PenjingError,
    first_line,
    is_out_of_memory,
)
from penjing.printable import in_a_line, printable, with_flags
from penjing.version import __version__

if TYPE_CHECKING:
    from penjing.report.terminal import Console
    from penjing.tools.export import Proof
    from penjing.trials.result import Result

app = typer.Typer(
    name="penjing",
    help="From a trained PyTorch network to the smaller file that runs best on a device.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
TaskName = Annotated[
    str, typer.Argument(metavar="TASK", help="'digits', mytask.py, or package.module:name")
]
Python = Annotated[str, typer.Option(help="Of a device: its interpreter that has the runtimes.")]
SshConfig = Annotated[
    Path | None, typer.Option(help="Of a device: OpenSSH's configuration to use.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, and nothing else, to stdout.")]
USAGE: Any = typer.BadParameter.__mro__[1]
"""What typer raises for arguments that it can't read; it has no public name there."""
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


DEBUG = "--debug"


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"penjing {__version__}")
        raise typer.Exit


@app.callback()
def _all_commands(
    version: Annotated[
        bool,
        typer.Option("--version", help="Print it.", callback=_print_version, is_eager=True),
    ] = False,
    debug: Annotated[
        bool, typer.Option(DEBUG, help="Print an error's traceback too; anywhere in the line.")
    ] = False,
) -> None:
    pass


@app.command()
def fit(
    task: TaskName,
    target: Annotated[
        str, typer.Option(help="cpu, gpu, or ssh://user@host[:port]: measured there.")
    ] = "cpu",
    max_drop: Annotated[float, typer.Option(help="Budget in points, such as 1.0.")] = 1.0,
    minutes: Annotated[float, typer.Option(help="About how long to take.")] = 10.0,
    epochs: Annotated[
        float | None, typer.Option(help="Of each training, instead of --minutes.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("fitted"),
    goal: Annotated[str, typer.Option(help="latency or size.")] = "latency",
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    confidence: Annotated[float, typer.Option(help="Of the bound on the drop.")] = 0.95,
    python: Python = "python3",
    ssh_config: SshConfig = None,
    overwrite: Annotated[bool, typer.Option(help="Replace an earlier result in --out.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on with an interrupted run in --out.")] = False,
    strategy: Annotated[
        str, typer.Option(help="quick, mystrategy.py, or package.module:name.")
    ] = "quick",
    as_json: AsJson = False,
) -> None:
    """Make candidates, measure each on its file, choose the best that keeps the budget."""
    from penjing.report.markdown import write_report
    from penjing.report.progress import display
    from penjing.search.fit import fit as run
    from penjing.search.options import FitOptions
    from penjing.search.strategies import find_strategy

    try:
        with display(_console(stderr=True), as_json) as progress:
            options = FitOptions(
                goal, seed, confidence, python, ssh_config, overwrite, resume, epochs,
                find_strategy(strategy), progress=progress, report=write_report,
            )  # fmt: skip
            result = run(task, target, max_drop, minutes, out, options)
    except KeyboardInterrupt:
        print(f"penjing: interrupted before {_what_is_there(out)}", file=sys.stderr)
        raise typer.Exit(130) from None
    if as_json:
        print(json.dumps(result.to_json()))
    else:
        _print_result(result, out, out / "report.md")
    if not result.finished:
        raise typer.Exit(130)


@app.command()
def profile(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE.onnx", help="As for `fit`; or any ONNX file, node by node."
        ),
    ],
    as_json: AsJson = False,
) -> None:
    """Show where parameters, MACs, memory and measured time go, layer by layer."""
    from penjing.report.table import nodes_table, profile_table
    from penjing.tasks.reference import find_task
    from penjing.tools.profile import profile as run
    from penjing.tools.profile import profile_file

    if task.endswith(".onnx"):
        nodes, whole = profile_file(Path(task))
        table, rows = nodes_table(nodes, whole), {"nodes": [asdict(one) for one in nodes]}
    else:
        layers, whole = run(find_task(task))
        table, rows = profile_table(layers, whole), {"layers": [asdict(one) for one in layers]}
    if as_json:
        print(json.dumps({"latency_ms": whole, **rows}))
    else:
        _console().print(table)


@app.command()
def bench(
    files: Annotated[list[Path], typer.Argument(help="Files of any runtime, such as .onnx.")],
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 10.0,
    target: Annotated[
        str, typer.Option(help="cpu, or ssh://user@host[:port]: measured there.")
    ] = "cpu",
    python: Python = "python3",
    ssh_config: SshConfig = None,
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="For all files, or once for each; else what their endings tell."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Time files side by side, interleaved; ratios are to the first."""
    from penjing.device.address import Device
    from penjing.report.table import bench_table
    from penjing.targets import find_target, require_local
    from penjing.tools.bench import bench as run
    from penjing.tools.bench import bench_there, warnings

    where = "this machine"
    notes: tuple[str, ...] = ()
    peaks: dict[str, int | None] = {}
    if (device := Device.of(target, python, ssh_config)) is not None:
        if runtime:
            raise InputError("--runtime is for this machine; on a device the endings tell")
        there = bench_there(device, files, seconds)
        times, where, notes, peaks = there.times, there.device, there.notes, there.peaks
    else:
        if target != "cpu":
            require_local(find_target(target))
            raise InputError(
                f"--target takes cpu or ssh://, found {target}; what runs a file here is told by "
                "--runtime (penjing runtimes lists them)"
            )
        times = run(files, seconds, runtimes=runtime or ())
        notes = tuple(warnings(files, runtime or ()))
    if as_json:
        rows = {
            name: asdict(one) | {"verdict": one.verdict, "device": where, "notes": notes}
            | ({"peak_process_bytes": peaks[name]} if peaks else {})
            for name, one in times.items()
        }  # fmt: skip
        print(json.dumps(rows))
        return
    console = _console()
    console.print(bench_table(times, where, peaks))
    for line in notes:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)


@app.command()
def export(
    task: TaskName,
    runtime: Annotated[
        str | None, typer.Option(help="See `penjing runtimes`; else the target's first.")
    ] = None,
    precision: Annotated[
        str, typer.Option(help="float32, float16, int8 or int8-weights.")
    ] = "float32",
    target: Annotated[str, typer.Option(help="See `penjing targets`.")] = "cpu",
    out: Annotated[Path, typer.Option(help="Folder for the file and its record.")] = Path(
        "exported"
    ),
    accept_divergence: Annotated[
        bool, typer.Option(help="Write a file that computes something else than its network.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write the network as a runtime's file, and prove it on the test data."""
    from penjing.targets import find_target
    from penjing.tasks.reference import find_task
    from penjing.tools.export import export as run

    where = find_target(target)
    name = runtime or where.runtimes[0]
    proof = run(find_task(task), name, out, where, precision, accept_divergence)
    _print_proof(proof, as_json)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A file that `fit` or `export` wrote.")],
    task: Annotated[str, typer.Option(help="As for `fit`.")],
    runtime: Annotated[
        str | None, typer.Option(help="To run it in; else what its record or its ending tells.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check a file's bytes against the record beside it, and run it on the test data."""
    from penjing.tasks.reference import find_task
    from penjing.tools.export import verify as run

    _print_proof(run(file, find_task(task), runtime), as_json)


@app.command()
def targets(as_json: AsJson = False) -> None:
    """List the devices that penjing knows, each with the source of its figures."""
    from penjing.report.table import targets_table
    from penjing.targets import all_targets

    found = all_targets()
    if as_json:
        print(json.dumps({name: asdict(one) for name, one in found.items()}))
    else:
        table = targets_table(found)
        table.caption_justify = "left"
        table.caption = "sources of all figures: penjing targets --json"
        _console().print(table)


@app.command()
def runtimes(as_json: AsJson = False) -> None:
    """List the runtimes that penjing lowers to, and the line that installs one that is missing."""
    from penjing.report.table import runtimes_table
    from penjing.runtimes.registry import ENTRIES

    if as_json:
        rows = {
            name: asdict(one) | {"version": one.version, "missing": one.missing}
            for name, one in ENTRIES.items()
        }
        print(json.dumps(rows))
    else:
        _console().print(runtimes_table(ENTRIES))


def _console(**options: Any) -> Console:
    from penjing.report.terminal import Console

    return Console(_with_flags, **options)


def _with_flags(text: str) -> str:
    return with_flags(text, _flags())


@cache
def _flags() -> dict[str, str]:
    """By the name of a parameter in Python, the flag of the command line."""
    commands = typer.main.get_command(app).commands.values()  # type: ignore[attr-defined]
    options = (one for command in commands for one in command.params)
    return {one.name: one.opts[0] for one in options if one.opts[0].startswith("--")}


def _what_is_there(out: Path) -> str:
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


def _print_result(result: Result, out: Path, report: Path) -> None:
    from rich.markup import escape

    from penjing.report.markdown import test_line
    from penjing.report.table import candidates_table, reasons

    console = _console(width=max(_console().width, 120))
    console.print(candidates_table(result))
    for line in (*reasons(result), *result.notes):
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    for line in result.verdicts:
        console.print(f"  {line}", highlight=False, markup=False, soft_wrap=True)
    line = f"chosen: [bold]{escape(result.chosen)}[/], {escape(result.reason)}"
    console.print(line, highlight=False, soft_wrap=True)
    console.print(test_line(result), highlight=False, soft_wrap=True)
    if result.artifact:
        line = escape(f"file:   {out / result.artifact}   report: {report}")
        console.print(line, highlight=False)
        runtime = result.answer.runtime
        load = LOAD if runtime == "onnxruntime" else LOAD_OTHERS
        lines = load.format(path=out / result.artifact, runtime=runtime)
        console.print(lines, highlight=False, markup=False, soft_wrap=True)


def _print_proof(proof: Proof, as_json: bool) -> None:
    from penjing.report.table import proof_lines

    if as_json:
        print(json.dumps(proof.to_json()))
        return
    for line in proof_lines(proof):
        _console().print(line, highlight=False, markup=False, soft_wrap=True)


def main() -> None:
    """Run the command line; a PenjingError is one line and its exit code, and so is an option that
    can't be read."""
    debug = DEBUG in sys.argv
    arguments = [one for one in sys.argv[1:] if one != DEBUG]
    try:
        sys.exit(app([*([DEBUG] if debug else []), *arguments], standalone_mode=False) or 0)
    except USAGE as error:
        if not arguments:  # what it says is the help
            error.show()
        else:
            line = " ".join(error.format_message().split())
            print(f"penjing: error: {line} (penjing --help)", file=sys.stderr)
        sys.exit(2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        line = f"out of memory: {first_line(error)}; take smaller batches, or a larger machine"
        print(f"penjing: error: {line}", file=sys.stderr)
        sys.exit(MachineError.exit_code)
    except PenjingError as error:
        if debug:
            print(printable(traceback.format_exc()), file=sys.stderr)
        line = in_a_line(_with_flags(" ".join(str(error).split())))
        print(f"penjing: error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        # Where a Ctrl-C came while `exec` ran a text, as libraries do to make classes, Python under
        # `-m` forgets the exit code and ends by SIGINT, unless another text was run since.
        exec("")


if __name__ == "__main__":
    main()
