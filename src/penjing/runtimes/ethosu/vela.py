"""Vela, Arm's compiler for its Ethos-U NPUs: how penjing calls it, and the costs that it estimates.

There is no NPU on this machine, and Vela doesn't simulate one. Cycles, memory and time are Vela's
estimates. Accuracy is measured on a file with the same integers that can run here.
"""

from __future__ import annotations

import csv
import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from configparser import ConfigParser
from dataclasses import dataclass, replace
from functools import cache
from importlib import metadata
from importlib.resources import files
from pathlib import Path
from typing import Any, ClassVar, Self

from penjing.contract import Artifact, Estimate, Placement
from penjing.errors import InputError
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.graph.int16 import no_int16
from penjing.network.graph.qparams import value_qparams
from penjing.runtimes.contract import Runtime
from penjing.runtimes.interface import not_by_sample, not_in_eight_bits
from penjing.strict_json import parse
from penjing.targets import Target

SYSTEMS = {
    "ethos-u55": "Ethos_U55_High_End_Embedded",
    "ethos-u65": "Ethos_U65_Embedded",
    "ethos-u85": "Ethos_U85_SYS_Flash_High",
}
"""By family, the system in Vela's `Arm/vela.ini` that has SRAM and flash, but no DRAM."""
UNITS = {
    "ethos-u55": (32, 64, 128, 256),
    "ethos-u65": (256, 512),
    "ethos-u85": (128, 256, 512, 1024, 2048),
}
"""By family, the numbers of MACs per cycle that it is available with."""
CONFIG = "Arm/vela.ini"
NOT_ROUNDED = (
    "Ethos-U computes on int8 values, but the network isn't quantized; apply "
    "Quantize(outputs=True) first"
)
Row = dict[str, str]
"""A row of Vela's summary: figures by column."""


@dataclass(frozen=True)
class Compiled:
    """The file that Vela wrote, the row of its summary, and what it printed."""

    content: bytes
    summary: Row
    printed: str


