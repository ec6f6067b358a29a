"""ExecuTorch on Ethos-U: the network as TOSA (Arm's operator set), compiled by Vela."""

from __future__ import annotations

import operator
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import fx

from penjing.contract import Artifact
from penjing.errors import InputError, first_line
from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.layers import LAYERS
from penjing.network.lowering.form import Form, Kind
from penjing.network.lowering.integers import DEQUANTIZE, QUANTIZE
from penjing.network.lowering.lower import lowered
from penjing.quiet import quiet_below
from penjing.runtimes.converters import converting
from penjing.runtimes.ethosu.tosa_form import CODES, for_tosa, may_run_on_npu
from penjing.runtimes.ethosu.vela import CONFIG, ByVela
from penjing.runtimes.executorch.file import FORWARD, bytes_of_weights
from penjing.runtimes.executorch.session import ExecuTorchSession
from penjing.runtimes.executorch.signature import signature
from penjing.runtimes.executorch.xnnpack import for_one_sample, interface
from penjing.runtimes.interface import one_sample
from penjing.runtimes.signature import Signature

KINDS: tuple[Kind, ...] = ("moves", "averages", "means", "maxima")
FORM = Form(torch.int8, recurrence=(), pools=True, convolutions=KINDS)
LAYER = "penjing_layer"
"""The key of a layer's name in a node's `custom` data, which ExecuTorch keeps."""
NOT_CODES = "its inputs or outputs aren't int8, or TOSA can't change their scale there"
BETWEEN = "it converts values between the NPU and the CPU"


LOADING = """\
// In a program linked with ExecuTorch's runtime and its Ethos-U backend.
executorch::extension::Module module("{path}");
auto results = module.forward(tensor);  // the integers that the signature tells of"""


class ExecuTorchEthosU(ByVela):
    """Arm's Ethos-U55, U65 and U85 under ExecuTorch.

    Quantized inputs and outputs of the file are int8. Methods of the file, such as `input0_scale`,
    return their scales and zero points. On this machine, penjing runs a file for XNNPACK with the
    same integers instead.

    >>> ExecuTorchEthosU("ethos-u85-256").ending
    '_vela.pte'
    """

    name: ClassVar[str] = "executorch-ethosu"
    ending: ClassVar[str] = "_vela.pte"

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Write the file for the NPU, and one for XNNPACK.

        Raises:
            InputError: the network isn't quantized, ExecuTorch or Vela can't convert it, or the NPU
                supports none of its operators.
        """
        self._require_integers(network, floats)
        with network.evaluating(), quiet_below(), tempfile.TemporaryDirectory() as folder:
            told = interface(network)
            reference = for_one_sample(network)
            content, operators = self._program(network, Path(folder), told)
            parts = sorted(Path(folder).glob("*_tag*.tosa"))
            if not parts:
                raise InputError(
                    f"{self.accelerator} supports none of this network's operators; choose another "
                    "runtime (penjing runtimes lists them)"
                )
            rows = [self.run_vela(part.read_bytes(), ".tosa").summary for part in parts]
        return self._write(path, content, reference, rows, operators)

    def open(self, contents: list[bytes], threads: int = 1) -> ExecuTorchSession:
        """See `Runtime.open`. It runs the file for XNNPACK, on this machine's CPU."""
        return ExecuTorchSession(contents[1], threads)

    def signature(self, artifact: Artifact) -> Signature:
        """See `Runtime.signature`: of the file for the NPU."""
        return signature(artifact.path.read_bytes())

    def loading(self, path: Path, signature: Signature) -> str:
        """See `Runtime.loading`: C++, by ExecuTorch's `Module` or on a microcontroller."""
        return LOADING.format(path=path)

    def weight_bytes(self, artifact: Artifact) -> int:
        """See `Runtime.weight_bytes`. Counts weights as Vela packed them, and those of the CPU."""
        left = bytes_of_weights(artifact.path.read_bytes(), FORWARD)
        return self._packed_bytes(artifact) + left

    def _program(
        self, network: Network, folder: Path, told: dict[str, Any]
    ) -> tuple[bytes, list[dict[str, str]]]:
        """The bytes of the `.pte` file, and its operators as fields of `Placement`.

        Args:
            folder: where ExecuTorch writes the TOSA files that Vela compiles.
            told: the method that tells the names of inputs and outputs.
        """
        import executorch.kernels.quantized  # noqa: F401  operators for what stays on the CPU
        from executorch.backends.arm.common.annotation_meta import ArmAnnotationInfo
        from executorch.backends.arm.ethosu import EthosUCompileSpec
        from executorch.exir import to_edge_transform_and_lower
        from executorch.exir.passes.quantize_io_pass import QuantizeInputs, QuantizeOutputs

        written = for_tosa(lowered(network, FORM))
        args, kwargs = one_sample(network.example)
        with converting("ExecuTorch", _first_cause):
            exported = torch.export.export(written, args, kwargs)
        for node in filter(may_run_on_npu, exported.graph.nodes):
            mark = {ArmAnnotationInfo.CUSTOM_META_KEY: ArmAnnotationInfo(quantized=True)}
            node.meta.setdefault("custom", {}).update(mark)
        for node, layer in zip(_layers(exported.graph), _layers(written.graph), strict=True):
            node.meta.setdefault("custom", {})[LAYER] = str(layer.meta["layer"])
        spec = EthosUCompileSpec(self.accelerator, self._system, self.memory, config_ini=CONFIG)
        spec.dump_intermediate_artifacts_to(str(folder))
        partitioner = _partitioner(spec)
        with converting("ExecuTorch", _first_cause):
            edge = to_edge_transform_and_lower(
                exported, partitioner=[partitioner], constant_methods=told
            )
        inputs, outputs = _rounded_ends(edge.exported_program())
        with converting("ExecuTorch", _first_cause):
            edge = edge.transform([QuantizeInputs(edge, inputs), QuantizeOutputs(edge, outputs)])
        program = edge.exported_program().graph_module
        operators = [_place(*placed) for placed in _placed(program, partitioner.reasons)]
        with converting("ExecuTorch", _first_cause):
            return bytes(edge.to_executorch().buffer), operators


