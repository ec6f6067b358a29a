"""Export and verify: the figures are the file's, a changed file is refused, and what goes astray
is found."""

from __future__ import annotations

import copy
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.contract import Array, Artifact, Estimate, Parity, Placement
from penjing.errors import DivergenceError, InputError, UnsafeError
from penjing.measure.parity import departs, parity, wilson
from penjing.network import Network, capture
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.layers import LAYERS
from penjing.passes import Compensate, CorrectBias, Pass, PruneChannels, Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools.export import ExportOptions, export, export_model, loading_of, verify
from penjing.tools.fallbacks import fallbacks
from penjing.trials.evaluation.divergence import first_divergence
from penjing.trials.recipe import Recipe
from tests.reference_networks import self_taught


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_an_exported_file_proves_itself_and_is_verified(tmp_path: Path, precision: str) -> None:
    task = self_taught()
    proof = export_model(task, "onnxruntime", precision, tmp_path)
    assert proof.score == 1.0 if precision == "float32" else proof.score > 0.8
    assert proof.drop.drop == pytest.approx(100 * (1 - proof.score))
    assert set(proof.placement) == {"cpu"}
    assert proof.diverges is None
    assert json.loads((tmp_path / "export.json").read_text()) == proof.to_json()
    again = verify(tmp_path / "model.onnx", task)
    assert (again.sha256, again.score) == (proof.sha256, proof.score)


def test_a_file_without_a_record_is_verified_without_its_hash(tmp_path: Path) -> None:
    task = self_taught()
    export_model(task, "onnxruntime", "float32", tmp_path)
    (tmp_path / "export.json").unlink()
    assert verify(tmp_path / "model.onnx", task).sha256 is None


def test_a_file_is_verified_in_the_runtime_that_its_record_names(tmp_path: Path) -> None:
    task, record = self_taught(), tmp_path / "export.json"
    export_model(task, "onnxruntime", "float32", tmp_path)
    record.write_text(json.dumps(json.loads(record.read_text()) | {"runtime": "elsewhere"}))
    with pytest.raises(InputError, match="no runtime 'elsewhere'"):
        verify(tmp_path / "model.onnx", task)
    assert verify(tmp_path / "model.onnx", task, "onnxruntime").runtime == "onnxruntime"


def test_changed_bytes_are_refused_before_they_are_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = self_taught()
    export_model(task, "onnxruntime", "float32", tmp_path)
    path, draw = tmp_path / "model.onnx", random.Random(0)
    good = path.read_bytes()

    def never(*_: object) -> None:
        raise AssertionError("the runtime saw the file")

    monkeypatch.setattr(OnnxRuntime, "open", never)
    for _ in range(100):
        bad = bytearray(good)
        if draw.random() < 0.5:
            place = draw.randrange(len(bad))
            bad[place] ^= 1 << draw.randrange(8)
        else:
            del bad[draw.randrange(len(bad)) :]
        path.write_bytes(bytes(bad))
        with pytest.raises(UnsafeError, match="has changed"):
            verify(path, task)


class _Astray(OnnxRuntime):
    """A runtime that gets one layer's weight wrong."""

    layer = ""

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        wrong = copy.deepcopy(network)
        for node in wrong.calls():
            if node.target in LAYERS and node.meta["layer"] == self.layer:
                source = node.args[1]
                while source.op != "get_attr":  # type: ignore[union-attr]
                    source = source.args[0]  # type: ignore[union-attr]
                with torch.no_grad():
                    wrong.tensor(str(source.target)).mul_(-1.5)  # type: ignore[union-attr]
        return super().lower(wrong, path, floats)


@pytest.mark.parametrize(("name", "place"), [("plain_cnn", 0), ("plain_cnn", -1), ("resnet_a", 3)])
@pytest.mark.parametrize("quantized", [False, True])
def test_the_first_layer_that_goes_astray_is_found(name: str, place: int, quantized: bool) -> None:
    task = self_taught(name)
    network = capture(task.model, task.example)
    if quantized:
        network = Quantize(samples=32)(network, task)
    layers = [str(node.meta["layer"]) for node in network.calls() if node.target in LAYERS]
    runtime = _Astray()
    runtime.layer = layers[place]
    assert first_divergence(network, runtime, task.example) == layers[place]


def test_nothing_goes_astray_in_a_runtime_that_is_right() -> None:
    task = self_taught()
    assert first_divergence(capture(task.model, task.example), OnnxRuntime(), task.example) is None


