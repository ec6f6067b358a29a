"""The runtimes by name. Each is imported only when it is used, for each has packages of its own."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from importlib import import_module, metadata
from pathlib import Path

from penjing.errors import InputError, MachineError
from penjing.runtimes.contract import Runtime
from penjing.targets import Target

STANDS_FOR = {"onnxruntime": ("onnxruntime-gpu", "onnxruntime-openvino")}
"""By package, other builds of it, which are installed in its place."""


@dataclass(frozen=True)
class Entry:
    """A runtime that penjing can lower to.

    Attributes:
        place: module and class.
        ending: of its files' names.
        packages: what must be installed, as pip names it.
        command: a line for the shell that installs them; empty where nothing that pip has does.
        about: one line.
        also: what it needs beside them, such as a driver.
        asks: whether it takes more than the packages, such as a device, so that its class must say.
    """

    place: str
    ending: str
    packages: tuple[str, ...]
    command: str
    about: str
    also: str = ""
    asks: bool = False

    @property
    def install(self) -> str:
        """What to do to have it, in words."""
        if not self.command:
            return f"needs {self.also}"
        return f"{self.command}, and {self.also}" if self.also else self.command

    @property
    def missing(self) -> list[str]:
        """Packages that aren't installed."""
        return [package for package in self.packages if _version(package) is None]

    @property
    def version(self) -> str | None:
        """Of the first package; None if one is missing."""
        return None if self.missing else _version(self.packages[0])

    @property
    def absent(self) -> str | None:
        """Why it can't run here, in words; None if it can."""
        if self.missing:
            return f"needs {', '.join(self.missing)}, which isn't installed"
        return self.kind().absent() if self.asks else None

    def kind(self) -> type[Runtime]:
        """The runtime's class, for which its packages are imported."""
        module, _, name = self.place.partition(":")
        runtime: type[Runtime] = getattr(import_module(module), name)
        return runtime


def _extra(name: str) -> str:
    return f"pip install 'penjing[{name}]'"


def _provider(kind: str, package: str, command: str, about: str, also: str = "") -> Entry:
    place = f"penjing.runtimes.onnx.providers:{kind}"
    return Entry(place, ".onnx", (package,), command, f"ONNX Runtime on {about}", also, asks=True)


GPU_BUILD = (
    "pip install --force-reinstall --no-deps onnxruntime-gpu && "
    "pip install 'onnxruntime-gpu[cuda,cudnn]'"
)
OTHER_BUILD = "a build of ONNX Runtime that has it"
ENTRIES = {
    "onnxruntime": Entry(
        "penjing.runtimes.onnx.runtime:OnnxRuntime",
        ".onnx",
        ("onnxruntime",),
        "pip install penjing",
        "Microsoft's ONNX Runtime, CPU",
    ),
    "openvino": Entry(
        "penjing.runtimes.openvino.runtime:OpenVino",
        ".xml",
        ("openvino",),
        _extra("openvino"),
        "Intel's OpenVINO, CPU plugin",
    ),
    "openvino-gpu": Entry(
        "penjing.runtimes.openvino.runtime:OnGpu",
        ".xml",
        ("openvino",),
        _extra("openvino"),
        "OpenVINO on Intel's GPUs",
        "Intel's GPU driver",
        asks=True,
    ),
    "openvino-npu": Entry(
        "penjing.runtimes.openvino.runtime:OnNpu",
        ".xml",
        ("openvino",),
        _extra("openvino"),
        "OpenVINO on Intel's NPUs",
        "Intel's NPU driver",
        asks=True,
    ),
    "executorch": Entry(
        "penjing.runtimes.executorch.runtime:ExecuTorch",
        ".pte",
        ("executorch",),
        _extra("executorch"),
        "PyTorch's ExecuTorch, XNNPACK delegate",
    ),
    "litert": Entry(
        "penjing.runtimes.tflite.runtime:LiteRt",
        ".tflite",
        ("ai-edge-litert", "litert-torch"),
        _extra("litert"),
        "Google's LiteRT (TensorFlow Lite), CPU and XNNPACK",
    ),
    "ethosu": Entry(
        "penjing.runtimes.ethosu.by_tflite:EthosU",
        "_vela.tflite",
        ("ethos-u-vela", "ai-edge-litert", "litert-torch"),
        _extra("ethosu"),
        "Arm's Ethos-U55, U65 and U85 NPUs, compiled by Vela; figures are its estimate",
    ),
    "executorch-ethosu": Entry(
        "penjing.runtimes.ethosu.by_executorch:ExecuTorchEthosU",
        "_vela.pte",
        ("executorch", "tosa-tools", "ethos-u-vela"),
        _extra("executorch-ethosu"),
        "ExecuTorch on Arm's Ethos-U NPUs, compiled by Vela; figures are its estimate",
    ),
    "onnxruntime-qnn": _provider(
        "OnQnn",
        "onnxruntime-qnn",
        _extra("qnn"),
        "Qualcomm's Hexagon NPUs (QNN); simulated on x86-64",
    ),
    "onnxruntime-cuda": _provider("OnCuda", "onnxruntime-gpu", GPU_BUILD, "NVIDIA's GPUs (CUDA)"),
    "onnxruntime-tensorrt": _provider(
        "OnTensorRt", "onnxruntime-gpu", f"{GPU_BUILD} 'tensorrt-cu13<11'", "NVIDIA's TensorRT"
    ),
    "onnxruntime-openvino": _provider(
        "OnOpenVino",
        "onnxruntime-openvino",
        "pip install --force-reinstall --no-deps onnxruntime-openvino",
        "Intel's OpenVINO",
    ),
    "onnxruntime-coreml": _provider("OnCoreMl", "onnxruntime", "", "Apple's Core ML", OTHER_BUILD),
    "onnxruntime-nnapi": _provider("OnNnapi", "onnxruntime", "", "Android's NNAPI", OTHER_BUILD),
    "onnxruntime-xnnpack": _provider("OnXnnpack", "onnxruntime", "", "XNNPACK", OTHER_BUILD),
}


