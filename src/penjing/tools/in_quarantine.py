"""In quarantine: the process that loads and runs files of others, so that it may die of them.

It reads requests, a line of JSON each, from stdin:

    {"runtime": name, "file": path, "name": what to call it, "whole": flag,
     "memory": bytes, "seconds": of the processor}

To each it gives two lines: `{"ready": true}` once the runtime is imported, then `{"ok": true}`, or
`{"error": [kind, text]}`. It ends with its input, so it doesn't outlive who started it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from penjing.errors import PenjingError, UnsafeError, first_line
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.tools.inputs import random_inputs, require_runs

NO_MEMORY = (
    "bad_alloc", "bad allocation", "Failed to allocate", "allocate memory", "out of memory",
)  # fmt: skip
NO_GRAPH = ("INVALID_GRAPH", "is an invalid model", "Invalid model")
"""Words of runtimes' about memory that they don't get, and about a graph that is none."""


def try_out(request: dict[str, Any], runtime: Runtime) -> None:
    """Load the file and run it once on random inputs; of a `whole` file, ask where it runs too.

    Raises:
        UnsafeError: it needs more memory than it may have, or is no sound file.
        InputError: the runtime doesn't take it.
    """
    path = Path(request["file"])
    _limit(request["memory"], request["seconds"], ENTRIES[runtime.name].asks)
    try:
        session = runtime.open([file.read_bytes() for file in runtime.files(path)])
        require_runs(request["name"], session, random_inputs(session.inputs))
        if request["whole"]:
            artifact = runtime.artifact(path)
            runtime.placement(artifact)
            runtime.weight_bytes(artifact)
            runtime.saturating(artifact)
    except MemoryError:
        raise UnsafeError("no memory") from None
    except PenjingError as error:
        if any(words in str(error) for words in NO_GRAPH):
            raise UnsafeError(str(error)) from error
        raise
    except Exception as error:  # of a file that its runtime takes, and that still isn't sound
        raise UnsafeError(f"{type(error).__name__}: {first_line(error)}") from error


def _limit(memory: int, seconds: float, on_device: bool) -> None:
    """Let this process have so much more memory, and so many more seconds of the processor."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # where the system has no limits
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        if not on_device:  # whose drivers lay claim to more than they use
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def main() -> None:
    """Answer requests until there are no more."""
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a runtime prints is no reply, and no terminal's
    os.dup2(nowhere, 2)

    def reply(answer: dict[str, Any]) -> None:
        print(json.dumps(answer), file=replies, flush=True)

    for line in sys.stdin:
        request = json.loads(line)
        try:
            runtime = find_runtime(request["runtime"])
            reply({"ready": True})
            try_out(request, runtime)
        except PenjingError as error:
            text = str(error)
            kind = "memory" if any(words in text for words in NO_MEMORY) else type(error).__name__
            reply({"error": ["memory" if text == "no memory" else kind, text]})
        else:
            reply({"ok": True})


if __name__ == "__main__":
    main()
