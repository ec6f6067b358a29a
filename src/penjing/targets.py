"""Targets: devices as data (`devices.toml`), each figure with its source, and what fits on each."""

from __future__ import annotations

import difflib
import os
import shutil
import subprocess
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any

from penjing.errors import InputError
from penjing.processor import processor_flags, this_processor

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}
REMOTE = "ssh://"
GPU = "gpu"
REACH = {
    "here": "measured here",
    "ssh": "measured over SSH, by fit and bench with `target='ssh://user@host'`",
    "adb": "on a cable, where penjing can't measure yet",
    "board": "flashed with its vendor's tools; penjing gives the compiler's estimates",
}
"""What `Target.reach` may be, and what it means."""


@dataclass(frozen=True)
class Target:
    """A device to compress for.

    >>> board = find_target("nucleo-h743zi")
    >>> board.flash_bytes, board.runtimes
    (2097152, ('litert',))
    >>> board.sources["flash_bytes"]
    'STM32H742xI/G STM32H743xI/G Datasheet (DS12110)'

    Attributes:
        name: the name that `find_target` knows, or the address of a device.
        description: what the device is, for people.
        isa: the instruction set, with the extensions that matter for integer arithmetic.
        cores: the number of processor cores.
        memory_bytes, flash_bytes: None if unknown, or if it isn't a limit. If there is flash, the
            weights stay in it while the file runs, and the memory holds only values.
        runtimes: the names of runtimes that run on the device.
        precisions: the number formats that its arithmetic units support.
        channel_multiple: widths that are a multiple of this make full use of the units.
        npu: the configuration of its NPU: Vela's name of the accelerator, such as
            `"ethos-u55-128"`, or the generation as its own compiler calls it. None without an NPU.
        reach: how penjing can measure on the device, a key of `REACH`.
        sources: the title of the document that each figure is from, by field.
    """

    name: str
    description: str
    isa: str
    cores: int
    memory_bytes: int | None
    flash_bytes: int | None
    runtimes: tuple[str, ...]
    precisions: tuple[str, ...]
    channel_multiple: int
    npu: str | None = None
    reach: str = "here"
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def local(self) -> bool:
        """Whether the target is this machine, so that penjing can measure directly."""
        return self.reach == "here"

    @property
    def width_multiple(self) -> int:
        """What widths and ranks should be multiples of: half of `channel_multiple`.

        Kernels lose little there, and with the whole of it, the narrow layers of small networks
        couldn't shrink at all. By Vela's estimates for four Ethos-U, ResNet-20 with 8 channels for
        16 in the first stage takes 0.88 to 0.92 of the cycles. Between two groups little is saved:
        24 channels for 32 in the second stage take 0.99 to 1.02.
        """
        return max(1, self.channel_multiple // 2)

    def shortages(self, stored_bytes: int, value_bytes: int, basis: str) -> list[str]:
        """What doesn't fit on this device, one line each with both numbers. Empty if all fits.

        Args:
            stored_bytes: the size of the weights, or of the file that holds them.
            value_bytes: the size of the values that are alive at once.
            basis: where the two numbers are from, such as `"an estimate before lowering"`.
        """
        memory = value_bytes + (0 if self.flash_bytes else stored_bytes)
        what = "values" if self.flash_bytes else "weights and values"
        needs = (
            ("flash", f"flash ({basis})", stored_bytes, self.flash_bytes),
            ("memory", f"memory for {what} ({basis})", memory, self.memory_bytes),
        )
        return [
            f"the network needs {in_words(wanted)} of {text}, but target {self.name} has "
            f"{in_words(limit)}; make the network smaller or choose a target with more {kind}"
            for kind, text, wanted, limit in needs
            if limit is not None and wanted > limit
        ]


def in_words(size: int) -> str:
    """A number of bytes for people, in decimal units.

    >>> in_words(412_300), in_words(4 * 2**30)
    ('412 kB', '4.3 GB')
    """
    for unit, name in ((10**9, "GB"), (10**7, "MB")):
        if size >= unit:
            return f"{size / (10**9 if name == 'GB' else 10**6):.1f} {name}"
    return f"{size / 1000:.0f} kB" if size >= 10_000 else f"{size} B"


def this_machine() -> Target:
    """The machine that penjing runs on, as the operating system describes it."""
    processor, flags = this_processor(), processor_flags()
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    figures = ("isa", "cores", "memory_bytes", "precisions", "channel_multiple")
    return Target(
        name="cpu",
        description=f"this machine: {processor.name}",
        isa=" ".join([processor.architecture, *processor.instructions]),
        cores=os.cpu_count() or 1,
        memory_bytes=memory,
        flash_bytes=None,
        runtimes=("onnxruntime", "openvino", "executorch", "litert"),
        precisions=("float32", "int8", *(["bfloat16"] if flags & BFLOAT16_FLAGS else [])),
        channel_multiple=16 if "avx512f" in processor.instructions else 8,
        sources=dict.fromkeys(figures, "read from this machine's operating system")
        | {"runtimes": "penjing runtimes lists which of them are installed"},
    )


@cache
def this_gpu() -> Target | None:
    """The first NVIDIA GPU of this machine, as its driver describes it; None without one."""
    driver = shutil.which("nvidia-smi")
    if driver is None:
        return None
    ask = [driver, "--query-gpu=name,memory.total,compute_cap", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(ask, capture_output=True, text=True, timeout=20, check=True).stdout
        name, mebibytes, capability = told.splitlines()[0].split(", ")
        memory = int(mebibytes) * 2**20
    except (OSError, subprocess.SubprocessError, IndexError, ValueError):
        return None
    figures = ("isa", "cores", "memory_bytes", "precisions", "channel_multiple")
    return Target(
        name=GPU,
        description=f"this machine's GPU: {name}",
        isa=f"CUDA, compute capability {capability}",
        cores=os.cpu_count() or 1,
        memory_bytes=memory,
        flash_bytes=None,
        runtimes=("onnxruntime-cuda", "onnxruntime-tensorrt"),
        precisions=("float32", "float16", "bfloat16", "int8"),
        channel_multiple=16,
        sources=dict.fromkeys(figures, "read from this machine's NVIDIA driver")
        | {
            "runtimes": "penjing runtimes lists which of them are installed",
            "channel_multiple": "NVIDIA Deep Learning Performance Documentation (16 for int8)",
        },
    )


def described() -> dict[str, Target]:
    """The devices in `devices.toml` by name."""
    table = tomllib.loads(files("penjing").joinpath("devices.toml").read_text("utf-8"))
    return {name: _target(name, row) for name, row in table.items()}


def _target(name: str, row: Mapping[str, Any]) -> Target:
    listed = {key: tuple(row[key]) for key in ("runtimes", "precisions")}
    return Target(**{"name": name, "memory_bytes": None, "flash_bytes": None, **row, **listed})


def all_targets() -> dict[str, Target]:
    """All targets by name: this machine, its GPU if it has one, and the known devices."""
    here = [this_machine(), this_gpu()]
    return {target.name: target for target in here if target is not None} | described()


def find_target(name: str) -> Target:
    """Find a target by its name.

    >>> find_target("raspberry-pi-5").isa
    'aarch64 Armv8.2-A NEON dot product (asimddp)'
    >>> find_target("rasberry-pi-5")
    Traceback (most recent call last):
    penjing.errors.InputError: no target 'rasberry-pi-5'; did you mean 'raspberry-pi-5'? ...

    Raises:
        InputError: there is no such target. The message suggests the most similar name.
    """
    if name.startswith(REMOTE):
        raise InputError(
            f"target {name} is an address, which only `penjing fit` and `penjing bench` accept; "
            "give the name of a target, such as cpu (penjing targets lists them)"
        )
    targets = all_targets()
    if name in targets:
        return targets[name]
    if name == GPU:
        raise InputError("no NVIDIA driver reports a GPU on this machine; use `target='cpu'`")
    near = difflib.get_close_matches(name, targets, 1, 0.4)
    guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(targets)}"
    raise InputError(f"no target {name!r}; {guess} (penjing targets lists them)")


def require_local(target: Target) -> None:
    """Raise InputError unless the target is this machine, so that files can be timed on it."""
    if not target.local:
        here, there = "`target='cpu'`", "its address, `target='ssh://user@host'`"
        raise InputError(
            f"penjing has only a description of target {target.name!r}, so it can't measure there; "
            f"use {there if target.reach == 'ssh' else here}"
        )