def find_runtime(name: str) -> Runtime:
    """The runtime of that name, ready to use.

    Raises:
        InputError: there is none, or its packages aren't installed.
        MachineError: this machine hasn't what it runs on.

    >>> import penjing
    >>> penjing.runtimes.find("onnxruntime").name
    'onnxruntime'
    >>> penjing.runtimes.find("onnxrutnime")
    Traceback (most recent call last):
    penjing.errors.InputError: no runtime 'onnxrutnime'; did you mean 'onnxruntime'? ...
    """
    if name not in ENTRIES:
        near = difflib.get_close_matches(name, ENTRIES, 1, 0.4)
        guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(ENTRIES)}"
        raise InputError(f"no runtime {name!r}; {guess} (penjing runtimes lists them)")
    entry = ENTRIES[name]
    if absent := entry.absent:
        error = InputError if entry.missing else MachineError
        raise error(f"runtime {name}: {absent}; {entry.install}")
    return entry.kind()()


def first_runtime(target: Target, floats: bool = False) -> Runtime:
    """The first of the target's runtimes that can run here.

    Args:
        target: the target.
        floats: whether its files must be able to hold float32, and be run by itself here; those of
            NPUs can't.

    Raises:
        MachineError: none can; the message says why, and how to have the first.
    """
    why, what = "", "holds floats and runs" if floats else "runs"
    for name in target.runtimes:
        entry = ENTRIES[name]
        if not entry.absent:
            kind = entry.kind()
            if not floats or ("float32" in kind.floats and not kind.stand_in):
                return kind()
        elif not why:
            why = f"; {name}: {entry.absent}; {entry.install}"
    raise MachineError(f"nothing that {what} on target {target.name} is here{why}")


def runtime_of(path: Path, name: str | None = None) -> Runtime:
    """The runtime of that name, or the one that loads files with this ending.

    Raises:
        InputError: there is none, its packages aren't installed, or its files end otherwise.
        MachineError: this machine hasn't what it runs on.
    """
    if name is not None:
        runtime = find_runtime(name)
        if not path.name.endswith(runtime.ending):
            raise InputError(f"{name} loads files that end in {runtime.ending}; found {path}")
        return runtime
    fitting = [name for name, entry in ENTRIES.items() if path.name.endswith(entry.ending)]
    if fitting:  # the longest, for one runtime's ending may end in another's; then the first
        return find_runtime(max(fitting, key=lambda name: len(ENTRIES[name].ending)))
    known = ", ".join(entry.ending for entry in ENTRIES.values())
    raise InputError(f"no runtime loads {path}; the ending must be one of {known}")


def installed() -> list[str]:
    """The names of all runtimes that can run here.

    >>> import penjing
    >>> "onnxruntime" in penjing.runtimes.installed()
    True
    """
    return [name for name, entry in ENTRIES.items() if not entry.absent]


def _version(package: str) -> str | None:
    for name in (package, *STANDS_FOR.get(package, ())):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None
