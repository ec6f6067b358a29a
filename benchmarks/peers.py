"""What a user would do without penjing: each runtime's own tool for int8, to its own file.

Every function takes the task and an empty folder, calibrates on the same inputs that ours sees, one
at a time or in batches as the tool's documentation has it, and returns the contents of the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch

from penjing.network import capture
from penjing.quiet import quiet_below
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import first
from penjing.tasks.task import Task

SAMPLES = 512
Peer = Callable[[Task, Path], list[bytes]]


def calibration(task: Task) -> Iterator[np.ndarray[Any, Any]]:
    """The inputs that both quantizers see, in batches of at most 64."""
    for inputs, _ in first(task.train, SAMPLES):
        yield from (part.numpy() for part in inputs.split(64))


def one_by_one(task: Task) -> Iterator[np.ndarray[Any, Any]]:
    """The same inputs, one at a time, batch first."""
    for batch in calibration(task):
        yield from (batch[i : i + 1] for i in range(len(batch)))


def quantize_static(task: Task, folder: Path) -> list[bytes]:
    """ONNX Runtime's preprocessing and its static QDQ quantizer."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType
    from onnxruntime.quantization import quantize_static as quantize
    from onnxruntime.quantization.shape_inference import quant_pre_process

    float32 = OnnxRuntime().lower(capture(task.model, task.example), folder / "fp32.onnx").path
    (name,) = (each.name for each in onnx.load(float32).graph.input)

    class Reader(CalibrationDataReader):  # type: ignore[misc]  # which has no types
        def __init__(self) -> None:
            self.batches = calibration(task)

        def get_next(self) -> dict[str, Any] | None:
            batch = next(self.batches, None)
            return None if batch is None else {name: batch}

    prepared, path = folder / "prepared.onnx", folder / "theirs.onnx"
    quant_pre_process(str(float32), str(prepared))
    quantize(
        str(prepared), str(path), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
        activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
    )  # fmt: skip
    return [path.read_bytes()]


def nncf(task: Task, folder: Path) -> list[bytes]:
    """Intel's NNCF on the model that OpenVINO makes of the PyTorch module."""
    import nncf
    import openvino

    one = task.example[:1]
    sizes = [-1, *one.shape[1:]]
    model = openvino.convert_model(task.model, example_input=one, input=sizes)
    quantized = nncf.quantize(model, nncf.Dataset(list(one_by_one(task))))
    openvino.save_model(quantized, str(folder / "theirs.xml"))
    return [(folder / f"theirs.{end}").read_bytes() for end in ("xml", "bin")]


def xnnpack_quantizer(task: Task, folder: Path) -> list[bytes]:
    """ExecuTorch's PT2E quantization with the XNNPACK quantizer."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from executorch.exir import to_edge_transform_and_lower

    settings = get_symmetric_quantization_config(is_per_channel=True)
    program = _pt2e(task, XNNPACKQuantizer().set_global(settings))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    return [lowered.to_executorch().buffer]


def arm_quantizer(
    task: Task, accelerator: str, system: str, folder: Path
) -> tuple[list[bytes], list[str]]:
    """ExecuTorch's PT2E quantization with Arm's quantizer for Ethos-U; of that what Vela compiles,
    a TOSA file for each part that the NPU runs, and what is left to the CPU but for the rounding of
    inputs and outputs."""
    from executorch.backends.arm.ethosu import EthosUCompileSpec, EthosUPartitioner
    from executorch.backends.arm.quantizer import EthosUQuantizer, get_symmetric_quantization_config
    from executorch.exir import to_edge_transform_and_lower

    spec = EthosUCompileSpec(accelerator, system, "Shared_Sram")
    spec.dump_intermediate_artifacts_to(str(folder))
    quantizer = EthosUQuantizer(spec).set_global(get_symmetric_quantization_config())
    with quiet_below():  # Vela prints its summary
        edge = to_edge_transform_and_lower(
            _pt2e(task, quantizer), partitioner=[EthosUPartitioner(spec)]
        )
    calls = [one for one in edge.exported_program().graph.nodes if one.op == "call_function"]
    parts = ("executorch_call_delegate", "getitem", "quantized_decomposed")
    left = [str(one.target) for one in calls if not any(part in str(one.target) for part in parts)]
    return [one.read_bytes() for one in sorted(folder.glob("*_tag*.tosa"))], left


def _pt2e(task: Task, quantizer: Any) -> torch.export.ExportedProgram:
    """The model quantized as PyTorch 2 Export has it, calibrated and exported."""
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    one = (task.example[:1].clone(),)
    graph = torch.export.export(task.model, one).module(check_guards=False)
    graph = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for inputs in one_by_one(task):
            graph(torch.from_numpy(inputs))
    return torch.export.export(convert_pt2e(graph), one)


def ai_edge_quantizer(task: Task, folder: Path) -> list[bytes]:
    """Google's converter, and its quantizer's static recipe of int8 weights and values."""
    import litert_torch
    from ai_edge_litert.interpreter import Interpreter
    from ai_edge_quantizer import quantizer, recipe

    float32, path = folder / "fp32.tflite", folder / "theirs.tflite"
    litert_torch.convert(task.model, (task.example[:1],)).export(str(float32))
    ours = quantizer.Quantizer(str(float32))
    ours.load_quantization_recipe(recipe.static_wi8_ai8())
    signatures = Interpreter(str(float32)).get_signature_list()
    signature, ends = next(iter(signatures.items()))
    data = {signature: [{ends["inputs"][0]: one} for one in one_by_one(task)]}
    ours.quantize(ours.calibrate(data)).export_model(str(path))
    return [path.read_bytes()]


PEERS: dict[str, Peer] = {
    "onnxruntime": quantize_static,
    "openvino": nncf,
    "executorch": xnnpack_quantizer,
    "litert": ai_edge_quantizer,
}
"""By runtime."""
