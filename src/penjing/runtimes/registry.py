"""The runtimes by name. Each is imported only when it is used, for each has packages of its own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from penjing.errors import InputError
from penjing.runtimes.contract import Runtime


@dataclass(frozen=True)
class Entry:
    """A runtime that penjing can lower to.

    Attributes:
        place: module and class.
        ending: of its files' names.
        packages: what must be installed, as pip names it.
        extra: penjing's extra that installs them; empty where penjing itself does.
        about: one line.
    """

    place: str
    ending: str
    packages: tuple[str, ...]
    extra: str
    about: str

    @property
    def missing(self) -> list[str]:
        """Packages that aren't installed."""
        return [one for one in self.packages if _version(one) is None]

    @property
    def version(self) -> str | None:
        """Of the first package; None if one is missing."""
        return None if self.missing else _version(self.packages[0])

    @property
    def install(self) -> str:
        """The line that installs what is missing."""
        return f"pip install 'penjing[{self.extra}]'" if self.extra else "pip install penjing"


ENTRIES = {
    "onnxruntime": Entry(
        "penjing.runtimes.onnxruntime:OnnxRuntime",
        ".onnx",
        ("onnxruntime",),
        "",
        "Microsoft's ONNX Runtime, CPU",
    ),
    "openvino": Entry(
        "penjing.runtimes.openvino:OpenVino",
        ".xml",
        ("openvino",),
        "openvino",
        "Intel's OpenVINO, CPU plugin",
    ),
    "executorch": Entry(
        "penjing.runtimes.executorch:ExecuTorch",
        ".pte",
        ("executorch",),
        "executorch",
        "PyTorch's ExecuTorch, XNNPACK delegate",
    ),
    "litert": Entry(
        "penjing.runtimes.litert:LiteRt",
        ".tflite",
        ("ai-edge-litert", "litert-torch"),
        "litert",
        "Google's LiteRT (TensorFlow Lite), CPU and XNNPACK",
    ),
    "ethosu": Entry(
        "penjing.runtimes.ethosu:EthosU",
        "_vela.tflite",
        ("ethos-u-vela", "ai-edge-litert", "litert-torch"),
        "ethosu",
        "Arm's Ethos-U55, U65 and U85 NPUs, compiled by Vela; figures are its estimate",
    ),
}


def find_runtime(name: str) -> Runtime:
    """The runtime of that name, ready to use.

    Raises:
        InputError: there is none, or its packages aren't installed.
    """
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, 1, 0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ENTRIES)}"
        raise InputError(f"no runtime {name!r}; {guess} (penjing runtimes lists them)")
    entry = ENTRIES[name]
    if entry.missing:
        raise InputError(
            f"runtime {name} needs {', '.join(entry.missing)}, which isn't installed; "
            f"{entry.install}"
        )
    module, _, kind = entry.place.partition(":")
    made: Runtime = getattr(import_module(module), kind)()
    return made


def runtime_of(path: Path) -> Runtime:
    """The runtime that loads files with this ending.

    Raises:
        InputError: there is none, or its packages aren't installed.
    """
    fitting = [name for name, entry in ENTRIES.items() if path.name.endswith(entry.ending)]
    if fitting:  # the longest, for one runtime's ending may end in another's
        return find_runtime(max(fitting, key=lambda name: len(ENTRIES[name].ending)))
    known = ", ".join(entry.ending for entry in ENTRIES.values())
    raise InputError(f"no runtime loads {path}; the ending must be one of {known}")


def installed() -> list[str]:
    """The names of all runtimes whose packages are here."""
    return [name for name, entry in ENTRIES.items() if not entry.missing]


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
