"""ONNX Runtime: the embedded default. One `.onnx` file, integers as Q/DQ pairs that it fuses."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import onnx

from penjing.contract import Artifact, Placement, Saturating
from penjing.files import write_atomically
from penjing.network import Network
from penjing.network.integers import Form
from penjing.runtimes.contract import Runtime
from penjing.runtimes.onnx_export import UNSIGNED, to_onnx, too_large_for_onnx
from penjing.runtimes.onnx_half import halve
from penjing.runtimes.onnx_packing import pack_weights
from penjing.runtimes.onnx_profile import node_times, seconds_by_layer, weight_bytes
from penjing.runtimes.onnx_saturation import saturating
from penjing.runtimes.onnx_scan import require_plain
from penjing.runtimes.onnx_session import OnnxSession
from penjing.runtimes.onnx_weights import fold_when_loaded
from penjing.targets import Target


class OnnxRuntime(Runtime):
    """Microsoft's ONNX Runtime, CPU execution provider.

    Its processors' kernels compute in float32: weights of float16, or integer weights alone, become
    that when the file is loaded. They save bytes of the file, neither time nor memory.
    """

    name: ClassVar[str] = "onnxruntime"
    ending: ClassVar[str] = ".onnx"
    form: ClassVar[Form] = UNSIGNED
    floats: ClassVar[tuple[str, ...]] = ("float32", "float16")
    weights_alone: ClassVar[bool] = True
    overflows: ClassVar[bool] = True

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """A target without this runtime or its integers, and weights beyond a protobuf's 2 GiB."""
        return super().problems(network, target, floats) + too_large_for_onnx(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export with a free batch size; weights lie within the file.

        Raises:
            InputError: the exporter can't express an operator, or float16 a weight; the message
                names it.
        """
        self.require(floats)
        model = to_onnx(self.as_computed(network), self.form)
        if floats == "float16":
            model = halve(model, self.half_values)
        fold_when_loaded(model)
        model = pack_weights(model)
        write_atomically(path, model.SerializeToString())
        return self.artifact(path)

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`."""
        return OnnxSession(contents[0], threads)

    def saturating(self, artifact: Artifact) -> list[Saturating]:
        """See `Runtime.saturating`."""
        model = onnx.load(artifact.path, load_external_data=False)
        return saturating(model) if self.overflows else []

    def look_over(self, contents: list[bytes]) -> None:
        """See `Runtime.look_over`: its weights lie within, and its parts can be counted."""
        require_plain(contents[0])

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`: the provider that the session gave each node to."""
        takes = OnnxSession(artifact.path.read_bytes()).inputs
        inputs = {one.name: one.zeros() for one in takes}
        return [
            Placement(
                one.name, one.operator, one.provider.removesuffix("ExecutionProvider").lower()
            )
            for one in node_times(artifact.path, inputs, runs=1)
        ]

    def seconds_by_layer(
        self, artifact: Artifact, inputs: Any, runs: int
    ) -> Mapping[str, float] | None:
        """See `Runtime.seconds_by_layer`."""
        return seconds_by_layer(artifact.path, inputs, runs)

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`: packed where they are packed."""
        return weight_bytes(artifact.path)
