"""`penjing profile`, `bench`, `export` and `verify`: what works on a task or a file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.app import as_flags
from penjing.cli.console import doing, print_lines, print_prose, width
from penjing.cli.flags import (
    DEVICE,
    OUTPUT,
    AsJson,
    Python,
    SshConfig,
    TaskArguments,
    TaskName,
    by_field,
    names_of_runtimes,
    names_of_targets,
    precisions,
)
from penjing.errors import InputError
from penjing.layout import in_columns
from penjing.printable import in_a_line

if TYPE_CHECKING:
    from penjing.contract import Latency
    from penjing.tools.proof import Proof

MEASUREMENT, FILE = "Measurement", "File"
"""Groups of options, beside those that several commands have."""


def profile(
    task: Annotated[
        str,
        typer.Argument(
            metavar="TASK|FILE.onnx", help="As for penjing fit; or any ONNX file, node by node."
        ),
    ],
    task_arg: TaskArguments = None,
    as_json: AsJson = False,
) -> None:
    """Show where weights, operations, memory and measured time go, layer by layer."""
    from penjing.report.timings import nodes_lines, profile_lines
    from penjing.tasks.reference import find_task, with_arguments
    from penjing.tools.profile import profile as run
    from penjing.tools.profile import profile_file

    with doing(f"reading {task}") as say:
        if task.endswith(".onnx"):
            nodes, whole = profile_file(Path(task), say=say)
            lines, rows = nodes_lines(nodes, whole, width()), {"nodes": list(map(asdict, nodes))}
        else:
            named = find_task(with_arguments(task, task_arg or ()))
            layers, whole = run(named, say=say)
            lines = profile_lines(layers, whole, width())
            rows = {"layers": list(map(asdict, layers))}
    if as_json:
        print(json.dumps({"latency_ms": whole, **rows}))
    else:
        print_lines(lines)


@dataclass(frozen=True)
class Bench:
    """What `penjing bench` is given."""

    files: Annotated[
        list[Path], typer.Argument(metavar="FILE...", help="Files of any runtime, such as .onnx.")
    ]
    seconds: Annotated[
        float,
        typer.Option(
            metavar="SECONDS", help="How long to measure, in all.", rich_help_panel=MEASUREMENT
        ),
    ] = 10.0
    runtime: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="What runs the files: once for all, or once for each; without it, their endings "
            "decide.",
            rich_help_panel=MEASUREMENT,
            autocompletion=names_of_runtimes,
        ),
    ] = None
    target: Annotated[
        str,
        typer.Option(
            metavar="DEVICE",
            help="Where files are timed: cpu, or a device as ssh://user@host[:port].",
            rich_help_panel=DEVICE,
        ),
    ] = "cpu"
    python: Python = "python3"
    ssh_config: SshConfig = None
    as_json: AsJson = False


@by_field
def bench(asked: Bench) -> None:
    """Time files side by side; ratios are to the first file."""
    from penjing.report.timings import bench_lines

    with doing("loading the files") as say:
        times, where, notes, peaks = _measured(asked, say)
    if asked.as_json:
        rows = {
            name: asdict(timing) | {"verdict": timing.verdict, "device": where, "notes": notes}
            | ({"peak_process_bytes": peaks[name]} if peaks else {})
            for name, timing in times.items()
        }  # fmt: skip
        print(json.dumps(rows))
    else:
        print_lines(bench_lines(times, where, peaks, width()))
        print_prose(notes, "- ")


def _measured(
    asked: Bench, say: Callable[[str], None]
) -> tuple[dict[str, Latency], str, tuple[str, ...], dict[str, int | None]]:
    """Times by file, where they were measured, what to know of them, and peaks of memory."""
    from penjing.device.address import Device
    from penjing.targets import find_target, require_local
    from penjing.tools.bench import bench, bench_there, warnings

    device = Device.of(asked.target, asked.python, asked.ssh_config)
    if device is not None:
        if asked.runtime:
            raise InputError(
                "--runtime is for this machine; on a device the files' endings decide, so leave it "
                "out"
            )
        say(f"measuring on {asked.target}")
        there = bench_there(device, asked.files, asked.seconds)
        return there.times, there.device, there.notes, there.peaks
    if asked.target != "cpu":
        require_local(find_target(asked.target))
        raise InputError(
            f"--target must be cpu or an ssh:// address; found {asked.target}; give --runtime to "
            "choose what runs a file here (penjing runtimes lists them)"
        )
    runtimes = asked.runtime or ()
    times = bench(asked.files, asked.seconds, runtimes=runtimes, say=say)
    return times, "this machine", tuple(warnings(asked.files, runtimes)), {}


@dataclass(frozen=True)
class Export:
    """What `penjing export` is given."""

    task: TaskName
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What will run the file (see penjing runtimes); without it, the target's first.",
            rich_help_panel=FILE,
            autocompletion=names_of_runtimes,
        ),
    ] = None
    precision: Annotated[
        str,
        typer.Option(
            metavar="KIND",
            help="float32, float16, int8, or int8-weights.",
            rich_help_panel=FILE,
            autocompletion=precisions,
        ),
    ] = "float32"
    target: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="The device that the file is for (see penjing targets).",
            rich_help_panel=FILE,
            autocompletion=names_of_targets,
        ),
    ] = "cpu"
    accept_divergence: Annotated[
        bool,
        typer.Option(
            "--accept-divergence",
            help="Write the file even if it computes something else than its network.",
            rich_help_panel=FILE,
        ),
    ] = False
    out: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the file and its record are written.",
            rich_help_panel=OUTPUT,
        ),
    ] = Path("exported")
    task_arg: TaskArguments = None
    as_json: AsJson = False


@by_field
def export(asked: Export) -> None:
    """Write the network as a runtime's file, and check it on the test data."""
    from penjing.tasks.reference import find_task, with_arguments
    from penjing.tools.export import ExportOptions, export_model

    options = ExportOptions(asked.target, asked.accept_divergence)
    with doing(f"reading {asked.task}") as say:
        task = find_task(with_arguments(asked.task, asked.task_arg or ()))
        say(f"writing the file for {asked.runtime or asked.target}, and measuring it")
        proof = export_model(task, asked.runtime, asked.precision, asked.out, options)
    _print_proof(proof, asked.as_json)


def verify(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="A file that fit or export has written.")
    ],
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK", help="Whose test data to use; as for penjing fit.", rich_help_panel=FILE
        ),
    ],
    runtime: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="What runs it; without it, its record or its ending decides.",
            rich_help_panel=FILE,
            autocompletion=names_of_runtimes,
        ),
    ] = None,
    task_arg: TaskArguments = None,
    as_json: AsJson = False,
) -> None:
    """Check a file's bytes against the record beside it, and run it on the test data."""
    from penjing.tasks.reference import find_task, with_arguments
    from penjing.tools.export import verify as run

    with doing(f"reading {task}") as say:
        judged = find_task(with_arguments(task, task_arg or ()))
        say(f"checking {file}, and running it on the test data")
        proof = run(file, judged, runtime)
    _print_proof(proof, as_json)


def _print_proof(proof: Proof, as_json: bool) -> None:
    if as_json:
        print(json.dumps(proof.to_json()))
    else:
        rows = [
            (in_a_line(as_flags(word)), in_a_line(as_flags(text))) for word, text in proof.rows()
        ]
        print_lines(in_columns(rows, width()))
        print_lines(["", "To run it without penjing:"])
        print_lines(in_a_line(line) for line in proof.loading.splitlines())  # to be copied
