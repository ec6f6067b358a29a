"""ONNX Runtime: the embedded default, on the CPU."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from penjing.contract import Artifact, Placement
from penjing.runtimes.onnx.file import OfOnnx
from penjing.runtimes.onnx.profile import node_times, seconds_by_layer
from penjing.runtimes.onnx.session import OnnxSession


class OnnxRuntime(OfOnnx):
    """Microsoft's ONNX Runtime, CPU execution provider.

    Its processors' kernels compute in float32: weights of float16, or integer weights alone, become
    that when the file is loaded. They save bytes of the file, neither time nor memory.
    """

    name: ClassVar[str] = "onnxruntime"
    weights_alone: ClassVar[bool] = True

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`."""
        return OnnxSession(contents[0], threads)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`: the provider that the session gave each node to."""
        takes = OnnxSession(artifact.path.read_bytes()).inputs
        inputs = {wanted.name: wanted.zeros() for wanted in takes}
        return [
            Placement(
                node.name, node.operator, node.provider.removesuffix("ExecutionProvider").lower()
            )
            for node in node_times(artifact.path, inputs, runs=1)
        ]

    def seconds_by_layer(
        self, artifact: Artifact, inputs: Any, runs: int
    ) -> Mapping[str, float] | None:
        """See `Runtime.seconds_by_layer`."""
        return seconds_by_layer(artifact.path, inputs, runs)
