"""Runtimes: each writes a kind of file that its engine runs, and runs it.

`find("litert")` gives the runtime of that name, `installed()` the names of those that can run here,
and `ENTRIES` what is known of each. Their classes are here too, as `penjing.runtimes.LiteRt`; a
class is imported when it is first asked for, because each needs packages of its own.
"""

from typing import Any

from penjing.runtimes.contract import Runtime as Runtime
from penjing.runtimes.registry import ENTRIES as ENTRIES
from penjing.runtimes.registry import find_runtime as find
from penjing.runtimes.registry import installed as installed

__all__ = ["ENTRIES", "Runtime", "find", "installed"]
CLASSES = {entry.place.partition(":")[2]: entry for entry in ENTRIES.values()}
"""By name, what is known of each runtime."""


def __getattr__(name: str) -> Any:
    if name in CLASSES:
        return CLASSES[name].kind()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, *CLASSES])
