"""The 96 bad inputs that are known, and the line that penjing prints for each.

`python -m tests.bad_inputs --write` writes `docs/bad_inputs.md` from this table. The tests provoke
each row on the command line, and hold what is printed against its line; where another test does,
its name is here.
"""

from __future__ import annotations

import errno
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

from penjing.runtimes import registry
from penjing.trials.result import Result
from tests.fits import trial

PAGE = Path(__file__).parent.parent / "docs" / "bad_inputs.md"
Provoke = Callable[[Path, pytest.MonkeyPatch], list[str]]
"""Makes what is needed in a folder of its own, and gives the arguments of the command line."""


@dataclass(frozen=True)
class Row:
    """One bad input.

    Attributes:
        number: from 1 to 96; several rows may share one.
        what: is wrong.
        line: what is printed; `...` stands for what differs from one machine or run to the next.
        code: the exit code.
        provoke: how to; None where another test does it, or nothing.
        test: `file::name` of the test that does it, whose text has the line.
        absent: why there is nothing to test yet.
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
    """Arguments as they are."""
    return lambda folder, _: [one.replace("FOLDER", str(folder)) for one in arguments]


def file(name: str, content: bytes | onnx.ModelProto, command: str = "bench") -> Provoke:
    """Give a file to `bench`."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        data = content if isinstance(content, bytes) else content.SerializeToString()
        (folder / name).write_bytes(data)
        return [command, str(folder / name)]

    return provoke


def model(
    *nodes: onnx.NodeProto, opset: int = 20, version: int = 10, batch: int | str = 1
) -> onnx.ModelProto:
    """A model of one input and one output."""
    value = helper.make_tensor_value_info
    shape = [batch, 3]
    graph = helper.make_graph(
        [*nodes] or [helper.make_node("Relu", ["x"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, shape)], [value("y", TensorProto.FLOAT, shape)],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", opset)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=version)


def for_two_samples() -> onnx.ModelProto:
    """A model whose batch is free for all that it says, and is two."""
    shape = helper.make_tensor("", TensorProto.INT64, [2], [2, 3])
    constant = helper.make_node("Constant", [], ["s"], value=shape)
    return model(constant, helper.make_node("Reshape", ["x", "s"], ["y"]), batch="n")


def external() -> onnx.ModelProto:
    """A model whose weights lie in a file outside of its folder."""
    made = model(helper.make_node("Add", ["x", "w"], ["y"]))
    weight = made.graph.initializer.add(name="w", data_type=TensorProto.FLOAT, dims=[1, 3])
    weight.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "../../etc/passwd"), ("offset", "0"), ("length", "12")):
        weight.external_data.add(key=key, value=value)
    return made


def archive() -> bytes:
    """A zip archive, as `.pt` files are."""
    import io

    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as opened:
        opened.writestr("archive/data.pkl", b"\x80\x02.")
    return content.getvalue()


def changed(how: Callable[[bytes], bytes]) -> Provoke:
    """Verify a file whose bytes aren't those that its record tells of."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        good = model().SerializeToString()
        (folder / "model.onnx").write_bytes(how(good))
        (folder / "export.json").write_text(
            f'{{"file": "model.onnx", "sha256": "{"0" * 64}", "runtime": "onnxruntime"}}'
        )
        return ["verify", str(folder / "model.onnx"), "--task", "tests.bad_tasks:good"]

    return provoke


def record(content: bytes) -> Provoke:
    """Verify a file with that record."""

    def provoke(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
        (folder / "model.onnx").write_bytes(model().SerializeToString())
        (folder / "export.json").write_bytes(content)
        return ["verify", str(folder / "model.onnx"), "--task", "tests.bad_tasks:good"]

    return provoke


def failing(where: Any, name: str, number: int, provoke: Provoke) -> Provoke:
    """Provoke while a function of the operating system fails so."""

    def fails(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    def both(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        monkeypatch.setattr(where, name, fails)
        return provoke(folder, monkeypatch)

    return both


def earlier_result(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
    """Fit into a folder that holds a result."""
    baseline = trial("original", (), "baseline")
    Result("other", "cpu", "m", "latency", 1.0, 0.95, 0, {}, baseline).save(folder)
    return ["fit", "tests.bad_tasks:good", "--out", str(folder)]


def absent_package(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Export for a runtime that isn't installed."""
    entry = registry.Entry(
        "nowhere:Nothing", ".none", ("no-such-package",), "pip install 'penjing[none]'", "nothing"
    )
    monkeypatch.setitem(registry.ENTRIES, "none", entry)
    return ["export", "tests.bad_tasks:good", "--runtime", "none", "--out", str(folder / "out")]


