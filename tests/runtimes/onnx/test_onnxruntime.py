"""ONNX Runtime: what is lowered runs as the network does, and only the file that was written."""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format
from torch.utils._pytree import tree_flatten, tree_leaves, tree_structure

from penjing.contract import as_arrays
from penjing.errors import InputError, UnsafeError
from penjing.network import capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx.profile import seconds_by_layer
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Task
from tests.passes.rounding.test_quantize import Small


class Two(nn.Module):
    """Two inputs by name, outputs as a tuple or a dict."""

    def __init__(self, named: bool) -> None:
        super().__init__()
        self.one, self.other, self.named = nn.Linear(4, 3), nn.Linear(4, 2), named

    def forward(self, left: Tensor, right: Tensor) -> object:
        found = self.one(left), self.other(right)
        return {"a": found[0], "b": found[1]} if self.named else found


def test_any_batch_size_gives_the_networks_numbers(tmp_path: Path) -> None:
    network = capture(Small().eval(), torch.randn(2, 3, 8, 8))
    session = OnnxRuntime().load(OnnxRuntime().lower(network, tmp_path / "a.onnx"))
    for batch in (1, 3, 7):
        x = torch.randn(batch, 3, 8, 8)
        with torch.no_grad():
            assert np.allclose(session.run(x.numpy()), network(x).numpy(), atol=1e-5)


@pytest.mark.parametrize("named", [True, False])
def test_structure_of_inputs_and_outputs(tmp_path: Path, named: bool) -> None:
    example = {"left": torch.randn(2, 4), "right": torch.randn(2, 4)}
    network = capture(Two(named).eval(), example)
    session = OnnxRuntime().load(OnnxRuntime().lower(network, tmp_path / "a.onnx"))
    found = session.run({name: one.numpy() for name, one in example.items()})
    want = network(**example)
    assert type(found) is type(want)
    pairs = [(found[k], want[k]) for k in want] if named else list(zip(found, want, strict=True))
    assert all(np.allclose(x, y.detach().numpy(), atol=1e-5) for x, y in pairs)


class Nested(nn.Linear):
    """Outputs within outputs, as detectors and the networks of transformers have them."""

    def forward(self, x: Tensor) -> Any:
        y = super().forward(x)
        return y, {"boxes": y + 1, "maps": [y * 2, {"0": y * 3}]}


def test_outputs_within_outputs(tmp_path: Path) -> None:
    network, x = capture(Nested(4, 3).eval(), torch.randn(2, 4)), torch.randn(5, 4)
    artifact = OnnxRuntime().lower(network, tmp_path / "a.onnx")
    given, wanted = OnnxRuntime().load(artifact).run(x.numpy()), as_arrays(network(x))
    leaves, spec = tree_flatten(given)
    assert spec == tree_structure(wanted)
    for leaf, like in zip(leaves, tree_leaves(wanted), strict=True):
        np.testing.assert_allclose(leaf, like, atol=1e-5)
    names = [value.name for value in onnx.load(artifact.path).graph.output]
    assert names == ["output", "output1_boxes", "output1_maps_0", "output1_maps_1_0"]


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    network = capture(nn.Linear(3, 2), torch.randn(2, 3))
    artifact = OnnxRuntime().lower(network, tmp_path / "a.onnx")
    with pytest.raises(UnsafeError, match="sha256"):
        OnnxRuntime().load(replace(artifact, sha256="0" * 64))
    artifact.path.write_bytes(artifact.path.read_bytes() + b"\0")
    with pytest.raises(UnsafeError, match=r"a\.onnx"):
        OnnxRuntime().load(artifact)


def test_a_file_that_is_no_onnx_is_refused(tmp_path: Path) -> None:
    from penjing.contract import Artifact
    from penjing.files import sha256

    path = tmp_path / "a.onnx"
    path.write_bytes(b"not a model")
    artifact = Artifact(path, "onnxruntime", 11, sha256(path))
    with pytest.raises(InputError, match="ONNX"):
        OnnxRuntime().load(artifact)


