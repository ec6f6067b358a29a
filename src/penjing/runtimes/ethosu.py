"""Ethos-U: the LiteRT file compiled by Vela for Arm's microNPUs, and what Vela says it costs.

There is no NPU here, and Vela simulates none: cycles, memory and time are its own estimate, and
decisions are those of the LiteRT file that was compiled, whose integers the NPU computes with.
"""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar

from penjing.contract import Artifact, Estimate, Placement
from penjing.errors import InputError
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.fake_quantized import grids
from penjing.runtimes import tflite_export, tflite_file
from penjing.runtimes.contract import Runtime
from penjing.runtimes.tflite_session import LiteRtSession
from penjing.targets import Target

SYSTEMS = {
    "ethos-u55": "Ethos_U55_High_End_Embedded",
    "ethos-u65": "Ethos_U65_Embedded",
    "ethos-u85": "Ethos_U85_SYS_Flash_High",
}
"""By family, the system of Vela's own `Arm/vela.ini` that has SRAM and flash, and no DRAM."""
UNITS = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}
"""By family, the MACs a cycle that it is built with."""
NPU_OPERATOR = "ethos-u"
REASON = re.compile(
    r"operator: (?P<kind>[^,\n]+), ofm: '(?P<name>[^'\n]*)'\s*\nReason: (?P<why>.+)"
)
"""How Vela says why it leaves an operator to the CPU."""


