"""ONNX Runtime on the CPU: the runtime that installs everywhere."""

from __future__ import annotations

import contextlib
import copy
import io
import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from penjing.contract import Artifact, Session, as_arrays
from penjing.errors import InputError, UnsafeError
from penjing.files import sha256, write_atomically
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.targets import Target
from penjing.task import as_call

LARGEST_BYTES = 2**31 - 2**20


class OnnxRuntime(Runtime):
    """Lowers to one `.onnx` file and runs it on the CPU execution provider."""

    name = "onnxruntime"
    suffix = ".onnx"

    def problems(self, network: Network, target: Target | None = None) -> list[str]:
        """Try the export; one line for each operator that has no ONNX translation."""
        shape = _structure(network)
        if isinstance(shape, str):
            return [shape]
        try:
            _export(network, shape)
        except InputError as error:
            return [str(error)]
        return []

    def lower(self, network: Network, path: Path) -> Artifact:
        """Write the network, batch free, weights inside, to `path`."""
        structure = _structure(network)
        if isinstance(structure, str):
            raise InputError(structure)
        write_atomically(Path(path), _export(network, structure))
        return artifact(Path(path))

    def load(self, artifact: Artifact, threads: int = 1) -> Session:
        """Check the file's SHA-256, then load it for `threads` threads."""
        if not artifact.path.is_file():
            raise InputError(f"{artifact.path} isn't there; lower the network again")
        found = sha256(artifact.path)
        if found != artifact.sha256:
            raise UnsafeError(
                f"{artifact.path} was changed since it was written: sha256 {found[:12]}..., "
                f"wanted {artifact.sha256[:12]}...; lower the network again"
            )
        return OnnxSession(artifact.path, threads)


def artifact(path: Path) -> Artifact:
    """The artifact for an ONNX file that is on disk and trusted."""
    return Artifact(path, "onnxruntime", path.stat().st_size, sha256(path))


class OnnxSession:
    """An ONNX file loaded in ONNX Runtime.

    Attributes:
        runtime_session: the `onnxruntime.InferenceSession`.
    """

    def __init__(self, path: Path, threads: int = 1, optimized: Path | None = None) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        if optimized is not None:
            options.optimized_model_filepath = str(optimized)
        try:
            self.runtime_session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:
            raise InputError(
                f"{path} isn't taken by ONNX Runtime: {_first_line(error)}; is it an ONNX file?"
            ) from error
        self._inputs = [one.name for one in self.runtime_session.get_inputs()]
        outputs = [one.name for one in self.runtime_session.get_outputs()]
        kept = self.runtime_session.get_modelmeta().custom_metadata_map
        plain: dict[str, Any] = {"kind": "tuple" if len(outputs) > 1 else "tensor"}
        self._structure = json.loads(kept.get("penjing.outputs", json.dumps(plain)))
        self._names = self._structure.get("names", outputs)

    def run(self, inputs: Any) -> Any:
        """Outputs for one batch of arrays (or tensors), structured as the model returns them."""
        given = as_arrays(inputs)
        if isinstance(given, dict):
            feed = given
        else:
            feed = dict(zip(self._inputs, as_call(given)[0], strict=False))
        if set(feed) != set(self._inputs):
            raise InputError(
                f"the file takes the inputs {self._inputs}; found "
                f"{len(as_call(given)[0]) or sorted(feed)}"
            )
        try:
            found = self.runtime_session.run(None, feed)
        except Exception as error:
            shapes = {name: (one.shape, str(one.dtype)) for name, one in feed.items()}
            raise InputError(f"ONNX Runtime refused {shapes}: {_first_line(error)}") from error
        if self._structure["kind"] == "tensor":
            return found[0]
        if self._structure["kind"] == "dict":
            return dict(zip(self._names, found, strict=True))
        return tuple(found)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