def test_int8_runs_on_integers_and_keeps_its_decisions(tmp_path: Path) -> None:
    import onnxruntime

    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5) for _ in range(4)]
    task = Task(Small().eval(), batches[0][0][:2], batches, batches)
    quantized = Quantize(samples=64)(capture(task.model, task.example), task)
    artifact = OnnxRuntime().lower(quantized, tmp_path / "a.onnx")
    weights = [one for one in onnx.load(artifact.path).graph.initializer if len(one.dims) > 1]
    assert {one.data_type for one in weights} == {onnx.TensorProto.INT8}
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(str(artifact.path), options)
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == 3
    assert kinds["QLinearAdd"] == 2
    assert kinds["Conv"] == kinds["Gemm"] == kinds["Relu"] == 0
    found = OnnxRuntime().load(artifact).run(batches[0][0].numpy())
    with torch.no_grad():
        want = quantized(batches[0][0]).numpy()
    assert np.abs(found - want).max() < 0.1 * want.std()
    layers = seconds_by_layer(artifact.path, batches[0][0][:1].numpy(), runs=8)
    assert {"conv1", "conv2", "conv3", "linear"} <= set(layers)


class Attention(nn.Module):
    """Attention over `rank` dimensions, with a mask or without."""

    def __init__(self, rank: int, masked: bool) -> None:
        super().__init__()
        self.project, self.rank = nn.Linear(12, 12), rank
        self.mask = nn.Parameter(torch.randn(4, 4)) if masked else None

    def forward(self, x: Tensor) -> Tensor:
        shape = {3: (-1, 4, 12), 4: (x.shape[0], 2, 4, 6), 5: (x.shape[0], 2, 1, 4, 6)}[self.rank]
        y = self.project(x).reshape(shape)
        y = nn.functional.scaled_dot_product_attention(y, y.relu(), y, attn_mask=self.mask)
        return y.reshape(x.shape)


@pytest.mark.parametrize("rank", [3, 4, 5])
@pytest.mark.parametrize("masked", [False, True])
def test_attention_of_any_rank_gives_the_networks_numbers(
    rank: int, masked: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    network = capture(Attention(rank, masked).eval(), torch.randn(2, 4, 12))
    session = OnnxRuntime().load(OnnxRuntime().lower(network, tmp_path / "a.onnx"))
    x = torch.randn(5, 4, 12)
    np.testing.assert_allclose(session.run(x.numpy()), network(x).detach(), rtol=1e-4, atol=1e-5)


class Pointwise(nn.Sequential):
    """A convolution whose weights lie alike by rows and by columns, but for strides."""

    def __init__(self) -> None:
        pool = nn.AdaptiveAvgPool2d(1)
        super().__init__(nn.Conv2d(3, 8, 1), nn.ReLU(), pool, nn.Flatten(), nn.Linear(8, 5))


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("kind", [Small, Pointwise])
def test_how_tensors_are_laid_out_in_memory_changes_no_file(
    kind: type[nn.Module], rounded: bool, tmp_path: Path
) -> None:
    """Nor that the example is a view of one number."""
    torch.manual_seed(0)
    model, x = kind().eval(), torch.randn(16, 3, 8, 8)
    data = [(x, torch.arange(16) % 5)]
    by_columns = model, x.to(memory_format=torch.channels_last)
    turned = convert_conv2d_weight_memory_format(copy.deepcopy(model), torch.channels_last)
    both = turned, by_columns[1]
    expanded = model, torch.zeros(1).expand(16, 3, 8, 8)
    found = []
    for number, (one, example) in enumerate(((model, x), by_columns, both, expanded)):
        task = Task(one, example[:2], data, data)
        network = capture(one, task.example)
        network = Quantize(samples=16)(network, task) if rounded else network
        found.append(OnnxRuntime().lower(network, tmp_path / f"{number}.onnx").sha256)
    assert len(set(found)) == 1
