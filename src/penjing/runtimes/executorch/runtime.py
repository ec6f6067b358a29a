"""ExecuTorch: PyTorch's runtime for devices. One `.pte` file, run by XNNPACK as far as it can.

A file takes one sample. A session runs the samples of a batch one by one.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from penjing.contract import Artifact, Placement
from penjing.files import write_atomically
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.executorch.file import FORWARD, bytes_of_weights, placements
from penjing.runtimes.executorch.session import ExecuTorchSession
from penjing.runtimes.executorch.signature import signature
from penjing.runtimes.executorch.xnnpack import for_one_sample
from penjing.runtimes.interface import not_by_sample
from penjing.runtimes.signature import Signature, snippet
from penjing.targets import Target


class ExecuTorch(Runtime):
    """ExecuTorch with its XNNPACK delegate.

    The files can hold neither float16 nor integer weights with float values. XNNPACK could run
    float16, but ExecuTorch 1.5 writes the weights of convolutions into XNNPACK's part of the file
    as float32. It does the same with integer weights if the values are floats.

    >>> ExecuTorch().ending, ExecuTorch().floats
    ('.pte', ('float32',))
    """

    name: ClassVar[str] = "executorch"
    ending: ClassVar[str] = ".pte"
    constraints: ClassVar[Mapping[str, Any]] = {
        "outputs": True, "overflow_fix": False, "recurrent": False
    }  # fmt: skip
    unrolls: ClassVar[bool] = True

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """See `Runtime.problems`. Also: outputs without a batch dimension."""
        return super().problems(network, target, floats) + not_by_sample(network)

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Export for one sample, and delegate what XNNPACK supports to it.

        Raises:
            InputError: ExecuTorch lacks an operator, which the message names. Or the file can't be
                loaded: XNNPACK checks its part of the file only then.
        """
        self.require(floats)
        write_atomically(path, for_one_sample(network))
        return self.artifact(path)

    def open(self, contents: list[bytes], threads: int = 1) -> ExecuTorchSession:
        """See `Runtime.open`. All sessions of a process share one thread pool."""
        return ExecuTorchSession(contents[0], threads)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`."""
        return signature(artifact.path.read_bytes())

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`."""
        _, results = signature.variables
        return snippet(
            ["import numpy", "import torch", "from executorch.runtime import Runtime"],
            [f'program = Runtime.get().load_program("{path}")'],
            [f'model = program.load_method("{FORWARD}")'],
            signature.arrays(),
            signature.fed(),
            ["tensors = [torch.from_numpy(value) for value in inputs.values()]"],
            ["results = model.execute(tensors)"],
            [f"{name} = results[{place}].numpy()" for place, name in enumerate(results)],
        )

    def placement(self, artifact: Artifact) -> list[Placement]:
        """See `Runtime.placement`. It is in the file, with the type of each operator's output."""
        return placements(artifact.path.read_bytes(), FORWARD)

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`."""
        return bytes_of_weights(artifact.path.read_bytes(), FORWARD)