class _Traced(nn.Module):
    """The network as a function of flat inputs that marks each operation with its layer."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self._modules = network._modules
        self._parameters = network._parameters
        self._buffers = network._buffers
        self._non_persistent_buffers_set = network._non_persistent_buffers_set
        self.__dict__["graph"] = network.graph

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        found = _Marker(self, self.__dict__["graph"]).run(*inputs, enable_io_processing=False)
        return tuple(pytree.tree_leaves(found))


class _Marker(fx.Interpreter):
    def __init__(self, module: nn.Module, graph: fx.Graph) -> None:
        super().__init__(module, graph=graph)

    def run_node(self, n: fx.Node) -> Any:
        with fx.traceback.annotate({"layer": n.meta.get("layer") or "", "node": n.name}):
            return super().run_node(n)


def _structure(network: Network) -> dict[str, Any] | str:
    """Kind and names of the outputs as plain data, or one line why they can't be kept."""
    spec = getattr(network, "_out_spec", None)
    if spec is None:
        return {"kind": "tensor", "names": ["output"]}
    shape = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    if isinstance(shape, int):
        return {"kind": "tensor", "names": ["output"]}
    if isinstance(shape, dict) and all(isinstance(one, int) for one in shape.values()):
        return {"kind": "dict", "names": [str(name) for name in shape]}
    if isinstance(shape, list | tuple) and all(isinstance(one, int) for one in shape):
        return {"kind": "tuple", "names": [f"output_{index}" for index in shape]}
    return (
        f"the model returns {type(shape).__name__} with other structures inside; "
        "return a tensor, a flat tuple or a flat dict"
    )


def _example(network: Network) -> tuple[list[str], list[Tensor]]:
    """Names and values of the inputs, in graph order."""
    example = network.example
    if isinstance(example, dict):
        return [str(name) for name in example], [one.cpu() for one in example.values()]
    args = as_call(example)[0]
    names = ["input"] if len(args) == 1 else [f"input_{index}" for index in range(len(args))]
    return names, [one.cpu() for one in args]


def _export(network: Network, structure: dict[str, Any]) -> bytes:
    """The ONNX file's bytes."""
    from penjing.runtimes.onnx_cleanup import clean

    names, values = _example(network)
    copied = copy.deepcopy(network).cpu().eval()
    free = ({0: torch.export.Dim("batch")},) * len(values)
    outputs = structure["names"]
    safe = outputs if not set(outputs) & set(names) else [f"output.{one}" for one in outputs]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            with torch.no_grad(), fx.traceback.preserve_node_meta():
                program = torch.export.export(
                    _Traced(copied), tuple(values), dynamic_shapes=(free,)
                )
            _name_layers(program.graph)
            exported = torch.onnx.export(
                program, dynamo=True, verbose=False, input_names=names, output_names=safe
            )
        except Exception as error:
            raise InputError(_explain(network, error)) from error
    assert exported is not None
    clean(exported.model)
    exported.model.metadata_props["penjing.outputs"] = json.dumps(structure)
    proto = exported.model_proto
    if proto.ByteSize() > LARGEST_BYTES:
        raise InputError(
            f"the ONNX file would hold {proto.ByteSize()} bytes, more than one file takes "
            f"({LARGEST_BYTES}); compress the network first"
        )
    return bytes(proto.SerializeToString())


def _name_layers(graph: fx.Graph) -> None:
    """Carry the layer of each node where the ONNX exporter looks for it."""
    for node in graph.nodes:
        layer = (node.meta.get("custom") or {}).get("layer", "")
        node.meta["nn_module_stack"] = {layer: (layer, "")}
        node.meta.pop("stack_trace", None)


def _explain(network: Network, error: BaseException) -> str:
    """One line out of the exporter's chain of errors, with the nodes it may mean."""
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    text = " ".join(str(cause).split())[:300]
    where = ""
    for node in network.calls():
        if str(node.target) in str(cause) or str(node.target) in str(error):
            where = f" at {node.name} ({node.target}, {node.meta.get('source') or 'no source'})"
            break
    return f"the network can't be written as ONNX{where}: {type(cause).__name__}: {text}"


def random_inputs(network: Network, batch: int, seed: int = 0) -> Any:
    """Inputs like the network's example, `batch` samples, NumPy; for timing without data."""
    generator = np.random.default_rng(seed)
    example = as_arrays(network.example)
    return pytree.tree_map(lambda one: one[generator.integers(0, len(one), batch)], example)
