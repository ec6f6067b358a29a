"""A table of 96 bad inputs, and the line that penjing prints for each.

`python -m tests.bad_inputs --write` writes `docs/bad_inputs.md` from this table. The tests provoke
each row on the command line, and compare what is printed with its line. If another test provokes a
row, the row has that test's name.
"""

from __future__ import annotations

import errno
import json
import os
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, helper

from penjing.files import sha256_of
from penjing.runtimes import registry
from penjing.trials.result import Result
from tests.fits import trial

PAGE = Path(__file__).parent.parent / "docs" / "bad_inputs.md"
Provoke = Callable[[Path, pytest.MonkeyPatch], list[str]]
"""Prepares a temporary folder, and returns the arguments for the command line."""


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        number: from 1 to 96. Several rows may share a number.
        what: what is wrong with the input, and for inputs that are accepted, what happens.
        line: the line that is printed. `...` stands for text that differs between machines or runs.
        code: the exit code.
        provoke: how to provoke the line; None if another test does it, or nothing can.
        test: `file::name` of the test that provokes the line. The line is part of its source.
        absent: why nothing can provoke it yet.
    """

    number: int
    what: str
    line: str = ""
    code: int = 2
    provoke: Provoke | None = None
    test: str = ""
    absent: str = ""


def task(name: str, *options: str) -> Provoke:
    """Export a task of `tests/bad_tasks.py`."""
    return lambda folder, _: [
        "export", f"tests.bad_tasks:{name}", "--out", str(folder / "out"), *options,
    ]  # fmt: skip


def fit(name: str, *options: str) -> Provoke:
    """Fit a task of `tests/bad_tasks.py`."""
    return lambda folder, _: [
        "fit", f"tests.bad_tasks:{name}", "--out", str(folder / "out"), *options,
    ]  # fmt: skip


def words(*arguments: str) -> Provoke:
    """Pass these arguments."""
    return lambda folder, _: [one.replace("FOLDER", str(folder)) for one in arguments]


def file(name: str, content: bytes | onnx.ModelProto, command: str = "bench") -> Provoke:
    """Write a file, and pass it to a command."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        data = content if isinstance(content, bytes) else content.SerializeToString()
        (folder / name).write_bytes(data)
        return [command, str(folder / name)]

    return provoke


