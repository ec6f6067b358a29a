"""Ethos-U: a LiteRT file, compiled by Vela for Arm's microNPUs."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from penjing.contract import Artifact
from penjing.network import Network
from penjing.runtimes.ethosu.vela import ByVela
from penjing.runtimes.signature import Signature
from penjing.runtimes.tflite import export as tflite_export
from penjing.runtimes.tflite import file as tflite_file
from penjing.runtimes.tflite.session import LiteRtSession

NPU_OPERATOR = "ethos-u"
REASON = re.compile(
    r"operator: (?P<kind>[^,\n]+), ofm: '(?P<name>[^'\n]*)'\s*\nReason: (?P<why>.+)"
)
"""The form of Vela's message that says why an operator runs on the CPU."""


LOADING = """\
// The array of the file's bytes: xxd -i -n model {path} > model.cc
// Link LiteRT for Microcontrollers and Arm's driver for Ethos-U.
// arena: an array of uint8_t, at least as large as the SRAM of the estimate.
tflite::MicroMutableOpResolver<1> resolver;
resolver.AddEthosU();  // and what was left to the CPU
tflite::MicroInterpreter interpreter(tflite::GetModel(model), resolver, arena, sizeof arena);
interpreter.AllocateTensors();
int8_t* input = interpreter.input(0)->data.int8;  // round(value / scale) + zero point
interpreter.Invoke();
int8_t* output = interpreter.output(0)->data.int8;"""


class EthosU(ByVela):
    """Arm's Ethos-U55, U65 and U85 under LiteRT for Microcontrollers.

    On this machine, penjing runs the `.tflite` file from which Vela compiled, in LiteRT.

    >>> EthosU("ethos-u55-256").ending
    '_vela.tflite'
    """

    name: ClassVar[str] = "ethosu"
    ending: ClassVar[str] = "_vela.tflite"
    constraints: ClassVar[Mapping[str, Any]] = {**ByVela.constraints, "split_silu": True}

    @property
    def int16(self) -> bool:
        """See `Runtime.int16`. Vela 5.2 ends with a segmentation fault where it compiles a layer
        with an int64 bias for an Ethos-U85."""
        return not self.accelerator.startswith("ethos-u85")

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export for LiteRT, and compile that file.

        Raises:
            InputError: the network isn't quantized, or the converter or Vela can't convert it.
        """
        self._require_integers(network, floats)
        return self.compile(tflite_export.to_tflite(network), path)

    def compile(self, content: bytes, path: Path) -> Artifact:
        """Compile the bytes of a `.tflite` file. `path` must end in `_vela.tflite`.

        Raises:
            InputError: Vela can't compile it. The message is Vela's.
        """
        model, made = tflite_file.read(content), self.run_vela(content, ".tflite")
        fallen = {match["name"]: match["why"].strip() for match in REASON.finditer(made.printed)}
        operators = _places(model, tflite_file.read(made.content), fallen)
        return self._write(path, made.content, content, [made.summary], operators)

    def open(self, contents: list[bytes], threads: int = 1) -> LiteRtSession:
        """See `Runtime.open`. It runs the file from which Vela compiled, on this machine's CPU."""
        return LiteRtSession(contents[1], threads)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`: of the compiled file."""
        return tflite_file.signature(tflite_file.read(artifact.path.read_bytes()))

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`: C++, by LiteRT for Microcontrollers."""
        return LOADING.format(path=path)

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`. Counts weights as Vela packed them, and those of the CPU."""
        left = tflite_file.weight_bytes(tflite_file.read(artifact.path.read_bytes()))
        return self._packed_bytes(artifact) + left


def _places(model: Any, compiled: Any, fallen: dict[str, str]) -> list[dict[str, str]]:
    """The unit of each operator of `model`. Those that `compiled` still contains run on the CPU.

    Args:
        fallen: the reasons for the CPU, by the names of operators.
    """
    kept = {
        operator.name: operator.kind
        for operator in tflite_file.operators(compiled)
        if operator.kind != NPU_OPERATOR
    }
    places = []
    for operator in tflite_file.operators(model):
        place = {"name": operator.name, "operator": operator.kind, "unit": "npu", "why": ""}
        if kept.pop(operator.name, None):
            why = fallen.get(operator.name, "Vela gives no reason")
            place |= {"unit": "cpu", "why": why}
        places.append(place)
    added = "Vela added it"
    return places + [
        {"name": name, "operator": kind, "unit": "cpu", "why": added} for name, kind in kept.items()
    ]