@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_a_file_that_departs_from_its_network_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    task = self_taught()
    monkeypatch.setattr(_Astray, "layer", "conv2")
    monkeypatch.setattr("penjing.tools.export.find_runtime", lambda _: _Astray())
    with pytest.raises(DivergenceError, match="first layer that differs is conv2; the likely"):
        export_model(task, "onnxruntime", precision, tmp_path)
    assert not list(tmp_path.iterdir())
    proof = export_model(
        task, "onnxruntime", precision, tmp_path, ExportOptions(accept_divergence=True)
    )
    assert proof.diverges is not None
    assert proof.parity is not None
    assert proof.parity.departure > 1
    assert json.loads((tmp_path / "export.json").read_text()) == proof.to_json()


def test_what_a_file_gives_otherwise_than_its_record_says_is_said(tmp_path: Path) -> None:
    task, record = self_taught(), tmp_path / "export.json"
    proof = export_model(task, "onnxruntime", "int8", tmp_path)
    assert verify(tmp_path / "model.onnx", task).differs == ()
    kept = json.loads(record.read_text())
    kept["score"] -= 0.25
    kept["to_original"]["same_decisions"] -= 0.125
    kept["to_original"]["mean_difference"] *= 3
    kept |= {"saturates": ["conv1"], "version": "0.1"}
    kept["judged_on"]["instructions"] = ["avx2"]
    record.write_text(json.dumps(kept))
    lines = verify(tmp_path / "model.onnx", task).differs
    recorded, same = 100 * proof.score - 25, kept["to_original"]["same_decisions"]
    assert lines[0] == f"score {100 * proof.score:.2f}, but the record says {recorded:.2f}"
    assert [line.split(" ", 1)[1] for line in lines[1:2]] == [
        f"of decisions agree with the original's, but the record says {same:.2%}"
    ]
    assert lines[2].startswith("outputs ")
    assert lines[3] == "layers that saturate: never, but the record says ['conv1']"
    assert lines[4].endswith(", but the record is from 0.1")
    assert lines[5].endswith(" (avx2)")


def test_rounding_explains_what_it_changes_itself_and_no_more() -> None:
    task = self_taught("resnet_a")
    network = Quantize(samples=32)(capture(task.model, task.example), task)
    batches = [(x, y) for x, y in task.test]
    for share, explained in ((0.0, True), (0.9, True), (1.1, False)):
        found = parity(network, _Moved(network, 2 * share), batches)
        assert found.departure == pytest.approx(share, abs=1e-3)
        assert (not departs(replace(found, same_decisions=None))) is explained


class _Moved:
    """The network's outputs, moved by so many times what its rounding changes."""

    inputs = ()

    def __init__(self, network: Network, times: float) -> None:
        self.network, self.exact, self.times = network, unrounded(network), times

    def run(self, x: Array) -> Array:
        with torch.no_grad():
            one, other = self.network(torch.from_numpy(x)), self.exact(torch.from_numpy(x))
        return (one + self.times * (other - one)).numpy()


@pytest.mark.parametrize(
    ("same", "kept", "departure"),
    [(0.97, 0.99, True), (0.997, 1.0, False), (0.97, 0.975, False), (0.9, None, True)],
)
def test_decisions_depart_where_rounding_keeps_more_beyond_doubt(
    same: float, kept: float | None, departure: bool
) -> None:
    found = Parity(1000, 0.1, 0.1, same, None, 0.5, kept)
    assert bool(departs(found)) is departure
    assert not departs(found, "float16")


def test_what_cannot_be_exported_or_verified_is_one_line(tmp_path: Path) -> None:
    task = self_taught()
    with pytest.raises(InputError, match="`precision` must be one of float32, float16, int8, "):
        export_model(task, "onnxruntime", "int3", tmp_path)
    with pytest.raises(InputError, match="did you mean 'onnxruntime'"):
        export_model(task, "onnxruntim", "float32", tmp_path)
    with pytest.raises(InputError, match=r"file .*nothing\.onnx doesn't exist"):
        verify(tmp_path / "nothing.onnx", task)


def test_a_file_of_another_network_is_refused_in_one_line(tmp_path: Path) -> None:
    """Without a record, whose file it is shows when it is run on the task's data."""
    other = OnnxRuntime().lower(
        capture(nn.Linear(3, 2), torch.zeros(2, 3)), tmp_path / "other.onnx"
    )
    with pytest.raises(
        InputError, match=r"other\.onnx fails on test data of shape .*; name a file that takes the "
    ):
        verify(other.path, self_taught())


def test_the_bound_of_a_share_is_below_it_and_tightens() -> None:
    assert wilson(0, 10) == pytest.approx(0, abs=1e-12)
    assert wilson(9, 10) < wilson(90, 100) < wilson(900, 1000) < 0.9


class _Two(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(8, 4), nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"a": self.a(x), "b": self.b(x)}


