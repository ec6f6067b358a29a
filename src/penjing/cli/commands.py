"""All commands, and what becomes of their errors."""

from __future__ import annotations

import sys
import traceback
from typing import Any

import typer

from penjing.cli.app import DEBUG, app, as_flags
from penjing.cli.files import bench, export, profile, verify
from penjing.cli.fit import fit
from penjing.cli.lists import runtimes, targets
from penjing.errors import MachineError, PenjingError, first_line, is_out_of_memory
from penjing.printable import in_a_line, printable

for command in (fit, profile, bench, export, verify, targets, runtimes):
    app.command()(command)
USAGE: Any = typer.BadParameter.__mro__[1]
"""What typer raises for arguments that it can't read; it has no public name there."""


def main() -> None:
    """Run the command line; a PenjingError is one line and its exit code, and so is an option that
    can't be read."""
    debug = DEBUG in sys.argv
    arguments = [word for word in sys.argv[1:] if word != DEBUG]
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
        line = in_a_line(as_flags(" ".join(str(error).split())))
        print(f"penjing: error: {line}", file=sys.stderr)
        sys.exit(error.exit_code)
    finally:
        # Where a Ctrl-C came while `exec` ran a text, as libraries do to make classes, Python under
        # `-m` forgets the exit code and ends by SIGINT, unless another text was run since.
        exec("")
