"""All commands, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from penjing.cli.advise import advise
from penjing.cli.app import DEBUG, NAME, app, as_flags, command
from penjing.cli.check import check
from penjing.cli.files import bench, export, profile, verify
from penjing.cli.fit import fit
from penjing.cli.init import init
from penjing.cli.lists import passes, runtimes, targets
from penjing.cli.report import report
from penjing.errors import MachineError, PenjingError, first_line, is_out_of_memory
from penjing.printable import in_a_line, printable

EXAMPLES = {
    fit: """
        On this machine, losing one point of accuracy at most:
          penjing fit mytask.py --max-drop 1.0 --minutes 10 --out fitted
        On a Raspberry Pi that SSH reaches:
          penjing fit mytask.py --target ssh://pi@raspberrypi --out fitted
        """,
    init: """
        A detector, with its data, loss and metric, as mytask.py:
          penjing init detection mytask.py
        """,
    advise: """
        Two minutes before a long fit:
          penjing advise mytask.py
        For a device that isn't here, by its compiler's estimates:
          penjing advise mytask.py --target arm-corstone-300
        """,
    report: """
        All candidates of an earlier fit, with reasons:
          penjing report fitted --all
        """,
    export: """
        The network in 8-bit integers, as a file for LiteRT:
          penjing export mytask.py --runtime litert --precision int8 --out exported
        """,
    verify: """
        Check a file that penjing wrote:
          penjing verify exported/model.tflite --task mytask.py
        """,
    profile: """
        Of a task's network, and of any ONNX file:
          penjing profile mytask.py
          penjing profile model.onnx
        """,
    bench: """
        Two files side by side:
          penjing bench original.onnx smaller.onnx --seconds 10
        """,
    check: """
        In a repository of yours, after each build:
          penjing check penjing.toml --junit check.xml
        """,
    targets: """
        One of them, with the sources of its figures:
          penjing targets raspberry-pi-5
        """,
    runtimes: """
        For programs:
          penjing runtimes --json
        """,
    passes: """
        One of them, with its formula, options and source:
          penjing passes Drop
        """,
}
"""The commands in the order in which they are listed, each with what its help shows at the end."""
for function, example in EXAMPLES.items():
    command(function, example)
USAGE: Any = typer.BadParameter.__mro__[1]
"""What typer raises for arguments that it can't read; it has no public name there."""


def main() -> None:
    """Run the command line; a PenjingError is one line and its exit code, and so is an option that
    can't be read."""
    debug = DEBUG in sys.argv
    arguments = [*([DEBUG] if debug else []), *(word for word in sys.argv[1:] if word != DEBUG)]
    try:
        sys.exit(app(arguments, prog_name=NAME, standalone_mode=False) or 0)
    except USAGE as error:
        _fail(f"{_uncapitalized(error.format_message())} ({_path(error)} --help)", 2)
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        line = f"out of memory: {first_line(error)}; take smaller batches, or a larger machine"
        _fail(line, MachineError.exit_code)
    except PenjingError as error:
        if debug:
            print(printable(traceback.format_exc()), file=sys.stderr)
        _fail(as_flags(str(error)), error.exit_code)
    finally:
        # Where a Ctrl-C came while `exec` ran a text, as libraries do to make classes, Python under
        # `-m` forgets the exit code and ends by SIGINT, unless another text was run since.
        exec("")


def _fail(message: str, code: int) -> None:
    """Print an error as one line, and end."""
    line = in_a_line(" ".join(message.split()))
    print(f"{NAME}: error: {line}", file=sys.stderr)
    sys.exit(code)


def _uncapitalized(text: str) -> str:
    return text[:1].lower() + text[1:].rstrip(".")


def _path(error: Any) -> str:
    """The command whose arguments can't be read."""
    return str(error.ctx.command_path) if error.ctx is not None else NAME