def test_a_network_with_several_outputs_is_proven_too(tmp_path: Path) -> None:
    x = torch.randn(32, 8)
    data = Arrays(x, torch.arange(32) % 4, batch_size=8)
    task = Task(_Two().eval(), x[:2], data, data, data)
    proof = export_model(task, "onnxruntime", "float32", tmp_path)
    assert proof.parity is not None
    assert proof.parity.max_difference < 1e-5


def _composed(*passes: Pass) -> tuple[Network, Task]:
    task = self_taught()
    return Recipe(passes)(capture(task.model, task.example), task), task


def test_a_network_that_was_composed_by_hand_is_written_and_proven(tmp_path: Path) -> None:
    network, task = _composed(PruneChannels(0.5), Compensate(samples=64), Quantize(samples=64))
    proof = export(network, task, out=tmp_path)
    assert proof.parity is not None
    assert proof.parity.departure <= 1
    assert proof.score < 1  # the network's accuracy, not that of the task's model
    assert proof.file_bytes < export_model(task, "onnxruntime", "int8", tmp_path / "b").file_bytes
    assert verify(proof.path, task).score == proof.score


def test_a_network_gets_the_integers_that_its_runtime_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before it is quantized, and after: then it is quantized again, unless it was refined."""
    needs = {"outputs": True, "overflow_fix": False}
    monkeypatch.setattr(OnnxRuntime, "constraints", needs)
    monkeypatch.setattr(OnnxRuntime, "overflows", False)
    network, task = _composed(PruneChannels(0.5))
    first = export(network, task, precision="int8", out=tmp_path / "first")
    assert first.constraints == ("outputs",)
    quantized = Quantize()(network, task)
    again = export(quantized, task, out=tmp_path / "again")
    assert "quantized again for onnxruntime, with outputs=True" in again.notes[0]
    assert again.sha256 == first.sha256
    assert [plan.method for plan in quantized.history] == ["PruneChannels", "Quantize"]
    recipe = Recipe([PruneChannels(0.5), Quantize()]).for_runtime("onnxruntime")
    made = recipe(capture(task.model, task.example), task)
    assert export(made, task, out=tmp_path / "asked").sha256 == first.sha256
    refined = CorrectBias(samples=64)(quantized, task)
    with pytest.raises(InputError, match=r"needs Quantize\(outputs=True.*for_runtime"):
        export(refined, task, out=tmp_path / "refined")


def test_a_network_keeps_its_own_precision(tmp_path: Path) -> None:
    network, task = _composed(Quantize())
    assert export(network, task, precision="int8", out=tmp_path / "a").parity is not None
    with pytest.raises(InputError, match="precision is 'float32', but the network is quantized"):
        export(network, task, precision="float32", out=tmp_path / "b")


def test_what_is_no_network_of_the_task_is_refused(tmp_path: Path) -> None:
    task = self_taught()
    with pytest.raises(InputError, match=r"takes a Network; found PlainCnn; penjing.capture"):
        export(task.model, task, out=tmp_path)  # type: ignore[arg-type]
    other = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    with pytest.raises(InputError, match=r"takes float32 \[3\] for each sample, but the example"):
        export(other, task, out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_a_proof_prints_all_that_it_knows_in_eighty_columns(tmp_path: Path) -> None:
    task = self_taught()
    proof = export_model(task, "onnxruntime", "int8", tmp_path)
    kept = Placement(f"{'layer.' * 20}conv", "CONV", "cpu", "the NPU has none")
    fallen = tuple(fallbacks([kept] * 64))
    estimate = Estimate("estimated by a tool", "a machine", 1.5, 3000, sram_bytes=4096)
    proof = replace(proof, fallbacks=fallen, estimate=estimate, path=Path("model.onnx"))
    text = str(proof)
    words = ("64 operators fell", "64 CONV", "3,000 cycles", "x: float32 [batch, 3, 32, 32]")
    assert all(word in text for word in (*words, str(proof.sha256)))
    assert max(map(len, text.splitlines())) <= 80


def test_code_is_shown_for_the_recorded_bytes_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`penjing report` may be given a folder of somebody else's."""
    proof = export_model(self_taught(), "onnxruntime", "float32", tmp_path)
    assert loading_of(proof.path, "onnxruntime", proof.sha256) == proof.loading

    def never(*_: object) -> None:
        raise AssertionError("the file was parsed")

    monkeypatch.setattr(OnnxRuntime, "signature", never)
    proof.path.write_bytes(proof.path.read_bytes() + b"x")
    assert loading_of(proof.path, "onnxruntime", proof.sha256) == ""
    assert loading_of(proof.path, "elsewhere", proof.sha256) == ""
    assert loading_of(tmp_path / "gone.onnx", "onnxruntime", proof.sha256) == ""
