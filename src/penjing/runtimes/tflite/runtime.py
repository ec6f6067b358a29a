"""LiteRT (TensorFlow Lite): one `.tflite` file of int8 kernels, for phones and microcontrollers."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from penjing.contract import Artifact, Placement
from penjing.files import write_atomically
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.signature import Signature, snippet
from penjing.runtimes.tflite import export as tflite_export
from penjing.runtimes.tflite import file as tflite_file
from penjing.runtimes.tflite.session import LiteRtSession, delegated
from penjing.targets import Target


class LiteRt(Runtime):
    """Google's LiteRT: its CPU kernels, and XNNPACK.

    >>> LiteRt().ending, LiteRt().floats
    ('.tflite', ('float32', 'float16'))

    If the network's inputs and outputs are quantized, those of the file are int8. A session
    converts them, so its own inputs and outputs are always floats. float16 weights, and integer
    weights with float values, become float32 when the file is loaded.
    """

    name: ClassVar[str] = "litert"
    ending: ClassVar[str] = ".tflite"
    constraints: ClassVar[Mapping[str, Any]] = {"outputs": True, "overflow_fix": False}
    floats: ClassVar[tuple[str, ...]] = ("float32", "float16")
    weights_alone: ClassVar[bool] = True
    unrolls: ClassVar[bool] = True

    @property
    def int16(self) -> bool:
        """See `Runtime.int16`. Its own kernels compute them, without XNNPACK."""
        return True

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: quantization parameters that its files can't hold."""
        return super().problems(network, target, floats) + tflite_export.problems(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export for one sample, with the inputs in the model's own layout.

        Raises:
            InputError: the converter can't express an operator or its quantization parameters, or
                float16 can't hold a weight. The message names it.
        """
        self.require(floats)
        write_atomically(path, tflite_export.to_tflite(network, floats))
        return self.artifact(path)

    def open(self, contents: list[bytes], threads: int = 1) -> LiteRtSession:
        """See `Runtime.open`."""
        return LiteRtSession(contents[0], threads)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`."""
        return tflite_file.signature(tflite_file.read(artifact.path.read_bytes()))

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`."""
        return snippet(
            ["import numpy", "from ai_edge_litert.interpreter import Interpreter"],
            [f'run = Interpreter("{path}").get_signature_runner()'],
            signature.arrays(),
            signature.rounded(),
            signature.fed(),
            ["results = run(**inputs)"],
            signature.taken(),
            signature.real(),
        )

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. The interpreter says which operators XNNPACK runs."""
        content = artifact.path.read_bytes()
        taken = delegated(content)
        return [
            Placement(operator.name, operator.kind, "xnnpack")
            if place in taken
            else Placement(operator.name, operator.kind, "cpu", "XNNPACK doesn't support it")
            for place, operator in enumerate(tflite_file.operators(tflite_file.read(content)))
        ]

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`."""
        return tflite_file.weight_bytes(tflite_file.read(artifact.path.read_bytes()))
