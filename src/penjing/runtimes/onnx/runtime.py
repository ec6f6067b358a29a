"""ONNX Runtime on the CPU: the default, which is installed with penjing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from penjing.contract import Artifact, Placement
from penjing.runtimes.onnx.file import OfOnnx
from penjing.runtimes.onnx.profile import node_times, seconds_by_layer
from penjing.runtimes.onnx.session import OnnxSession


class OnnxRuntime(OfOnnx):
    """Microsoft's ONNX Runtime, CPU execution provider.

    >>> import tempfile, torch
    >>> from pathlib import Path
    >>> from penjing.network import capture
    >>> network = capture(torch.nn.Linear(4, 3), torch.zeros(2, 4))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     artifact = OnnxRuntime().lower(network, Path(folder) / "model.onnx")
    ...     outputs = OnnxRuntime().load(artifact).run(torch.ones(2, 4).numpy())
    >>> outputs.shape
    (2, 3)

    Its CPU kernels compute in float32. float16 weights, and integer weights with float values,
    become float32 when the file is loaded. So they make the file smaller, but save neither time nor
    memory.
    """

    name: ClassVar[str] = "onnxruntime"
    weights_alone: ClassVar[bool] = True

    def open(self, contents: list[bytes], threads: int = 1) -> OnnxSession:
        """See `Runtime.open`."""
        return OnnxSession(contents[0], threads)

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. It is the provider that the session chose for each node."""
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