def no_memory(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Export where the network's copy doesn't fit."""

    def capture(*_: Any, **__: Any) -> None:
        torch.empty(2**60)

    monkeypatch.setattr("penjing.tools.export.capture", capture)
    return task("good")(folder, monkeypatch)


def leaving(folder: Path, _: pytest.MonkeyPatch) -> list[str]:
    """Profile a task file that leaves the program."""
    (folder / "mytask.py").write_text("import sys\nsys.exit(0)\n")
    return ["profile", str(folder / "mytask.py")]


NO_PACKAGES = "penjing makes no packages yet: no signature, no delta and no coder of its own"
MODEL, DATA, TARGET, DISK, HOSTILE, REMOTE = (
    "A. Model", "B. Data and budget", "C. Target", "D. Job, disk, process",
    "E. Package, hostile files", "F. Remote",
)  # fmt: skip
GROUPS = {1: MODEL, 23: DATA, 39: TARGET, 47: DISK, 63: HOSTILE, 85: REMOTE}
"""By the number of its first row."""
INT8 = ("--precision", "int8")
SSH, FAULTS = "tests/device/test_ssh.py", "tests/device/test_ssh_faults.py"
FOLDER = "tests/search/test_folder.py"
ROWS = [
    Row(1, "NaN weight",
        "penjing: error: weight conv.weight has NaN or infinite values (1 of 216); repair the "
        "checkpoint", provoke=task("nan_weight")),
    Row(2, "infinite weight",
        "penjing: error: weight head.bias has NaN or infinite values (1 of 4); repair the "
        "checkpoint", provoke=task("infinite_weight")),
    Row(3, "negative variance of a batch norm",
        "penjing: error: weight norm.running_var holds a negative variance; repair the checkpoint",
        provoke=task("negative_variance")),
    Row(4, "model in training mode: evaluation mode is taken, and said",
        "note: the model came in training mode; it is taken in evaluation mode", 0,
        task("training_mode")),
    Row(5, "no parameters", "penjing: error: Bare has no parameters; there is nothing to compress",
        provoke=task("no_parameters")),
    Row(6, "all weights zero or constant",
        "penjing: error: all weights of Small are constant (conv.weight is one number throughout); "
        "load the checkpoint", provoke=task("zero_weights")),
    Row(7, "tied weights: taken as they are", "decisions: 100.00% the same...", 0,
        task("tied_weights")),
    Row(8, "weights that aren't contiguous: taken as they are", "decisions: 100.00% the same...",
        0, task("non_contiguous_weights")),
    Row(9, "control flow that depends on the data",
        "penjing: error: Branching can't be captured at bad_tasks.py:...: its control flow depends "
        "on the data; use torch.where or torch.cond", provoke=task("control_flow")),
    Row(10, "an operator that the format lacks",
        "penjing: error: the ONNX exporter can't take this network: it has no form of the operator "
        "prims.bessel_j0; write that in other operators, or take another runtime (penjing "
        "runtimes)", provoke=task("unknown_operator")),
    Row(11, "forward wants more than the example gives",
        "penjing: error: the model can't run its example inputs: TwoInputs.forward() missing 1 "
        "required positional argument: 'scale'", provoke=task("several_inputs")),
    Row(12, "no tensor comes out (a tuple or dict of them is taken)",
        "penjing: error: the model returns NoneType; wanted tensors", provoke=task("no_output")),
    Row(13, "the output depends on a random number",
        "penjing: error: the model gives other outputs for the same inputs: something draws at "
        "random in evaluation mode too; take that out", provoke=task("random_output")),
    Row(14, "float64 weights",
        "penjing: error: weight conv.weight is torch.float64; wanted float32: model.float(), with "
        "an example of float32", provoke=task("double_weights")),
    Row(14, "half-precision weights",
        "penjing: error: weight conv.weight is torch.float16; wanted float32: model.float(), with "
        "an example of float32", provoke=task("half_weights")),
    Row(15, "sparse tensor among the weights",
        "penjing: error: weight mask is a torch.sparse_coo tensor; convert it to dense float32 "
        "with to_dense()", provoke=task("sparse_buffer")),
    Row(16, "keys missing in a state dict",
        "penjing: error: tests.bad_tasks:missing_keys raised RuntimeError at bad_tasks.py:...: "
        "Error(s) in loading state_dict for Small: Missing key(s) in state_dict: "
        '"head.weight"....', provoke=task("missing_keys")),
    Row(17, "another shape in one key",
        "penjing: error: tests.bad_tasks:wrong_shape raised RuntimeError at bad_tasks.py:...: "
        "Error(s) in loading state_dict for Small: size mismatch for head.weight: ...",
        provoke=task("wrong_shape")),
    Row(18, "a module that can't be imported",
        "penjing: error: nowhere.models:task needs the module 'nowhere', which isn't installed",
        provoke=words("profile", "nowhere.models:task")),
    Row(19, "model within a wrapper",
        "penjing: error: the model is wrapped in DataParallel; give model.module",
        provoke=task("data_parallel")),
    Row(20, "weights on the meta device",
        "penjing: error: weight conv.weight is on the meta device; load the weights first",
        provoke=task("meta_weights")),
    Row(21, "pruned by masks before: taken as it is", "decisions: 100.00% the same...", 0,
        task("pruned_before")),
    Row(21, "quantized before",
        "penjing: error: weight codes is a quantized tensor; convert it to dense float32 with "
        "dequantize()", provoke=task("quantized_before")),
    Row(22, "beyond the 2 GiB of one ONNX file", "bytes of weights exceed the ... of one ONNX file",
        test="tests/test_bad_inputs.py::test_weights_beyond_one_file_are_refused"),
    Row(23, "empty data set",
        "penjing: error: the training data is empty; give at least one batch",
        provoke=task("empty_data")),
    Row(24, "one sample",
        "penjing: error: the training data has 1 sample(s), too few to set some aside for "
        "validation; give more, or validation data", provoke=fit("one_sample")),
    Row(25, "NHWC for NCHW",
        "penjing: error: the training data has samples of shape (8, 8, 3), the example has "
        "(3, 8, 8); these are NHWC; permute(0, 3, 1, 2) makes them NCHW",
        provoke=task("channels_last")),
    Row(26, "uint8 where float is expected",
        "penjing: error: the training data is uint8; divide by 255 and normalise",
        provoke=task("bytes_as_they_are")),
    Row(26, "0..255 beside an example of 0..1",
        "penjing: error: the validation data goes up to 255, the example to ...; prepare both as "
        "for training (divide by 255, normalise)", provoke=task("range_of_bytes")),
    Row(27, "NaN in the data",
        "penjing: error: the training data holds NaN or infinite values in its first batch; remove "
        "them", provoke=task("nan_in_data")),
    Row(27, "NaN in a later batch",
        "penjing: error: the training data holds NaN or infinite values in batch 4; remove them",
        provoke=task("nan_in_a_later_batch")),
    Row(28, "a class missing in a split: said",
        "note: the test data has no sample of 1 of the training data's classes (3); what is lost "
        "there isn't seen", 0, task("class_missing")),
    Row(29, "label outside the number of outputs",
        "penjing: error: the training labels run from 0 to 9, but the model has 4 outputs (0..3); "
        "fix the labels or the model", provoke=task("label_outside")),
    Row(29, "such a label after the first batch",
        "penjing: error: the training labels run from -1 to 3, but the model has 4 outputs (0..3); "
        "fix the labels or the model", provoke=task("label_outside_later")),
    Row(30, "labels shuffled: no better than chance",
        "penjing: error: the model's accuracy is at chance: ...% on 64 validation samples, and "
        "always answering the commonest class gives 25.0%; check the labels, the preprocessing and "
        "the checkpoint", provoke=fit("shuffled_labels")),
    Row(31, "training data given as validation data",
        "penjing: error: the validation data is training data: 100% of its samples are in both; "
        "give samples that weren't learned from", provoke=fit("trained_on_validation")),
    Row(32, "calibrated on the test data",
        "penjing: error: the test data is training data: 100% of its samples are in both; give "
        "samples that weren't learned from", provoke=task("calibrated_on_test", *INT8)),
    Row(33, "corrupt image in the middle",
        "penjing: error: image .../dog/1.png can't be read: ...; remove it",
        provoke=task("corrupt_image")),
    Row(33, "a data set that raises in the middle",
        "penjing: error: the training data raised OSError at batch 3: image 40 is truncated; "
        "repair it or leave it out", provoke=task("sample_that_cannot_be_read")),
    Row(33, "three things a batch",
        "penjing: error: the training data gives 3 things a batch; wanted (inputs, targets): put "
        "several inputs in a tuple or dict of their own", provoke=task("three_things")),
    Row(34, "a last batch of one, with a batch norm: left out of training", "", 0,
        test="tests/tasks/test_data.py::test_a_last_batch_of_one_is_left_out_of_training"),
    Row(35, "a loader's worker dies",
        "penjing: error: a worker of the training data died at batch ... (...); num_workers=0 "
        "shows why", provoke=task("dying_worker")),
    Row(36, "budget below 0, above 100 or NaN",
        "penjing: error: --max-drop must be points between 0 and 100 (1.0 is one percentage "
        "point); found nan", provoke=fit("good", "--max-drop", "nan")),
    Row(36, "budget with a percent sign",
        "penjing: error: Invalid value for '--max-drop': ... (penjing --help)",
        provoke=fit("good", "--max-drop", "1%")),
    Row(36, "a time that is none",
        "penjing: error: --seconds must be a positive number; found -1.0",
        provoke=words("bench", "a.onnx", "--seconds", "-1")),
    Row(37, "a budget that so few samples can't certify: said before anything long",
        "test samples can't certify", 0,
        test="tests/trials/judgement/test_promise.py::test_the_ledger_says_what_certifies_and_what_to_know_of_it"),
    Row(38, "the metric raises",
        "penjing: error: metric 'mine' raised AxisError: axis 9 is out of bounds for array of "
        "dimension 2", provoke=task("metric_that_raises")),
    Row(38, "the metric gives None",
        "penjing: error: metric 'mine' gave None; wanted one finite score per sample, shape (16,)",
        provoke=task("metric_of_none")),
    Row(38, "the metric gives one number for all",
        "penjing: error: metric 'mine' gave shape () for 16 samples; wanted one finite score per "
        "sample, shape (16,)", provoke=task("metric_of_one_number")),
    Row(38, "the loss raises",
        "penjing: error: the loss raised RuntimeError: ...; give loss=...",
        provoke=fit("loss_that_raises")),
    Row(38, "the accuracy of what are no classes",
        "penjing: error: the accuracy is of classes, one whole number a sample and two outputs or "
        "more; found targets of torch.float32 [64] and outputs of [64, 4]; give "
        "metric=Metric(name, scores)", provoke=task("accuracy_of_numbers")),
    Row(39, "unknown device",
        "penjing: error: ...did you mean 'raspberry-pi-5'...",
        provoke=task("good", "--target", "rasberry-pi-5")),
    Row(40, "a runtime that the device lacks",
        "penjing: error: target nucleo-h743zi has no onnxruntime; it has litert",
        provoke=task("good", "--runtime", "onnxruntime", "--target", "nucleo-h743zi")),
    Row(41, "operator set too new for the runtime",
        "penjing: error: .../new.onnx: ONNX Runtime can't load this file: ...",
        provoke=file("new.onnx", model(opset=999))),
    Row(42, "can't fit into flash or memory (both numbers)",
        "of flash (an estimate before lowering), the target nucleo-h743zi has 256 kB; make the "
        "network smaller or choose a target with more flash",
        test="tests/test_targets.py::test_what_does_not_fit_is_refused_before_lowering_and_after"),
    Row(43, "int8 without data to calibrate by",
        "penjing: error: the calibration data has 1 sample(s); give 2 or more, 500 or so as a rule",
        provoke=task("one_sample", *INT8)),
    Row(44, "a size that is free where it must be known",
        "penjing: error: .../fixed.onnx can't run on random inputs of [1, 3]: ...",
        provoke=file("fixed.onnx", for_two_samples())),
    Row(45, "a package that isn't installed",
        "penjing: error: ...needs no-such-package...pip install 'penjing[none]'...",
        provoke=absent_package),
    Row(46, "a version with a known weakness (onnx < 1.21, torch < 2.10): pip installs none", "",
        0, test="tests/test_bad_inputs.py::test_versions_with_known_weaknesses_are_kept_out"),
    Row(47, "folder that can't be written",
        "penjing: error: folder /proc/penjing can't be written: ...; choose another with --out",
        4, words("export", "tests.bad_tasks:good", "--out", "/proc/penjing")),
    Row(48, "the result exists", "penjing: error: --out ... exists and is not empty; ...",
        provoke=earlier_result),
    Row(49, "full disk", "penjing: error: folder .../out can't be written: No space left on "
        "device; choose another with --out", 4,
        failing(os, "fsync", errno.ENOSPC, task("good"))),
    Row(50, "a name that is too long", "penjing: error: ...File name too long...", 4,
        words("export", "tests.bad_tasks:good", "--out", "FOLDER/" + 300 * "x")),
    Row(51, "read-only file system",
        "penjing: error: folder ... can't be written: Read-only file system; choose another with "
        "--out", 4, failing(Path, "mkdir", errno.EROFS, task("good"))),
    Row(52, "ledger on NFS", absent="there is no database: each file is replaced whole"),
    Row(53, "the same job twice", "taken by process", 4,
        test=f"{FOLDER}::test_a_second_fit_in_the_same_folder_is_told_who_holds_it"),
    Row(54, "stale lock of a dead process: holds nothing", "", 0,
        test=f"{FOLDER}::test_a_lock_that_a_dead_process_left_holds_nothing"),
    Row(55, "resumed with another model, other data, options or versions: all that changed is told",
        "was begun with ...; take the same", test=f"{FOLDER}::test_all_that_changed_is_listed"),
    Row(56, "corrupt checkpoint: made again, and said",
        "a network is trained anew, for what an earlier run left is bad", 0,
        test=f"{FOLDER}::test_a_trained_network_that_is_damaged_is_made_again"),
    Row(57, "a result of a newer version", "this penjing reads 3: upgrade it",
        test=f"{FOLDER}::test_a_result_of_a_newer_penjing_is_refused"),
    Row(58, "truncated record", "penjing: error: .../export.json is not valid JSON: ...", 3,
        record(b'{"file": "model.onnx", "sha')),
    Row(59, "out of memory",
        "penjing: error: out of memory: ...; take smaller batches, or a larger machine", 4,
        no_memory),
    Row(60, "Ctrl-C and SIGTERM", "--resume goes on", 130,
        test="tests/search/test_interrupted_fit.py::test_a_terminated_fit_ends_as_an_interrupted_one"),
    Row(61, "clock goes backwards: durations are of the monotonic clock", "", 0,
        test="tests/test_bad_inputs.py::test_durations_are_of_the_monotonic_clock"),
    Row(62, "all trials failed: the original is the answer", "no candidate was finished", 0,
        test="tests/trials/judgement/test_choice.py::test_choose"),
    Row(63, "truncated at any byte",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: good[:40])),
    Row(64, "one bit flipped",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: bytes([good[0] ^ 1]) + good[1:])),
    Row(65, "a zip archive renamed",
        "penjing: error: .../weights.onnx: ONNX Runtime can't load this file: it is no ONNX model, "
        "or a part of one",
        provoke=file("weights.onnx", archive())),
    Row(66, "newer version of the format",
        "penjing: error: .../newer.onnx: ONNX Runtime can't load this file: ...",
        provoke=file("newer.onnx", model(version=999))),
    Row(67, "signature by an unknown or revoked key", absent=NO_PACKAGES),
    Row(68, "older version replayed", absent=NO_PACKAGES),
    Row(69, "for another device", absent=NO_PACKAGES),
    Row(70, "delta for another base", absent=NO_PACKAGES),
    Row(71, "declared size of 2^63, 0, or less than the data", absent=NO_PACKAGES),
    Row(72, "decoder output beyond the declared size", absent=NO_PACKAGES),
    Row(73, "trailing bytes behind the end",
        "penjing: error: .../model.onnx has changed: sha256 ..., wanted 000000000000; make it "
        "again", 3, changed(lambda good: good + b"\0")),
    Row(74, "tensors missing from a saved network, or damaged", "is damaged", 3,
        test="tests/network/test_save.py::test_damaged_and_missing_files_are_refused"),
    Row(75, "names that leave the folder, or mean something to a shell: only names", "", 0,
        test=f"{SSH}::test_hostile_names_are_only_names"),
    Row(76, "Huffman table incomplete or with a cycle", absent=NO_PACKAGES),
    Row(77, "index outside a codebook", absent=NO_PACKAGES),
    Row(78, "a record that isn't UTF-8", "penjing: error: .../export.json is not valid JSON: ...",
        3, record(b'{"file": "\xff"}')),
    Row(79, "pickle in a `.pt`: penjing opens none",
        "penjing: error: no task '.../weights.pt'; wanted 'digits', a file such as mytask.py, or "
        "package.module:name", provoke=file("weights.pt", archive(), "profile")),
    Row(80, "deflate bomb in a `.pt`", absent="no `.pt` is opened, see 79"),
    Row(81, "sparse tensor with false indices", absent="no `.pt` is opened, see 79; see also 15"),
    Row(82, "arrays of objects in an `.npz`",
        "penjing: error: .../data.npz can't be read as .npz: Object arrays cannot be loaded when "
        "allow_pickle=False", provoke=task("object_arrays")),
    Row(83, "ONNX with weights outside of the file",
        "penjing: error: .../outside.onnx: some of its weights lie in other files; refused: ...",
        3, file("outside.onnx", external())),
    Row(84, "ONNX with a missing input or a cycle",
        "penjing: error: .../cycle.onnx: ONNX Runtime can't load this file: ...; refused",
        3, file("cycle.onnx", model(
            helper.make_node("Add", ["x", "y"], ["z"]), helper.make_node("Relu", ["z"], ["y"])))),
    Row(85, "host unknown, or its key has changed", "its host key has changed; refused", 5,
        test=f"{SSH}::test_a_host_key_that_is_unknown_or_has_changed_is_refused"),
    Row(85, "the key is refused", "it refused the key", 5,
        test=f"{SSH}::test_a_device_that_is_not_there_or_refuses_the_key"),
    Row(86, "the connection drops: tried again, a bounded number of times", "", 0,
        test=f"{FAULTS}::test_twenty_cut_connections_leave_nothing_and_lose_nothing"),
    Row(87, "no interpreter there", "install Python 3.9", 5,
        test=f"{SSH}::test_a_device_without_python_or_with_an_old_one"),
    Row(87, "no runtime there", "onnxruntime isn't usable: no onnxruntime; install it", 5,
        test=f"{FAULTS}::test_a_runtime_that_hangs_dies_or_lacks"),
    Row(88, "other version of the runtime: told beside each figure", "", 0,
        test=f"{SSH}::test_figures_and_outputs_of_the_device_are_those_of_here"),
    Row(89, "the device was restarted, or the job's guard killed",
        "died on the device: its guard was killed", 5,
        test=f"{FAULTS}::test_a_guard_that_is_killed_takes_its_job_along"),
    Row(90, "the device is busy or throttles: marked `disturbed`", "disturbed", 0,
        test="tests/measure/test_measure.py::test_comparing_comes_to_an_end_on_a_disturbed_machine"),
    Row(91, "the result is malformed or another job's", "the result is malformed", 5,
        test=f"{SSH}::test_a_stale_or_malformed_result_is_refused"),
    Row(92, "killed for want of memory",
        "ended by SIGKILL; the device's memory may have run out", 5,
        test=f"{FAULTS}::test_a_runtime_that_hangs_dies_or_lacks"),
    Row(93, "two jobs at once",
        "the device is taken by ann@desk since 10:00, until 10:05 at the latest; wait", 5,
        test=f"{FAULTS}::test_the_lease_says_who_has_the_device"),
    Row(94, "an accelerator leaves operators to the CPU: named", "doesn't take it", 0,
        test="tests/runtimes/onnx/test_onnx_providers.py::test_what_falls_back_is_named"),
    Row(95, "clock too coarse for the model",
        absent="windows last for many inferences; the clock's resolution isn't asked for"),
    Row(96, "governor or temperature that can't be read: `unknown`", "CPU governor: unknown", 0,
        test="tests/test_bad_inputs.py::test_what_a_device_does_not_tell_is_unknown"),
    # Not among the 96, but of their kind.
    Row(18, "the task file leaves the program",
        "penjing: error: .../mytask.py raised SystemExit at mytask.py:2: 0", provoke=leaving),
    Row(31, "data that judges is shuffled",
        "penjing: error: the validation data gives other samples at each pass; leave it in order "
        "(shuffle=False) and don't augment it", provoke=fit("shuffled_validation")),
    Row(23, "a generator for data",
        "penjing: error: the training data is a generator, gone after one pass; give a list",
        provoke=task("generator")),
]  # fmt: skip


def page() -> str:
    """The table as `docs/bad_inputs.md`."""
    numbers = {row.number for row in ROWS}
    absent = {row.number for row in ROWS if row.absent}
    here = {row.number for row in ROWS if row.provoke}
    lines = [
        "# Bad inputs, and what penjing says",
        "",
        "Exit codes: 0 taken, with a note where one is shown; 2 your input; 3 refused as unsafe; 4 "
        "this machine; 5 the device; 130 interrupted. `...` is what differs from one machine or "
        "run to the next. This page is written by `python -m tests.bad_inputs --write` from the "
        "table that the tests go through.",
        "",
        f"Of {len(numbers)} kinds {len(here)} are provoked on the command line by "
        f"`tests/test_bad_inputs.py`, {len(numbers - here - absent)} by the tests that are named "
        f"beside them, and {len(absent - here)} have nothing yet that they could be provoked on.",
    ]
    for row in sorted(ROWS, key=lambda row: row.number):
        if row.number in GROUPS and GROUPS[row.number] not in lines[-1]:
            heading = f"## {GROUPS[row.number]}"
            if heading not in lines:
                lines += ["", heading, "", "| | what is wrong | exit | what is said |",
                          "|---|---|---|---|"]  # fmt: skip
        lines.append(f"| {row.number} | {row.what} | {_code(row)} | {_said(row)} |")
    return "\n".join(lines) + "\n"


def _code(row: Row) -> str:
    return "" if row.absent else str(row.code)


def _said(row: Row) -> str:
    if row.absent:
        return f"not there yet: {row.absent}"
    line = f"`{row.line}`" if row.line else ""
    return f"{line} (`{row.test}`)".strip() if row.test else line


if __name__ == "__main__":
    if sys.argv[1:] == ["--write"]:
        PAGE.write_text(page())
    else:
        print(page(), end="")
