"""`penjing profile`, `bench`, `export` and `verify`: what is done with a task or a file."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from penjing.cli.console import console, print_lines
from penjing.cli.flags import AsJson, Python, SshConfig, TaskName, by_field
from penjing.errors import InputError

if TYPE_CHECKING:
    from penjing.contract import Latency
    from penjing.tools.proof import Proof


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
        table, rows = nodes_table(nodes, whole), {"nodes": [asdict(node) for node in nodes]}
    else:
        layers, whole = run(find_task(task))
        table, rows = profile_table(layers, whole), {"layers": [asdict(layer) for layer in layers]}
    if as_json:
        print(json.dumps({"latency_ms": whole, **rows}))
    else:
        console().print(table)


@dataclass(frozen=True)
class Bench:
    """What `penjing bench` is told."""

    files: Annotated[list[Path], typer.Argument(help="Files of any runtime, such as .onnx.")]
    seconds: Annotated[float, typer.Option(help="How long to measure.")] = 10.0
    target: Annotated[str, typer.Option(help="cpu, or ssh://user@host[:port]: measured there.")] = (
        "cpu"
    )
    python: Python = "python3"
    ssh_config: SshConfig = None
    runtime: Annotated[
        list[str] | None,
        typer.Option(help="For all files, or once for each; else what their endings tell."),
    ] = None
    as_json: AsJson = False


@by_field
def bench(asked: Bench) -> None:
    """Time files side by side, interleaved; ratios are to the first."""
    from penjing.report.table import bench_table

    times, where, notes, peaks = _measured(asked)
    if asked.as_json:
        rows = {
            name: asdict(timing) | {"verdict": timing.verdict, "device": where, "notes": notes}
            | ({"peak_process_bytes": peaks[name]} if peaks else {})
            for name, timing in times.items()
        }  # fmt: skip
        print(json.dumps(rows))
    else:
        console().print(bench_table(times, where, peaks))
        print_lines(notes, indent="  ")


def _measured(
    asked: Bench,
) -> tuple[dict[str, Latency], str, tuple[str, ...], dict[str, int | None]]:
    """Times by file, where they were measured, what to know of them, and peaks of memory."""
    from penjing.device.address import Device
    from penjing.targets import find_target, require_local
    from penjing.tools.bench import bench, bench_there, warnings

    device = Device.of(asked.target, asked.python, asked.ssh_config)
    if device is not None:
        if asked.runtime:
            raise InputError("--runtime is for this machine; on a device the endings tell")
        there = bench_there(device, asked.files, asked.seconds)
        return there.times, there.device, there.notes, there.peaks
    if asked.target != "cpu":
        require_local(find_target(asked.target))
        raise InputError(
            f"--target takes cpu or ssh://, found {asked.target}; what runs a file here is told by "
            "--runtime (penjing runtimes lists them)"
        )
    runtimes = asked.runtime or ()
    times = bench(asked.files, asked.seconds, runtimes=runtimes)
    return times, "this machine", tuple(warnings(asked.files, runtimes)), {}


@dataclass(frozen=True)
class Export:
    """What `penjing export` is told."""

    task: TaskName
    runtime: Annotated[
        str | None, typer.Option(help="See `penjing runtimes`; else the target's first.")
    ] = None
    precision: Annotated[str, typer.Option(help="float32, float16, int8 or int8-weights.")] = (
        "float32"
    )
    target: Annotated[str, typer.Option(help="See `penjing targets`.")] = "cpu"
    out: Annotated[Path, typer.Option(help="Folder for the file and its record.")] = Path(
        "exported"
    )
    accept_divergence: Annotated[
        bool, typer.Option(help="Write a file that computes something else than its network.")
    ] = False
    as_json: AsJson = False


@by_field
def export(asked: Export) -> None:
    """Write the network as a runtime's file, and prove it on the test data."""
    from penjing.tasks.reference import find_task
    from penjing.tools.export import ExportOptions, export_model

    options = ExportOptions(asked.target, asked.accept_divergence)
    task = find_task(asked.task)
    proof = export_model(task, asked.runtime, asked.precision, asked.out, options)
    _print_proof(proof, asked.as_json)


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


def _print_proof(proof: Proof, as_json: bool) -> None:
    from penjing.wrapped import in_columns

    if as_json:
        print(json.dumps(proof.to_json()))
    else:
        rows = in_columns(proof.rows(), max(console().width, 80))
        print_lines([*rows.splitlines(), "", proof.loading])