@dataclass(frozen=True)
class EthosU(Runtime):
    """Arm's Ethos-U55, U65 and U85, through the compiler Vela.

    An artifact is three files: what the device runs, the `.tflite` file that it was compiled from
    (which `open` runs here), and what Vela told, as JSON.

    Attributes:
        accelerator: family and MACs a cycle, as Vela calls it, such as `"ethos-u55-128"`.
        system: a system of Vela's `Arm/vela.ini`, whose clock and memories it reckons with; empty
            for the family's embedded one.
        memory: a memory mode of that file: where weights and values lie.

    Raises:
        InputError: there is no such accelerator.
    """

    name: ClassVar[str] = "ethosu"
    ending: ClassVar[str] = "_vela.tflite"
    demands: ClassVar[Mapping[str, Any]] = {"outputs": True}
    floats: ClassVar[tuple[str, ...]] = ()

    accelerator: str = "ethos-u55-128"
    system: str = ""
    memory: str = "Shared_Sram"

    def __post_init__(self) -> None:
        known = [f"{family}-{units}" for family, sizes in UNITS.items() for units in sizes]
        if self.accelerator not in known:
            raise InputError(f"no accelerator {self.accelerator!r}; there are {', '.join(known)}")

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """As LiteRT's; and a network of real numbers, of which the NPU could compute nothing."""
        found = super().problems(network, target, floats) + tflite_export.problems(network)
        return [*found, *([] if any(True for _ in grids(network)) else [_NOT_ROUNDED])]

    def on(self, target: Target) -> EthosU:
        """See `Runtime.on`: for the target's accelerator.

        Raises:
            InputError: it has none of this family.
        """
        if not (target.npu or "").startswith("ethos-u"):
            raise InputError(
                f"target {target.name} has no Ethos-U; take one that has (penjing targets)"
            )
        return replace(self, accelerator=target.npu or "")

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export as LiteRT does, and compile that.

        Raises:
            InputError: the network isn't quantized, or the converter or Vela can't take it.
        """
        if floats != "float32" or not any(True for _ in grids(network)):
            raise InputError(_NOT_ROUNDED)
        return self.compile(tflite_export.to_tflite(network), path)

    def compile(self, content: bytes, path: Path) -> Artifact:
        """Compile the bytes of a `.tflite` file; `path` ends in `_vela.tflite`.

        Raises:
            InputError: Vela can't take it; the message is its own.
        """
        model = tflite_file.read(content)
        compiled, summary, printed = self._vela(content)
        fallen = {one["name"]: one["why"].strip() for one in REASON.finditer(printed)}
        told = {
            "vela": metadata.version("ethos-u-vela"),
            "summary": summary,
            "operators": _places(model, tflite_file.read(compiled), fallen),
        }
        first, reference, report = self.files(path)
        write_atomically(reference, content)
        write_atomically(report, json.dumps(told, indent=1))
        write_atomically(first, compiled)
        return self.artifact(path)

    def files(self, path: Path) -> tuple[Path, ...]:
        """What the device runs, the file that it was compiled from, and what Vela told."""
        return (path, path.with_name(f"{path.stem}_reference.tflite"), path.with_suffix(".json"))

    def artifact(self, path: Path) -> Artifact:
        """See `Runtime.artifact`; only the first file goes to the device, so its bytes count."""
        return replace(super().artifact(path), file_bytes=path.stat().st_size)

    def open(self, contents: list[bytes], threads: int = 1) -> LiteRtSession:
        """See `Runtime.open`: the file that was compiled, in LiteRT on this machine's CPU."""
        return LiteRtSession(contents[1], threads)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`: the operators before compiling, and where Vela put them."""
        return [Placement(**one) for one in self._told(artifact)["operators"]]

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`: as Vela packed them, and those that the CPU needs."""
        packed = int(float(self._told(artifact)["summary"]["total_npu_encoded_weights"]))
        return packed + tflite_file.weight_bytes(tflite_file.read(artifact.path.read_bytes()))

    def estimate(self, artifact: Artifact) -> Estimate:
        """What an inference costs, as Vela reckons; nothing of it is measured."""
        told = self._told(artifact)
        return _estimate(told["summary"], told["vela"])

    def _told(self, artifact: Artifact) -> Any:
        return json.loads(self.files(artifact.path)[2].read_text())

    def _vela(self, content: bytes) -> tuple[bytes, dict[str, str], str]:
        """The compiled file, the summary's one row, and what was printed."""
        system = self.system or SYSTEMS[self.accelerator.rpartition("-")[0]]
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / "model.tflite"
            source.write_bytes(content)
            command = [
                sys.executable, "-m", "ethosu.vela", str(source), "--output-dir", folder,
                "--accelerator-config", self.accelerator, "--config", "Arm/vela.ini",
                "--system-config", system, "--memory-mode", self.memory,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            made = Path(folder) / "model_vela.tflite"
            if done.returncode or not made.is_file():
                lines = (done.stdout + done.stderr).strip().splitlines() or ["it says nothing"]
                words = [one for one in lines if "error" in one.lower()] or lines
                raise InputError(f"Vela can't compile this network: {words[-1][:300]}")
            with next(Path(folder).glob("model_summary_*.csv")).open(newline="") as file:
                row = next(csv.DictReader(file))
            return made.read_bytes(), row, done.stdout + done.stderr


_NOT_ROUNDED = (
    "Ethos-U computes on int8, and nothing in the network is rounded: Quantize(outputs=True) first"
)


def _places(model: Any, compiled: Any, fallen: dict[str, str]) -> list[dict[str, str]]:
    """Where each operator of `model` went: what `compiled` still has of its own is the CPU's.

    Args:
        fallen: why, by the name of an operator.
    """
    kept = {
        one.name: one.kind for one in tflite_file.operators(compiled) if one.kind != NPU_OPERATOR
    }
    found = []
    for one in tflite_file.operators(model):
        place = {"name": one.name, "operator": one.kind, "unit": "npu", "why": ""}
        if kept.pop(one.name, None):
            why = fallen.get(one.name, "Vela doesn't say why")
            place |= {"unit": "cpu", "why": why}
        found.append(place)
    added = "Vela added it"
    return found + [
        {"name": name, "operator": kind, "unit": "cpu", "why": added} for name, kind in kept.items()
    ]


def _estimate(summary: dict[str, str], version: str) -> Estimate:
    def figure(*columns: str) -> float | None:
        """The sum of what is there."""
        values = [float(summary[one]) for one in columns if summary.get(one)]
        return sum(values) if values else None

    def count(*columns: str, times: int = 1) -> int | None:
        value = figure(*columns)
        return None if value is None else round(value * times)

    seconds = figure("inference_time")
    return Estimate(
        source=f"estimated by Vela {version}",
        machine=", ".join(
            summary[one] for one in ("accelerator_configuration", "system_config", "memory_mode")
        ),
        latency_ms=None if seconds is None else seconds * 1e3,
        cycles=count("cycles_total"),
        cycles_npu=count("cycles_npu"),
        cycles_sram=count("cycles_sram_access"),
        cycles_dram=count("cycles_dram_access"),
        cycles_flash=count("cycles_on_chip_flash_access", "cycles_off_chip_flash_access"),
        sram_bytes=count("sram_memory_used", times=1024),
        dram_bytes=count("dram_memory_used", times=1024),
        flash_bytes=count("on_chip_flash_memory_used", "off_chip_flash_memory_used", times=1024),
        macs=count("nn_macs"),
    )
