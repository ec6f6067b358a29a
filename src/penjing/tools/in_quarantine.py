"""In quarantine: the child process that loads and runs files that penjing didn't write.

If such a file crashes its process, only the child dies. The child reads requests from stdin, one
line of JSON each:

    {"runtime": name, "file": path, "name": name for messages, "whole": flag,
     "memory": bytes, "seconds": processor time}

It answers each with two lines: `{"ready": true}` once the runtime is imported, then `{"ok": true}`
or `{"error": [kind, text]}`. It ends when its input ends, so it doesn't outlive its parent.
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
from penjing.tools.inputs import random_inputs
from penjing.tools.on_data import require_runs

NO_MEMORY = (
    "bad_alloc", "bad allocation", "Failed to allocate", "allocate memory", "out of memory",
)  # fmt: skip
NO_GRAPH = ("INVALID_GRAPH", "is an invalid model", "Invalid model")
"""Words with which runtimes report that memory ran out, and that a graph is invalid."""


def try_out(request: dict[str, Any], runtime: Runtime) -> None:
    """Load the file and run it once on random inputs. For `whole`, also ask where it runs.

    Raises:
        UnsafeError: the file needs more memory than allowed, or is malformed.
        InputError: the runtime doesn't accept it.
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
    except Exception as error:  # its runtime accepts the file, but it is malformed all the same
        raise UnsafeError(f"{type(error).__name__}: {first_line(error)}") from error


def _limit(memory: int, seconds: float, on_device: bool) -> None:
    """Limit how much more memory and processor time this process may use."""
    with contextlib.suppress(ImportError, OSError, ValueError):  # the system has no limits
        import resource

        used = resource.getrusage(resource.RUSAGE_SELF)
        end = int(used.ru_utime + used.ru_stime + seconds) + 1
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (end, resource.RLIM_INFINITY))
        if not on_device:  # drivers of devices reserve more memory than they use
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            most = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))


def main() -> None:
    """Answer requests until the input ends."""
    replies = os.fdopen(os.dup(1), "w")
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)  # what a runtime prints must reach neither the parent nor the terminal
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
