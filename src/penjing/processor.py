"""The processor: its name, and the instructions on which integer arithmetic depends."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch

INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "asimddp")
"""Instruction sets that matter for integer arithmetic, by Linux's names."""
VNNI = {"avx512_vnni", "avx_vnni"}
X86 = {"x86_64", "AMD64", "i686", "i386"}


@dataclass(frozen=True)
class Processor:
    """A processor.

    Attributes:
        name: its own name.
        architecture: such as `"x86_64"`.
        instructions: those of `INSTRUCTIONS` that it has.
    """

    name: str
    architecture: str
    instructions: tuple[str, ...]

    @property
    def adds_in_16_bits(self) -> bool:
        """Whether integer kernels add adjacent products in 16 bits, as on x86 without VNNI."""
        return self.architecture in X86 and not VNNI & set(self.instructions)

    def __str__(self) -> str:
        return f"{self.name} ({', '.join(self.instructions) or self.architecture})"


@cache
def this_processor() -> Processor:
    """The processor that this process runs on. It may be an emulated one."""
    flags = set(_told()) or processor_flags()
    instructions = tuple(instruction for instruction in INSTRUCTIONS if instruction in flags)
    return Processor(
        str(_capabilities().get("cpu_name") or _name()), platform.machine(), instructions
    )


def processor_flags() -> set[str]:
    """All processor flags that Linux lists. Under emulation, they are the real processor's."""
    info = _proc_cpuinfo()
    return set((info.get("flags") or info.get("Features") or "").split())


def _told() -> list[str]:
    """The instruction sets that the processor itself reports, through torch."""
    same = {"avx512_f": "avx512f"}
    return [same.get(name, name) for name, has in _capabilities().items() if has is True]


def _capabilities() -> dict[str, Any]:
    ask = getattr(torch.cpu, "get_capabilities", None)  # torch before 2.12 has none
    return dict(ask()) if ask is not None else {}


def _proc_cpuinfo() -> dict[str, str]:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in lines if ":" in line)
    return {key.strip(): value.strip() for key, value in pairs}


def _name() -> str:
    return _proc_cpuinfo().get("model name") or platform.processor() or platform.machine()
