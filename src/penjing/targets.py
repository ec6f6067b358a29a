"""Targets: devices as data, each figure with its source."""

from __future__ import annotations

import difflib
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from penjing.errors import InputError

BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Target:
    """A device.

    Attributes:
        isa: instruction set, with the extensions that matter to integer arithmetic.
        memory_bytes, flash_bytes: None where it isn't known or doesn't limit.
        runtimes: names of runtimes that run there.
        precisions: number formats that its arithmetic units take.
        channel_multiple: widths that are a multiple of this use the units fully.
        local: whether it is this machine, so that figures can be measured.
        source: where the figures come from.
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
    local: bool
    source: str


def this_machine() -> Target:
    """The machine that penjing runs on, found out from the operating system."""
    flags = _cpu_flags()
    wide = [
        one for one in ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp") if one in flags
    ]
    memory = None
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return Target(
        name="cpu",
        description=f"this machine: {_cpu_name()}",
        isa=" ".join([platform.machine(), *wide]),
        cores=os.cpu_count() or 1,
        memory_bytes=memory,
        flash_bytes=None,
        runtimes=("onnxruntime",),
        precisions=("float32", "int8", *(["bfloat16"] if flags & BFLOAT16_FLAGS else [])),
        channel_multiple=16 if "avx512f" in flags else 8,
        local=True,
        source="found out on this machine",
    )


def _proc_cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _cpu_flags() -> set[str]:
    info = _proc_cpuinfo()
    return set((info.get("flags") or info.get("Features") or "").split())


def _cpu_name() -> str:
    return _proc_cpuinfo().get("model name") or platform.processor() or platform.machine()


DESCRIBED = (
    Target(
        name="raspberry-pi-4",
        description="Raspberry Pi 4 Model B, 4 GB: Broadcom BCM2711, Cortex-A72 at 1.5 GHz",
        isa="aarch64 Armv8-A NEON, no dot product",
        cores=4,
        memory_bytes=4 * 2**30,
        flash_bytes=None,
        runtimes=("onnxruntime",),
        precisions=("float32", "int8"),
        channel_multiple=8,
        local=False,
        source="Raspberry Pi 4 Model B datasheet (cores, clock, memory); Arm Cortex-A72 TRM (ISA)",
    ),
    Target(
        name="raspberry-pi-5",
        description="Raspberry Pi 5, 8 GB: Broadcom BCM2712, Cortex-A76 at 2.4 GHz",
        isa="aarch64 Armv8.2-A NEON dot product (asimddp)",
        cores=4,
        memory_bytes=8 * 2**30,
        flash_bytes=None,
        runtimes=("onnxruntime",),
        precisions=("float32", "float16", "int8"),
        channel_multiple=8,
        local=False,
        source="Raspberry Pi 5 product brief (cores, clock, memory); Arm Cortex-A76 TRM (ISA)",
    ),
    Target(
        name="x86-server",
        description="a generic x86-64 server core with AVX-512 VNNI (Intel Cascade Lake or newer)",
        isa="x86_64 avx2 avx512f avx512_vnni",
        cores=8,
        memory_bytes=32 * 2**30,
        flash_bytes=None,
        runtimes=("onnxruntime",),
        precisions=("float32", "int8"),
        channel_multiple=16,
        local=False,
        source="Intel 64 and IA-32 Architectures Optimization Reference Manual (VNNI); "
        "cores and memory are an example, not a product",
    ),
)


def all_targets() -> dict[str, Target]:
    """Every target by name, this machine first."""
    return {one.name: one for one in (this_machine(), *DESCRIBED)}


def find_target(name: str) -> Target:
    """The target of that name.

    Raises:
        InputError: there is none; the nearest name is suggested.
    """
    targets = all_targets()
    if name in targets:
        return targets[name]
    near = difflib.get_close_matches(name, targets, 1, 0.4)
    guess = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(targets)}"
    raise InputError(f"no target {name!r}; {guess} (penjing targets lists them)")
