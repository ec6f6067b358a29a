"""Targets: every figure has a document, and what doesn't fit is refused with both numbers."""

from __future__ import annotations

import json
import os
from dataclasses import fields, replace
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from penjing.cli.app import app
from penjing.errors import InputError
from penjing.measure.footprint import footprint
from penjing.network import Network, capture
from penjing.passes import Quantize, Ternarize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.registry import ENTRIES
from penjing.targets import REACH, Target, all_targets, described, find_target, in_words, this_gpu
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from tests.reference_networks import build

NO_FIGURES = {"name", "description", "reach", "sources"}


@pytest.mark.parametrize("target", all_targets().values(), ids=lambda one: one.name)
def test_every_figure_has_a_source_and_every_source_a_figure(target: Target) -> None:
    figures = {
        one.name for one in fields(target)
        if one.name not in NO_FIGURES and getattr(target, one.name) is not None
    }  # fmt: skip
    assert set(target.sources) == figures
    assert target.reach in REACH
    assert set(target.runtimes) <= set(ENTRIES)
    assert (target.npu or "").startswith("ethos-u") == ("ethosu" in target.runtimes)
    assert target.local == (target.name in ("cpu", "gpu"))


def test_the_devices_that_were_asked_for_are_there() -> None:
    assert {one.npu for one in described().values() if one.npu} >= {
        "ethos-u55-128", "ethos-u55-256", "ethos-u65-256", "ethos-u85-256",
    }  # fmt: skip
    board = find_target("nucleo-h743zi")
    assert (board.flash_bytes, board.memory_bytes) == (2 * 2**20, 2**20)
    assert {"raspberry-pi-4", "raspberry-pi-5", "jetson-orin-nano"} <= set(described())


def test_a_gpu_that_is_not_there_is_one_line() -> None:
    if this_gpu() is not None:
        pytest.skip("this machine has a GPU")
    with pytest.raises(InputError, match="no NVIDIA driver"):
        find_target("gpu")


def test_a_gpu_is_described_as_its_driver_tells(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    driver = tmp_path / "nvidia-smi"
    driver.write_text("#!/bin/sh\necho 'NVIDIA H100 80GB HBM3, 81559, 9.0'\n")
    driver.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    found = this_gpu.__wrapped__()
    assert found is not None
    assert found.memory_bytes == 81559 * 2**20
    assert found.isa == "CUDA, compute capability 9.0"
    assert found.local
    driver.write_text("#!/bin/sh\necho 'No devices were found'; exit 6\n")
    assert this_gpu.__wrapped__() is None


def test_an_address_is_no_name_of_a_target() -> None:
    with pytest.raises(InputError, match="ssh://pi@device is an address, which only `penjing fit`"):
        find_target("ssh://pi@device")


def small_network(quantized: bool) -> Network:
    model, x = build("plain_cnn")
    network = capture(model.eval(), x[:2])
    if quantized:
        data = Arrays(x, torch.arange(len(x)) % 10)
        network = Quantize(samples=8)(network, Task(model, x[:2], data, data))
    return network


def test_the_footprint_by_hand() -> None:
    model, _ = build("plain_cnn")
    weights = sum(one.numel() for one in model.parameters())
    plain = footprint(small_network(False))
    assert plain.weight_bytes == 4 * weights
    assert plain.value_bytes == 4 * 2 * 16 * 32 * 32
    int8 = footprint(small_network(True))
    assert plain.value_bytes // 4 <= int8.value_bytes < 1.01 * plain.value_bytes / 4
    assert weights < int8.weight_bytes < 1.1 * weights


def test_ternary_weights_count_in_their_few_bits() -> None:
    model, x = build("plain_cnn")
    data = Arrays(x, torch.arange(len(x)) % 10)
    network = capture(model.eval(), x[:2])
    ternary = Ternarize()(network, Task(model, x[:2], data, data))
    assert footprint(ternary).weight_bytes < 0.3 * footprint(network).weight_bytes


def board(flash: int | None, memory: int) -> Target:
    return replace(
        find_target("nucleo-h743zi"), flash_bytes=flash, memory_bytes=memory,
        runtimes=("onnxruntime",),
    )  # fmt: skip


def test_what_does_not_fit_is_refused_before_lowering_and_after(tmp_path: Path) -> None:
    network, runtime = small_network(False), OnnxRuntime()
    weights = footprint(network).weight_bytes
    fits = board(flash=weights + 100_000, memory=131_072)
    assert runtime.problems(network, fits) == []
    (line,) = runtime.problems(network, replace(fits, flash_bytes=256_000))
    assert line == (
        f"the network needs {in_words(weights)} of flash (an estimate before lowering), but target "
        "nucleo-h743zi has 256 kB; make the network smaller or choose a target with more flash"
    )
    assert runtime.problems(network, replace(fits, flash_bytes=weights // 2), "float16") == []
    (line,) = runtime.problems(network, replace(fits, memory_bytes=100_000))
    assert "131 kB of memory for values (an estimate before lowering)" in line
    assert "has 100 kB" in line
    artifact = runtime.lower(network, tmp_path / "model.onnx")
    assert runtime.too_large(network, fits, artifact) == []
    tight = replace(fits, flash_bytes=artifact.file_bytes - 1)
    (line,) = runtime.too_large(network, tight, artifact)
    assert f"needs {in_words(artifact.file_bytes)} of flash (model.onnx as it lies there)" in line


def test_without_a_flash_weights_are_in_memory_too() -> None:
    weights = footprint(small_network(False)).weight_bytes
    computer = board(flash=None, memory=weights + 131_072)
    assert OnnxRuntime().problems(small_network(False), computer) == []
    tight = replace(computer, memory_bytes=weights + 131_071)
    (line,) = OnnxRuntime().problems(small_network(False), tight)
    assert "of memory for weights and values" in line


@pytest.mark.parametrize(
    ("size", "text"),
    [(900, "900 B"), (412_300, "412 kB"), (2_097_152, "2097 kB"), (13_500_000, "13.5 MB"),
     (4 * 2**30, "4.3 GB")],
)  # fmt: skip
def test_sizes_in_words(size: int, text: str) -> None:
    assert in_words(size) == text


def test_targets_on_the_command_line() -> None:
    found = json.loads(CliRunner().invoke(app, ["targets", "--json"]).stdout)
    assert found["raspberry-pi-5"]["sources"]["memory_bytes"].startswith("Raspberry Pi 5 Product")
    assert found["nxp-imx93"]["memory_bytes"] is None
    table = CliRunner().invoke(app, ["targets"], env={"COLUMNS": "300"}).stdout
    assert "ethos-u85-256" in table
    assert "2097 kB" in table
    assert "by fit and bench with --target ssh://user@host" in table


def test_two_widths_make_a_group_of_channels() -> None:
    for target in described().values():
        assert target.channel_multiple == 2 * target.width_multiple