def model(
    *nodes: onnx.NodeProto, opset: int = 20, version: int = 10, batch: int | str = 1
) -> onnx.ModelProto:
    """An ONNX model with one input and one output."""
    value = helper.make_tensor_value_info
    shape = [batch, 3]
    graph = helper.make_graph(
        [*nodes] or [helper.make_node("Relu", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def for_two_samples() -> onnx.ModelProto:
    """A model that declares a free batch size, but only works for a batch of two."""
    shape = helper.make_tensor("", TensorProto.INT64, [2], [2, 3])
    constant = helper.make_node("Constant", [], ["s"], value=shape)
    return model(constant, helper.make_node("Reshape", ["x", "s"], ["y"]), batch="n")


def external() -> onnx.ModelProto:
    """A model whose weights are in a file outside of its folder."""
    made = model(helper.make_node("Add", ["x", "w"], ["y"]))
    weight = made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1, 3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../etc/passwd"), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    return made


def archive() -> bytes:
    """A zip archive, like a `.pt` file."""
    import io

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("archive/data.pkl", b"\x80\x02.")
    return content.getvalue()


def changed(how: Callable[[bytes], bytes]) -> Provoke:
    """Verify a file whose bytes don't match its record."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        good = model().SerializeToString()
        (folder / "model.onnx").write_bytes(how(good))
        (folder / "export.json").write_text(
            f'{{"file": "model.onnx", "sha256": "{"0" * 64}", "runtime": "onnxruntime"}}'
        )
        return ["verify", str(folder / "model.onnx"), "--task", "tests.bad_tasks:good"]

    return provoke


def record(content: bytes) -> Provoke:
    """Verify a file with this record beside it."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        (folder / "model.onnx").write_bytes(model().SerializeToString())
        (folder / "export.json").write_bytes(content)
        return ["verify", str(folder / "model.onnx"), "--task", "tests.bad_tasks:good"]

    return provoke


def budgets(text: str, *options: str) -> Provoke:
    """Check a file of budgets, beside which lies `model.onnx`, a file with a record."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        data = model().SerializeToString()
        (folder / "model.onnx").write_bytes(data)
        told = {"file": "model.onnx", "sha256": sha256_of(data), "runtime": "onnxruntime"}
        (folder / "export.json").write_text(json.dumps(told))
        (folder / "penjing.toml").write_text(text)
        return ["check", str(folder / "penjing.toml"), *options]

    return provoke


def failing(where: Any, name: str, number: int, provoke: Provoke) -> Provoke:
    """Provoke while a function of the operating system fails with this error number."""

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr(where, name, fails)
        return provoke(folder, monkeypatch)

    return both


def earlier_result(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
    """Fit into a folder that already holds a result."""
    baseline = trial("original", (), "baseline")
    Result("other", "cpu", "m", "latency", 1.0, 0.95, 0, {}, baseline).save(folder)
    return ["fit", "tests.bad_tasks:good", "--out", str(folder)]


def absent_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Export for a runtime whose package isn't installed."""
    entry = registry.Entry(
        "nowhere:Nothing", ".none", ("no-such-package",), "pip install 'penjing[none]'", "nothing"
    )
    monkeypatch.setitem(registry.ENTRIES, "none", entry)
    return ["export", "tests.bad_tasks:good", "--runtime", "none", "--out", str(folder / "out")]


def no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Export on a machine whose memory doesn't hold the network."""

    def capture(*_: Any, **__: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("penjing.tools.export.capture", capture)
    return task("good")(folder, monkeypatch)


def beginning_again(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
    """Begin a task in a file that exists."""
    (folder / "mytask.py").write_text("task = None\n")
    return ["init", "text", str(folder / "mytask.py")]


def leaving(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
    """Profile a task file that calls `sys.exit`."""
    (folder / "mytask.py").write_text("import sys\nsys.exit(0)\n")
    return ["profile", str(folder / "mytask.py")]


SAME = "decisions 100.00 % are the same as the network's..."
NO_PACKAGES = "penjing makes no update packages yet, so there are no signatures, deltas or decoders"
MODEL, DATA, TARGET, DISK, HOSTILE, REMOTE = (
    "A. The model", "B. The data and the budget", "C. The target", "D. Folders, disk and processes",
    "E. Damaged and hostile files", "F. Remote devices",
)  # fmt: skip
GROUPS = {1: MODEL, 23: DATA, 39: TARGET, 47: DISK, 63: HOSTILE, 85: REMOTE}
"""The heading of each group, by the number of its first row."""
INT8 = ("--precision", "int8")
CHECKED, OF_GOOD = "[[file]]\npath = 'model.onnx'\n", "task = 'tests.bad_tasks:good'\n"
"""A file of budgets without a rule, and the line that names a task."""
SSH, FAULTS = "tests/device/test_ssh.py", "tests/device/test_ssh_faults.py"
FOLDER = "tests/search/test_folder.py"
ROWS = [
    Row(1, "a NaN weight",
        "penjing: error: weight conv.weight has NaN or infinite values (1 of 216); repair the "
        "checkpoint", provoke=task("nan_weight")),
    Row(2, "an infinite weight",
        "penjing: error: weight head.bias has NaN or infinite values (1 of 4); repair the "
        "checkpoint", provoke=task("infinite_weight")),
    Row(3, "a negative variance in a batch normalization",
        "penjing: error: weight norm.running_var holds a negative variance; repair the checkpoint",
        provoke=task("negative_variance")),
    Row(4, "a model in training mode: used in evaluation mode, with a note",
        "note the model was in training mode; penjing uses it in evaluation mode", 0,
        task("training_mode")),
    Row(5, "a model without parameters",
        "penjing: error: the model Bare has no parameters, so there is nothing to compress; pass "
        "the module that has the weights", provoke=task("no_parameters")),
    Row(6, "all weights zero or constant",
        "penjing: error: all weights of Small are constant (all numbers in conv.weight are equal); "
        "load the checkpoint", provoke=task("zero_weights")),
    Row(7, "tied weights: accepted", SAME, 0,
        task("tied_weights")),
    Row(8, "weights that aren't contiguous: accepted", SAME,
        0, task("non_contiguous_weights")),
    Row(9, "control flow that depends on the data",
        "penjing: error: Branching can't be captured at bad_tasks.py:...: its control flow depends "
        "on the data; use torch.where or torch.cond", provoke=task("control_flow")),
    Row(10, "an operator that the file format lacks",
        "penjing: error: the ONNX exporter can't convert this network: ...prims.bessel_j0...",
        provoke=task("unknown_operator")),
    Row(11, "`forward` needs more arguments than the example has",
        "penjing: error: the model fails on its example inputs: TwoInputs.forward() missing 1 "
        "required positional argument: 'scale'", provoke=task("several_inputs")),
    Row(12, "an output that is no tensor, tuple or dict",
        "penjing: error: the model returns NoneType; it must return a tensor, or a tuple, list or "
        "dict of tensors", provoke=task("no_output")),
    Row(13, "an output that depends on random numbers",
        "penjing: error: the model gives different outputs for the same inputs, so something in it "
        "is random even in evaluation mode; remove the randomness", provoke=task("random_output")),
    Row(14, "float64 weights",
        "penjing: error: weight conv.weight is torch.float64, wanted torch.float32; convert it "
        "with model.float(), and give a float32 example", provoke=task("double_weights")),
    Row(14, "half-precision weights",
        "penjing: error: weight conv.weight is torch.float16, wanted torch.float32; convert it "
        "with model.float(), and give a float32 example", provoke=task("half_weights")),
    Row(15, "a sparse tensor among the weights",
        "penjing: error: weight mask is a torch.sparse_coo tensor; convert it to dense float32 "
        "with to_dense()", provoke=task("sparse_buffer")),
    Row(16, "missing keys in a state dict",
        "penjing: error: tests.bad_tasks:missing_keys raised RuntimeError at bad_tasks.py:...: "
        "Error(s) in loading state_dict for Small: Missing key(s) in state_dict: "
        '"head.weight"....', provoke=task("missing_keys")),
    Row(17, "a tensor of another shape in a state dict",
        "penjing: error: tests.bad_tasks:wrong_shape raised RuntimeError at bad_tasks.py:...: "
        "Error(s) in loading state_dict for Small: size mismatch for head.weight: ...",
        provoke=task("wrong_shape")),
    Row(18, "a module that can't be imported",
        "penjing: error: nowhere.models:task needs the module 'nowhere', which isn't installed",
        provoke=words("profile", "nowhere.models:task")),
    Row(19, "a model in a wrapper",
        "penjing: error: the model is wrapped in DataParallel; pass model.module instead",
        provoke=task("data_parallel")),
    Row(20, "weights on the meta device",
        "penjing: error: weight conv.weight is on the meta device; load the weights first",
        provoke=task("meta_weights")),
    Row(21, "a model that was pruned by masks: accepted", SAME, 0,
        task("pruned_before")),
    Row(21, "a model that was already quantized",
        "penjing: error: weight codes is a quantized tensor; convert it to dense float32 with "
        "dequantize()", provoke=task("quantized_before")),
    Row(22, "more weights than the 2 GiB of one ONNX file",
        "bytes of weights exceed the ... of one ONNX file",
        test="tests/test_bad_inputs.py::test_weights_beyond_one_file_are_refused"),
    Row(23, "an empty data set",
        "penjing: error: the training data is empty; give at least one batch",
        provoke=task("empty_data")),
    Row(24, "a single sample",
        "penjing: error: the training data has 1 sample(s), too few to set some aside for "
        "validation; give more training data, or give validation data", provoke=fit("one_sample")),
    Row(24, "an iterable `DataLoader` without a length, and no validation data",
        "penjing: error: the training data can be read only in order (Stream), so penjing can't "
        "set validation data aside without keeping all of it in memory; give validation data, "
        "validation=...", provoke=fit("stream_without_validation")),
    Row(25, "NHWC images for an NCHW model",
        "penjing: error: samples of the training data have shape (8, 8, 3), but the example has "
        "(3, 8, 8); they are NHWC, so convert them to NCHW with permute(0, 3, 1, 2)",
        provoke=task("channels_last")),
    Row(26, "uint8 data for a float model",
        "penjing: error: the training data is torch.uint8, but the example is torch.float32; "
        "divide by 255 and normalize as in training",
        provoke=task("bytes_as_they_are")),
    Row(26, "data in 0..255, but an example in 0..1",
        "penjing: error: values of the validation data reach 255, those of the example ...; "
        "preprocess both as in training (divide by 255, normalize)",
        provoke=task("range_of_bytes")),
    Row(27, "NaN in the data",
        "penjing: error: the training data contains NaN or infinite values in its first batch; "
        "remove them", provoke=task("nan_in_data")),
    Row(27, "NaN in a later batch",
        "penjing: error: the training data contains NaN or infinite values in batch 4; remove them",
        provoke=task("nan_in_a_later_batch")),
    Row(28, "a split without samples of some class: accepted, with a note",
        "note the test data has no samples of 1 of the training data's classes (3), so a loss of "
        "accuracy on them goes unnoticed", 0, task("class_missing")),
    Row(29, "a label beyond the number of outputs",
        "penjing: error: the training labels range from 0 to 9, but the model has 4 outputs, for "
        "classes 0 to 3; fix the labels or the model", provoke=task("label_outside")),
    Row(29, "such a label after the first batch",
        "penjing: error: the training labels range from -1 to 3, but the model has 4 outputs, for "
        "classes 0 to 3; fix the labels or the model", provoke=task("label_outside_later")),
    Row(29, "labels that are text",
        "penjing: error: the training labels are text ('red'), but the model has 4 outputs, for "
        "classes 0 to 3; give integers (torch.int64)", provoke=task("labels_of_text")),
    Row(29, "labels with a fraction, where classes are wanted",
        "penjing: error: the training labels are torch.float32 of shape [64], but the model has 4 "
        "outputs, for classes 0 to 3; give integers (torch.int64)",
        provoke=task("labels_of_floats")),
    Row(29, "folders of images whose classes differ, and so their numbers",
        "penjing: error: the training data has a folder of the class 'cat', and the test data has "
        "none, so the two number their classes differently; make an empty folder .../cat",
        provoke=task("folders_of_other_classes")),
    Row(30, "shuffled labels: the model is no better than chance",
        "penjing: error: the model is no better than chance: its accuracy is ...% on 64 validation "
        "samples, and always answering the most common class gives 25.0%; check the labels, the "
        "preprocessing and the checkpoint", provoke=fit("shuffled_labels")),
    Row(31, "training data as validation data",
        "penjing: error: the validation data is training data: 100% of its samples are in both; "
        "give samples that the model wasn't trained on", provoke=fit("trained_on_validation")),
    Row(32, "calibration on the test data",
        "penjing: error: the test data is training data: 100% of its samples are in both; give "
        "samples that the model wasn't trained on", provoke=task("calibrated_on_test", *INT8)),
    Row(33, "a corrupt image",
        "penjing: error: image .../dog/1.png can't be read: ...; replace it or remove it",
        provoke=task("corrupt_image")),
    Row(33, "an image of another size",
        "penjing: error: image .../dog/2.png has (height, width) (9, 8), but .../cat/0.png has (8, "
        "8); pass size=(height, width)", provoke=task("image_of_another_size")),
    Row(33, "a data set that raises an exception",
        "penjing: error: reading the training data raised OSError at batch 3: image 40 is "
        "truncated; repair that sample or leave it out",
        provoke=task("sample_that_cannot_be_read")),
    Row(33, "batches of three values",
        "penjing: error: each batch of the training data must be a pair (inputs, targets); found 3 "
        "values; put several inputs into one tuple or dict", provoke=task("three_things")),
    Row(34, "a last batch of one sample, and batch normalization: left out of training", "", 0,
        test="tests/tasks/test_data.py::test_a_last_batch_of_one_is_left_out_of_training"),
    Row(35, "a DataLoader worker that dies",
        "penjing: error: a DataLoader worker for the training data died at batch ... (...); set "
        "num_workers=0 to see the error", provoke=task("dying_worker")),
    Row(35, "such a worker while test data is read",
        "penjing: error: a DataLoader worker for the test data died at batch 1 (...); set "
        "num_workers=0 to see the error", provoke=fit("dying_loader_of_test_data")),
    Row(36, "a budget below 0, above 100 or NaN",
        "penjing: error: --max-drop must be points between 0 and 100 (1.0 is one percentage "
        "point), an amount in the metric's own unit, or a share of the original's figure such as "
        "'5%'; found nan", provoke=fit("good", "--max-drop", "nan")),
    Row(36, "a budget that is no number",
        "penjing: error: --max-drop must be points between 0 and 100 (1.0 is one percentage "
        "point), an amount in the metric's own unit, or a share of the original's figure such as "
        "'5%'; found little", provoke=fit("good", "--max-drop", "little")),
    Row(36, "a negative time",
        "penjing: error: --seconds must be a positive number; found -1.0",
        provoke=words("bench", "a.onnx", "--seconds", "-1")),
    Row(37, "a budget that the few test samples can't certify: a note before any long work",
        "test samples can't certify", 0,
        test="tests/trials/judgement/test_promise.py::test_the_ledger_says_what_certifies_and_what_to_know_of_it"),
    Row(38, "a metric that is a plain function",
        "penjing: error: the task's metric is a function; wanted penjing.Metric(name, scores), "
        "with a name to print and a function of a batch's outputs and targets that returns one "
        "score for each sample; or penjing.Metric.of(metric) for one of torchmetrics",
        provoke=task("metric_of_a_function")),
    Row(38, "a class in place of a model",
        "penjing: error: the task's model is the class Small; wanted an nn.Module with trained "
        "weights",
        provoke=task("class_as_model")),
    Row(38, "a metric that raises an exception",
        "penjing: error: metric 'mine' raised AxisError: axis 9 is out of bounds for array of "
        "dimension 2; it is called with the outputs and targets of a batch, as NumPy arrays",
        provoke=task("metric_that_raises")),
    Row(38, "a metric that returns None",
        "penjing: error: metric 'mine' returned None; it must return one finite score per sample, "
        "an array of shape (16,)", provoke=task("metric_of_none")),
    Row(38, "a metric that returns one number for the whole batch",
        "penjing: error: metric 'mine' returned shape () for 16 samples; it must return one finite "
        "score per sample, an array of shape (16,)", provoke=task("metric_of_one_number")),
    Row(38, "a loss that raises an exception",
        "penjing: error: the loss raised RuntimeError: ...; pass a loss that fits the task, "
        "loss=...", provoke=fit("loss_that_raises")),
    Row(38, "a metric that doesn't depend on the outputs",
        "penjing: error: the metric gives every sample the score 1, whatever the outputs are, so "
        "it can't tell what a file loses; give a metric that compares outputs with targets, "
        "metric=Metric(name, scores)", provoke=fit("metric_that_looks_at_nothing")),
    Row(38, "accuracy as the metric of a regression",
        "penjing: error: accuracy needs one integer class per sample and at least two outputs; "
        "found targets that are torch.float32 of shape [64] and outputs of shape [64, 4]; pass "
        "another "
        "metric, metric=Metric(name, scores)", provoke=task("accuracy_of_numbers")),
    Row(39, "an unknown device",
        "penjing: error: ...did you mean 'raspberry-pi-5'...",
        provoke=task("good", "--target", "rasberry-pi-5")),
    Row(40, "a runtime that the device doesn't have",
        "penjing: error: target nucleo-h743zi ... onnxruntime; it ... litert...",
        provoke=task("good", "--runtime", "onnxruntime", "--target", "nucleo-h743zi")),
    Row(41, "an operator set that is too new for the runtime",
        "penjing: error: .../new.onnx: ONNX Runtime can't load this file: ...",
        provoke=file("new.onnx", model(opset=999))),
    Row(42, "a network that doesn't fit into flash or memory",
        "of flash (an estimate before lowering), but target nucleo-h743zi has 256 kB; make the "
        "network smaller or choose a target with more flash",
        test="tests/test_targets.py::test_what_does_not_fit_is_refused_before_lowering_and_after"),
    Row(43, "int8 without calibration data",
        "penjing: error: the calibration data has 1 sample(s); give at least 2 (about 500 are "
        "usual)", provoke=task("one_sample", *INT8)),
    Row(44, "a file that declares a free size, but works only for one",
        "penjing: error: .../fixed.onnx fails on random inputs of shape [1, 3]: ...",
        provoke=file("fixed.onnx", for_two_samples())),
    Row(45, "a package that isn't installed",
        "penjing: error: ...needs no-such-package...pip install 'penjing[none]'...",
        provoke=absent_package),
    Row(46, "a package version with a known vulnerability (onnx < 1.21, torch < 2.10): pip "
        "installs a newer one", "", 0,
        test="tests/test_bad_inputs.py::test_versions_with_known_weaknesses_are_kept_out"),
    Row(47, "a folder that can't be written",
        "penjing: error: folder /proc/penjing can't be written: ...; choose another with --out",
        4, words("export", "tests.bad_tasks:good", "--out", "/proc/penjing")),
    Row(48, "a folder that already holds a result",
        "penjing: error: --out ... already holds a result; replace it with --overwrite, or "
        "continue it with --resume", provoke=earlier_result),
    Row(49, "a full disk", "penjing: error: folder .../out can't be written: No space left on "
        "device; choose another with --out", 4,
        failing(os, "fsync", errno.ENOSPC, task("good"))),
    Row(50, "a file name that is too long", "penjing: error: ...File name too long...", 4,
        words("export", "tests.bad_tasks:good", "--out", "FOLDER/" + 300 * "x")),
    Row(51, "a read-only file system",
        "penjing: error: folder ... can't be written: Read-only file system; choose another with "
        "--out", 4, failing(Path, "mkdir", errno.EROFS, task("good"))),
    Row(52, "a ledger on NFS", absent="the ledger is one SQLite file, which isn't tested on NFS"),
    Row(53, "two fits in the same folder at once", "in use by process", 4,
        test=f"{FOLDER}::test_a_second_fit_in_the_same_folder_is_told_who_holds_it"),
    Row(54, "a stale lock of a dead process: ignored", "", 0,
        test=f"{FOLDER}::test_a_lock_that_a_dead_process_left_holds_nothing"),
    Row(55, "resuming with another model, other data, options or versions: all changes are listed",
        "was started, these have changed: ...; use the same",
        test=f"{FOLDER}::test_all_that_changed_is_listed"),
    Row(56, "a corrupt checkpoint: the network is trained again, with a note",
        "a network is trained again, because the one that an earlier run saved is damaged", 0,
        test=f"{FOLDER}::test_a_trained_network_that_is_damaged_is_made_again"),
    Row(57, "a result of a newer version of penjing", "this penjing reads ...: upgrade it",
        test=f"{FOLDER}::test_a_result_of_a_newer_penjing_is_refused"),
    Row(58, "a truncated record", "penjing: error: .../export.json is not valid JSON: ...", 3,
        record(b'{"file": "model.onnx", "sha')),
    Row(59, "out of memory",
        "penjing: error: out of memory: ...; take smaller batches, or a larger machine", 4,
        no_memory),
    Row(60, "Ctrl-C or SIGTERM", "--resume continues", 130,
        test="tests/search/test_interrupted_fit.py::test_a_terminated_fit_ends_as_an_interrupted_one"),
    Row(61, "a clock that goes backwards: durations use the monotonic clock", "", 0,
        test="tests/test_bad_inputs.py::test_durations_are_of_the_monotonic_clock"),
    Row(62, "all trials failed: the original is the answer", "no candidate was finished", 0,
        test="tests/trials/judgement/test_choice.py::test_choose"),
    Row(63, "a file that is truncated at any byte",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: good[:40])),
    Row(64, "a file with one flipped bit",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: bytes([good[0] ^ 1]) + good[1:])),
    Row(65, "a renamed zip archive",
        "penjing: error: .../weights.onnx: ONNX Runtime can't load this file: it isn't an ONNX "
        "model, or it is incomplete",
        provoke=file("weights.onnx", archive())),
    Row(66, "a newer version of the file format",
        "penjing: error: .../newer.onnx: ONNX Runtime can't load this file: ...",
        provoke=file("newer.onnx", model(version=999))),
    Row(67, "a signature by an unknown or revoked key", absent=NO_PACKAGES),
    Row(68, "an older version that is replayed", absent=NO_PACKAGES),
    Row(69, "a package for another device", absent=NO_PACKAGES),
    Row(70, "a delta for another base", absent=NO_PACKAGES),
    Row(71, "a declared size of 2^63, 0, or less than the data", absent=NO_PACKAGES),
    Row(72, "decoder output beyond the declared size", absent=NO_PACKAGES),
    Row(73, "trailing bytes after the end of a file",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: good + b"\0")),
    Row(74, "missing or damaged tensors in a saved network", "is damaged", 3,
        test="tests/network/test_save.py::test_damaged_and_missing_files_are_refused"),
    Row(75, "file names that leave the folder, or that a shell would interpret: plain names", "", 0,
        test=f"{SSH}::test_hostile_names_are_only_names"),
    Row(76, "a Huffman table that is incomplete or has a cycle", absent=NO_PACKAGES),
    Row(77, "an index outside a codebook", absent=NO_PACKAGES),
    Row(78, "a record that isn't UTF-8", "penjing: error: .../export.json is not valid JSON: ...",
        3, record(b'{"file": "\xff"}')),
    Row(79, "a pickle in a `.pt` file: penjing opens no such files",
        "penjing: error: no task '.../weights.pt'; wanted 'digits', a file such as mytask.py, or "
        "package.module:name", provoke=file("weights.pt", archive(), "profile")),
    Row(80, "a deflate bomb in a `.pt` file", absent="penjing opens no `.pt` files, see 79"),
    Row(81, "a sparse tensor with false indices",
        absent="penjing opens no `.pt` files, see 79; see also 15"),
    Row(82, "arrays of Python objects in an `.npz` file",
        "penjing: error: .../data.npz can't be read as .npz: Object arrays cannot be loaded when "
        "allow_pickle=False", provoke=task("object_arrays")),
    Row(83, "an ONNX file whose weights are in other files",
        "penjing: error: .../outside.onnx: some of its weights are in other files, which penjing "
        "doesn't open; refused. ...", 3, file("outside.onnx", external())),
    Row(84, "an ONNX file with a missing input or a cycle",
        "penjing: error: .../cycle.onnx: ONNX Runtime can't load this file: ...; refused",
        3, file("cycle.onnx", model(
            helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])))),
    Row(85, "an unknown host, or a changed host key", "its host key has changed; refused", 5,
        test=f"{SSH}::test_a_host_key_that_is_unknown_or_has_changed_is_refused"),
    Row(85, "a device that refuses the key", "it refused the key", 5,
        test=f"{SSH}::test_a_device_that_is_not_there_or_refuses_the_key"),
    Row(86, "a connection that drops: penjing tries again, a limited number of times", "", 0,
        test=f"{FAULTS}::test_twenty_cut_connections_leave_nothing_and_lose_nothing"),
    Row(87, "a device without Python", "install Python 3.9", 5,
        test=f"{SSH}::test_a_device_without_python_or_with_an_old_one"),
    Row(87, "a device without the runtime", "onnxruntime isn't usable: no onnxruntime; install it",
        5, test=f"{FAULTS}::test_a_runtime_that_hangs_dies_or_lacks"),
    Row(88, "another version of the runtime on the device: printed beside each figure", "", 0,
        test=f"{SSH}::test_figures_and_outputs_of_the_device_are_those_of_here"),
    Row(89, "a device that was restarted, or whose job was killed",
        "died on the device: its guard was killed", 5,
        test=f"{FAULTS}::test_a_guard_that_is_killed_takes_its_job_along"),
    Row(90, "a device that is busy or throttles: its figures are marked `disturbed`",
        "disturbed", 0,
        test="tests/measure/test_measure.py::test_comparing_comes_to_an_end_on_a_disturbed_machine"),
    Row(91, "a result that is malformed or of another job", "the result is malformed", 5,
        test=f"{SSH}::test_a_stale_or_malformed_result_is_refused"),
    Row(92, "a process that was killed because memory ran out",
        "ended by SIGKILL; the device's memory may have run out", 5,
        test=f"{FAULTS}::test_a_runtime_that_hangs_dies_or_lacks"),
    Row(93, "two jobs on a device at once",
        "the device is in use by ann@desk since 10:00, until 10:05 at the latest; wait", 5,
        test=f"{FAULTS}::test_the_lease_says_who_has_the_device"),
    Row(94, "an accelerator that leaves operators to the CPU: they are listed",
        "doesn't support it", 0,
        test="tests/runtimes/onnx/test_onnx_providers.py::test_what_falls_back_is_named"),
    Row(95, "a clock that is too coarse for the model",
        absent="each timing window has many inferences; the clock's resolution isn't checked"),
    Row(96, "a CPU governor or temperature that can't be read: `unknown`",
        "CPU governor: unknown", 0,
        test="tests/test_bad_inputs.py::test_what_a_device_does_not_tell_is_unknown"),
    # Not among the 96, but similar.
    Row(36, "a file of budgets that doesn't exist",
        "penjing: error: no file .../penjing.toml; name the file of budgets, or write one called "
        "penjing.toml", provoke=words("check", "FOLDER/penjing.toml")),
    Row(36, "a file of budgets that isn't TOML",
        "penjing: error: .../penjing.toml is not valid TOML: ... (at line 2, column ...); correct "
        "it there", provoke=budgets("[[file]]\npath model.onnx")),
    Row(36, "an unknown key in a file of budgets",
        "penjing: error: .../penjing.toml, file model.onnx: unknown key max_bk; did you mean "
        "max_kb?", provoke=budgets(f"{CHECKED}max_bk = 200")),
    Row(36, "a limit of the wrong kind",
        "penjing: error: .../penjing.toml, file model.onnx: max_kb must be a number above 0; found "
        '"200 kB"', provoke=budgets(f'{CHECKED}max_kb = "200 kB"')),
    Row(36, "a file of budgets without a rule for a file",
        "penjing: error: .../penjing.toml, file model.onnx has no rule; add one of max_kb, ...",
        provoke=budgets(CHECKED)),
    Row(36, "a rule about time without a reference",
        "penjing: error: .../penjing.toml, file model.onnx: max_time_ratio needs a reference, "
        'which the file is compared with; write reference = "original.onnx"',
        provoke=budgets(f"{CHECKED}max_time_ratio = 1.0")),
    Row(36, "rules that contradict each other",
        "penjing: error: .../penjing.toml, file model.onnx has both min_score and max_score; keep "
        "min_score if a higher figure of the metric is better, else max_score",
        provoke=budgets(f"{OF_GOOD}{CHECKED}min_score = 0.9\nmax_score = 0.95")),
    Row(36, "a file to check that doesn't exist",
        "penjing: error: .../penjing.toml, file absent.onnx: path is absent.onnx, but there "
        "is no file .../absent.onnx; paths are relative to the file of budgets",
        provoke=budgets(f"{CHECKED}max_kb = 1\n[[file]]\npath = 'absent.onnx'\nmax_kb = 1")),
    Row(36, "a file to check that doesn't take the task's inputs",
        "penjing: error: .../penjing.toml, file model.onnx: model.onnx fails on test data of "
        "shape [16, 3, 8, 8]: ...; name a file that takes the task's batches",
        provoke=budgets(f"{OF_GOOD}{CHECKED}min_score = 0.9")),
    Row(36, "a report of a check in a folder that doesn't exist",
        "penjing: error: --junit must be a file in a folder that exists; there is no folder "
        "/absent; name another",
        provoke=budgets(f"{CHECKED}max_kb = 1", "--junit", "/absent/check.xml")),
    Row(36, "a file to check that is a reference to itself",
        "penjing: error: .../penjing.toml, file model.onnx: reference is the file itself, so "
        "max_time_ratio would always hold; name another file",
        provoke=budgets(f"reference = 'model.onnx'\n{CHECKED}max_time_ratio = 1.0")),
    Row(37, "a rule of a check that the few test samples can't certify",
        "test samples can't certify ... not even for a", 2,
        test="tests/tools/check/test_check.py::"
        "test_what_cannot_be_judged_is_told_before_any_long_work"),
    Row(18, "a task to begin from of an unknown kind",
        "penjing: error: there is no kind 'video'; kinds are detection, segmentation, audio, text, "
        "regression, anomaly, images", provoke=words("init", "video", "FOLDER/mytask.py")),
    Row(18, "a task to begin from in a file that exists",
        "penjing: error: .../mytask.py exists already, and stays as it is; name another file",
        provoke=beginning_again),
    Row(18, "a task to begin from that isn't a Python file",
        "penjing: error: a task is a Python file, such as mytask.py; found '.../mytask.txt'",
        provoke=words("init", "text", "FOLDER/mytask.txt")),
    Row(18, "a task to begin from in a folder that doesn't exist",
        "penjing: error: there is no folder .../absent; make it, or name another file",
        provoke=words("init", "text", "FOLDER/absent/mytask.py")),
    Row(18, "a task file that calls `sys.exit`",
        "penjing: error: .../mytask.py raised SystemExit at mytask.py:2: 0", provoke=leaving),
    Row(31, "validation or test data that is shuffled",
        "penjing: error: the validation data gives different samples on each pass; turn off "
        "shuffling (shuffle=False) and augmentation", provoke=fit("shuffled_validation")),
    Row(23, "a generator as data",
        "penjing: error: the training data is a generator, which can be read only once; give a "
        "list of batches or a DataLoader", provoke=task("generator")),
]  # fmt: skip


def page() -> str:
    """The table as `docs/bad_inputs.md`."""
    numbers = {row.number for row in ROWS}
    absent = {row.number for row in ROWS if row.absent}
    here = {row.number for row in ROWS if row.provoke}
    lines = [
        "# Bad inputs, and what penjing says about them",
        "",
        "This page lists what can be wrong with a model, its data, a target, a folder, a file or a "
        "device, and the line that penjing prints. Problems are found before any long work "
        "wherever that is possible. The exit code says what kind of problem it is:",
        "",
        "| exit code | meaning |", "|---|---|",
        "| 0 | the input is accepted, perhaps with a note |",
        "| 2 | something is wrong with your input |",
        "| 3 | the file is refused because using it is unsafe |",
        "| 4 | something is wrong with this machine |",
        "| 5 | something is wrong with the remote device |",
        "| 130 | the command was interrupted |",
        "",
        "In the messages, `...` stands for text that differs between machines or runs.",
        "",
        f"The tests check this page. Of its {len(numbers)} kinds of input, "
        f"`tests/test_bad_inputs.py` provokes {len(here)} on the command line. "
        f"{len(numbers - here - absent)} are provoked by the tests that are named beside them. "
        f"Nothing provokes the other {len(absent - here)}, and the table says why. "
        "`python -m tests.bad_inputs --write` writes this page from the table that the tests use.",
    ]  # fmt: skip
    for row in sorted(ROWS, key=lambda row: row.number):
        if row.number in GROUPS and GROUPS[row.number] not in lines[-1]:
            heading = f"## {GROUPS[row.number]}"
            if heading not in lines:
                lines += ["", heading, "", "| | the input | exit code | what penjing prints |",
                          "|---|---|---|---|"]  # fmt: skip
        lines.append(f"| {row.number} | {row.what} | {_code(row)} | {_said(row)} |")
    return "\n".join(lines) + "\n"


def _code(row: Row) -> str:
    return "" if row.absent else str(row.code)


def _said(row: Row) -> str:
    if row.absent:
        return f"not provoked: {row.absent}"
    line = f"`{row.line}`" if row.line else ""
    return f"{line} (`{row.test}`)".strip() if row.test else line


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    else:
        print(page(), end="")