@dataclass(frozen=True)
class ByVela(Runtime):
    """A runtime for Arm's Ethos-U55, U65 and U85, whose files Vela compiles.

    An artifact is three files: the file for the device, a file with the same integers that `open`
    runs on this machine, and Vela's figures as JSON.

    Attributes:
        accelerator: the family and its MACs per cycle, as Vela names them: `"ethos-u55-128"`.
        system: a system in Vela's `Arm/vela.ini`, with whose clock and memories Vela estimates.
            Empty for the family's embedded system.
        memory: a memory mode in that file, which says where weights and values are kept.

    Raises:
        InputError: there is no such accelerator.
    """

    constraints: ClassVar[Mapping[str, Any]] = {
        "outputs": True, "elementwise": True, "overflow_fix": False,
    }  # fmt: skip
    stand_in: ClassVar[bool] = True
    unrolls: ClassVar[bool] = True
    floats: ClassVar[tuple[str, ...]] = ()

    accelerator: str = "ethos-u55-128"
    system: str = ""
    memory: str = "Shared_Sram"

    def __post_init__(self) -> None:
        known = [f"{family}-{units}" for family, sizes in UNITS.items() for units in sizes]
        if self.accelerator not in known:
            raise InputError(
                f"no accelerator {self.accelerator!r}; choose one of {', '.join(known)}"
            )

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: outputs without a batch dimension, values not in int8."""
        problems = super().problems(network, target, floats)
        problems += not_by_sample(network) + not_in_eight_bits(network, self.name)
        return [*problems, *([] if value_qparams(network) else [NOT_ROUNDED])]

    def on(self, target: Target) -> Self:
        """See `Runtime.on`. Sets the target's accelerator.

        Raises:
            InputError: the target has no Ethos-U.
        """
        if not (target.npu or "").startswith("ethos-u"):
            raise InputError(
                f"target {target.name} has no Ethos-U NPU; choose one that has (penjing targets "
                "lists them)"
            )
        return replace(self, accelerator=target.npu or "")

    def files(self, path: Path) -> tuple[Path, ...]:
        """The file for the device, the file that runs on this machine, and Vela's figures."""
        reference = path.with_name(f"{path.stem}_reference{path.suffix}")
        return (path, reference, path.with_name(f"{path.name}.json"))

    def artifact(self, path: Path) -> Artifact:
        """See `Runtime.artifact`. Only the first file goes to the device, so only that counts."""
        return replace(super().artifact(path), file_bytes=path.stat().st_size)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. Vela decides it when it compiles the file."""
        return [Placement(**operator) for operator in self._told(artifact)["operators"]]

    def estimate(self, artifact: Artifact) -> Estimate:
        """Vela's estimate of what an inference costs. Nothing of it is measured."""
        told = self._told(artifact)
        return estimate_of(told["summaries"], told["vela"])

    @property
    def clock_hz(self) -> float:
        """See `Runtime.clock_hz`: of the system, as Vela's configuration has it."""
        return _configuration().getfloat(f"System_Config.{self._system}", "core_clock")

    def _require_integers(self, network: Network, floats: str) -> None:
        if floats != "float32" or not value_qparams(network):
            raise InputError(NOT_ROUNDED)
        wide = [] if self.int16 else no_int16(network, self.name)
        if stands_against := not_in_eight_bits(network, self.name) + wide:
            raise InputError(stands_against[0])

    def _write(
        self,
        path: Path,
        compiled: bytes,
        reference: bytes,
        summaries: Sequence[Row],
        operators: Sequence[Mapping[str, str]],
    ) -> Artifact:
        """Write all files of an artifact, the file for the device last.

        Args:
            operators: fields of `Placement`.
        """
        told = {"vela": metadata.version("ethos-u-vela"), "summaries": list(summaries)}
        told["operators"] = list(operators)
        first, second, report = self.files(path)
        write_atomically(second, reference)
        write_atomically(report, json.dumps(told, indent=1))
        write_atomically(first, compiled)
        return self.artifact(path)

    def _told(self, artifact: Artifact) -> Any:
        report = self.files(artifact.path)[2]
        return parse(report.read_bytes(), str(report))

    def _packed_bytes(self, artifact: Artifact) -> int:
        """Bytes of the NPU's weights, as Vela packed them."""
        rows = self._told(artifact)["summaries"]
        return sum(int(float(row["total_npu_encoded_weights"])) for row in rows)

    @property
    def _system(self) -> str:
        return self.system or SYSTEMS[self.accelerator.rpartition("-")[0]]

    def run_vela(self, content: bytes, ending: str) -> Compiled:
        """Compile the bytes of a file whose name has this ending.

        Raises:
            InputError: Vela can't compile it. The message is Vela's.
        """
        with tempfile.TemporaryDirectory() as folder:
            source = Path(folder) / f"model{ending}"
            source.write_bytes(content)
            command = [
                sys.executable, "-m", "ethosu.vela", str(source), "--output-dir", folder,
                "--accelerator-config", self.accelerator, "--config", CONFIG,
                "--system-config", self._system, "--memory-mode", self.memory,
            ]  # fmt: skip
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder)
            made = next(Path(folder).glob("model_vela.*"), None)
            if done.returncode or made is None:
                lines = (done.stdout + done.stderr).strip().splitlines() or ["it gives no reason"]
                words = [line for line in lines if "error" in line.lower()] or lines
                raise InputError(f"Vela can't compile this network: {words[-1][:300]}")
            with next(Path(folder).glob("model_summary_*.csv")).open(newline="") as file:
                row = next(csv.DictReader(file))
            return Compiled(made.read_bytes(), row, done.stdout + done.stderr)


@cache
def _configuration() -> ConfigParser:
    """Vela's own file of systems and memories."""
    read = ConfigParser()
    read.read_string(files("ethosu.config_files").joinpath(CONFIG).read_text("utf-8"))
    return read


def estimate_of(rows: Sequence[Row], version: str) -> Estimate:
    """The estimate for a file whose parts run one after the other.

    Figures of the parts are summed. Of memory that they share, the largest counts.

    Args:
        rows: the rows of Vela's summary, one for each part, at least one.
        version: the version of Vela.
    """

    def figure(*columns: str, shared: bool = False) -> float | None:
        """The total of those columns that Vela gives; None if it gives none of them."""
        figures = [sum(float(row[column]) for column in columns if row.get(column)) for row in rows]
        there = any(row.get(column) for row in rows for column in columns)
        return (max(figures) if shared else sum(figures)) if there else None

    def count(*columns: str, times: int = 1, shared: bool = False) -> int | None:
        value = figure(*columns, shared=shared)
        return None if value is None else round(value * times)

    seconds = figure("inference_time")
    return Estimate(
        source=f"estimated by Vela {version}",
        machine=", ".join(
            rows[0][column]
            for column in ("accelerator_configuration", "system_config", "memory_mode")
        ),
        latency_ms=None if seconds is None else seconds * 1e3,
        cycles=count("cycles_total"),
        cycles_npu=count("cycles_npu"),
        cycles_sram=count("cycles_sram_access"),
        cycles_dram=count("cycles_dram_access"),
        cycles_flash=count("cycles_on_chip_flash_access", "cycles_off_chip_flash_access"),
        sram_bytes=count("sram_memory_used", times=1024, shared=True),
        dram_bytes=count("dram_memory_used", times=1024, shared=True),
        flash_bytes=count("on_chip_flash_memory_used", "off_chip_flash_memory_used", times=1024),
        macs=count("nn_macs"),
    )