def _layers(graph: fx.Graph) -> list[fx.Node]:
    return [node for node in graph.nodes if node.target in LAYERS]


def _first_cause(error: Exception) -> str:
    """The message of the innermost exception, because ExecuTorch's passes wrap exceptions."""
    while isinstance(error.__cause__, Exception):
        error = error.__cause__
    return first_line(error)


def _partitioner(spec: Any) -> Any:
    """ExecuTorch's partitioner, which keeps in `reasons` why it rejected each node, by name."""
    from executorch.backends.arm.ethosu import EthosUPartitioner

    class Telling(EthosUPartitioner):  # type: ignore[misc]  # it is untyped
        reasons: Mapping[str, str] = {}

        def partition(self, program: Any) -> Any:
            result = super().partition(program)
            self.reasons = {node.name: why for node, why in self.reporter._rejected_nodes.items()}
            return result

        def _create_operator_support(self, program: Any, reporter: Any) -> Any:
            self.reporter = reporter
            return super()._create_operator_support(program, reporter)

    return Telling(spec)


def _rounded_ends(program: Any) -> tuple[list[int], list[int]]:
    """Positions of the inputs that are quantized first, and of the outputs that were int8."""
    ends, nodes = program.graph_signature, {node.name: node for node in program.graph.nodes}
    readers = [list(nodes[name].users) for name in ends.user_inputs]
    given = [[nodes[name]] for name in ends.user_outputs]

    def positions(target: Any, neighbours: list[list[fx.Node]]) -> list[int]:
        return [
            k for k, near in enumerate(neighbours) if [_operator(node) for node in near] == [target]
        ]

    return positions(QUANTIZE, readers), positions(DEQUANTIZE, given)


def _operator(node: fx.Node) -> Any:
    """The operator that a node calls, without ExecuTorch's wrapper."""
    return getattr(node.target, "_op", node.target)


def _place(node: fx.Node, unit: str, why: str) -> dict[str, str]:
    """An operator as fields of `Placement`. A layer's operator gets the layer's name."""
    name = node.meta.get("custom", {}).get(LAYER) or node.name
    return {"name": name, "operator": str(_operator(node)), "unit": unit, "why": why}


def _placed(program: Any, reasons: Mapping[str, str]) -> Iterator[tuple[fx.Node, str, str]]:
    """Each operator with its unit, and why it isn't on the NPU.

    Args:
        reasons: why nodes were rejected, by their names.
    """
    for node in program.graph.nodes:
        if node.op != "call_function" or node.target is operator.getitem:
            continue
        if node.target is not torch.ops.higher_order.executorch_call_delegate:
            yield node, "cpu", _reason(reasons.get(node.name))
            continue
        part = getattr(program, str(read_by(node).target)).original_module.graph
        for inner in part.nodes:
            if inner.op == "call_function" and _operator(inner) not in {*CODES, operator.getitem}:
                yield inner, "npu", ""


def _reason(told: str | None) -> str:
    """Why an operator runs on the CPU, in plain words.

    ExecuTorch gives no reason for quantize and dequantize operators. It calls operators for which
    `may_run_on_npu` is false "not marked as quantized".
    """
    if told is None:
        return BETWEEN
    return NOT_CODES if "not marked as quantized" in told else told
