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
    """A device.

    Attributes:
        isa: instruction set, with the extensions that matter to integer arithmetic.
        memory_bytes, flash_bytes: None where it is unknown or no limit. On a device with flash, the
            weights stay there while the file runs, and the memory holds only the values.
        runtimes: names of runtimes that run there.
        precisions: number formats that its arithmetic units compute in.
        channel_multiple: layers use the units fully if their widths are multiples of this.
        npu: its configuration: Vela's name for the accelerator, such as `"ethos-u55-128"`, or its
            own compiler's name for the generation; None without an NPU.
        reach: how figures are measured there, a key of `REACH`.
        sources: by field, the title of the document that its figure is from.
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
        """Whether it is this machine, so that figures can be measured."""
        return self.reach == "here"

    def shortages(self, stored_bytes: int, value_bytes: int, basis: str) -> list[str]:
        """What doesn't fit on this device, one line each with both numbers; empty if all fits.

        Args:
            stored_bytes: the weights, or the file that holds them.
            value_bytes: the values that live at once.
            basis: how the two are known, such as `"an estimate before lowering"`.
        """
        memory = value_bytes + (0 if self.flash_bytes else stored_bytes)
        what = "values" if self.flash_bytes else "weights and values"
        needs = (
            ("flash", f"flash ({basis})", stored_bytes, self.flash_bytes),
            ("memory", f"memory for {what} ({basis})", memory, self.memory_bytes),
        )
        return [
            f"needs {in_words(wanted)} of {text}, the target {self.name} has {in_words(limit)}; "
            f"make the network smaller or choose a target with more {kind}"
            for kind, text, wanted, limit in needs
            if limit is not None and wanted > limit
        ]


def in_words(size: int) -> str:
    """Bytes as people read them, in thousands: `412 kB`, `4.3 GB`."""
    for unit, name in ((10**9, "GB"), (10**7, "MB")):
        if size >= unit:
            return f"{size / (10**9 if name == 'GB' else 10**6):.1f} {name}"
    return f"{size / 1000:.0f} kB" if size >= 10_000 else f"{size} B"


def this_machine() -> Target:
    """The machine that penjing runs on, as its operating system describes it."""
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
        sources=dict.fromkeys(figures, "this machine itself")
        | {"runtimes": "penjing runtimes lists which of them are installed"},
    )


@cache
def this_gpu() -> Target | None:
    """This machine's first NVIDIA GPU, as its driver describes it; None if there is none."""
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
        sources=dict.fromkeys(figures, "this machine itself")
        | {
            "runtimes": "penjing runtimes lists which of them are installed",
            "channel_multiple": "NVIDIA Deep Learning Performance Documentation (16 for int8)",
        },
    )


def described() -> dict[str, Target]:
    """The devices of `devices.toml` by name."""
    table = tomllib.loads(files("penjing").joinpath("devices.toml").read_text("utf-8"))
    return {name: _target(name, row) for name, row in table.items()}


def _target(name: str, row: Mapping[str, Any]) -> Target:
    listed = {key: tuple(row[key]) for key in ("runtimes", "precisions")}
    return Target(**{"name": name, "memory_bytes": None, "flash_bytes": None, **row, **listed})


def all_targets() -> dict[str, Target]:
    """Every target by name, this machine first, with its GPU if it has one."""
    here = [this_machine(), this_gpu()]
    return {target.name: target for target in here if target is not None} | described()


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        InputError: there is none; the nearest name is suggested.
    """
    if name.startswith(REMOTE):
        raise InputError(
            f"target {name} is an address, which `penjing fit` and `penjing bench` take; give a "
            "name here, such as cpu (penjing targets lists them)"
        )
    targets = all_targets()
    if name in targets:
        return targets[name]
    if name == GPU:
        raise InputError("no NVIDIA driver reports a GPU here; use `target='cpu'`")
    near = difflib.get_close_matches(name, targets, 1, 0.4)
    guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(targets)}"
    raise InputError(f"no target {name!r}; {guess} (penjing targets lists them)")


def require_local(target: Target) -> None:
    """Raise InputError unless the target is this machine, so that files can be timed on it."""
    if not target.local:
        here, there = "`target='cpu'`", "`target='ssh://user@host'`, its address"
        raise InputError(
            f"target {target.name!r} is described but not reachable from here, so nothing can be "
            f"measured on it; use {there if target.reach == 'ssh' else here}"
        )
