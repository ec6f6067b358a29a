"""What CONTRIBUTING.md says of the files that a contribution touches: one of each is added to a
copy of the package, and works there."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import penjing

ROOT = Path(__file__).parents[1]
SOURCE = Path(penjing.__file__).parent
PASS = '''"""Halve: the weights of a layer, halved."""

from dataclasses import dataclass

from penjing.contract import Plan
from penjing.network import Network
from penjing.network.graph.layers import layers_of
from penjing.passes.contract import Pass, Progress
from penjing.tasks.task import Task


@dataclass(frozen=True)
class Halve(Pass):
    """For a test."""

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        names = [node.name for node in layers_of(network)]
        return self._plan(({"edit": "halve", "layers": names},), "all weights halved")
'''
EDIT = '''"""Halve: half of each weight."""

from penjing.network.graph.layers import Layer, layers_of


def halve(network, layers):
    """Halve the weights of the named layers, in place."""
    for node in layers_of(network):
        if node.name in layers:
            network.tensor(Layer(node).weight_name).data.mul_(0.5)


def misfit(network, nodes, layers):
    """Which of the layers isn't there."""
    return "".join(f"there is no layer {name!r}" for name in layers if name not in nodes)
'''
RUNTIME = '''"""Other: ONNX Runtime under another name."""

from typing import ClassVar

from penjing.runtimes.onnx.runtime import OnnxRuntime


class Other(OnnxRuntime):
    """For a test."""

    name: ClassVar[str] = "other"
    ending: ClassVar[str] = ".other"
'''
STRATEGY = '''"""Once: int8, and nothing else."""

from penjing.passes import Quantize


class Once:
    """For a test."""

    def propose(self, study):
        yield [study.proposal("int8", Quantize(), must=True)]


strategy = Once()
'''
TARGET = """
[a-board]
description = "a board"
isa = "aarch64"
cores = 4
memory_bytes = 4_294_967_296
runtimes = ["onnxruntime"]
precisions = ["float32", "int8"]
channel_multiple = 8
reach = "ssh"
[a-board.sources]
isa = "a test"
cores = "a test"
memory_bytes = "a test"
runtimes = "a test"
precisions = "a test"
channel_multiple = "a test"
"""
USE = """
import sys
from pathlib import Path

import torch
from torch import nn

import penjing
from penjing.contract import Plan
from penjing.errors import UnsafeError
from penjing.network import capture, carry_out, find_axes
from penjing.passes import PruneChannels
from penjing.passes.structure.channels.importance import importances
from penjing.runtimes.registry import find_runtime
from penjing.search.strategies import find_strategy
from penjing.targets import find_target
from penjing.trials.recipe import from_json

folder = Path(sys.argv[1])
assert Path(penjing.__file__).is_relative_to(folder), penjing.__file__
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)).eval()
network = capture(model, torch.ones(2, 8))
(step,) = from_json([{"method": "Halve"}])
halved = step(network, None).state_dict()
assert all(torch.equal(2 * halved[f"{k}.weight"], model[k].weight) for k in (0, 2))
try:
    carry_out(network, Plan("Halve", {}, ({"edit": "halve", "layers": ["nobody"]},)))
    raise AssertionError("it was let through")
except UnsafeError as error:
    assert "there is no layer 'nobody'" in str(error)
runtime = find_runtime("other")
artifact = runtime.lower(network, folder / "model.other")
assert runtime.load(artifact).run(torch.ones(2, 8).numpy()).shape == (2, 4)
assert find_target("a-board").cores == 4
criterion = PruneChannels(0.5, "largest").importance
assert importances(network, find_axes(network).free, criterion)
assert find_strategy(str(folder / "once.py"))
print("all of it works")
"""


def _changed(copy: Path) -> set[str]:
    """The files of the copy that are new or other than the package's."""
    kept = {path.relative_to(SOURCE): path.read_bytes() for path in _files(SOURCE)}
    there = {path.relative_to(copy): path.read_bytes() for path in _files(copy)}
    return {str(name) for name, content in there.items() if kept.get(name) != content}


def _files(folder: Path) -> list[Path]:
    return [
        path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts
    ]


def _insert(path: Path, before: str, text: str) -> None:
    content = path.read_text()
    assert before in content, path
    path.write_text(content.replace(before, text + before, 1))


def _add_pass(copy: Path, folder: Path) -> None:
    (copy / "passes" / "rounding" / "halve.py").write_text(PASS)
    table = copy / "passes" / "__init__.py"
    _insert(
        table, "from penjing.passes.structure", "from penjing.passes.rounding.halve import Halve\n"
    )
    _insert(table, '    "Merge": Merge,', '    "Halve": Halve,\n')


def _add_edit(copy: Path, folder: Path) -> None:
    (copy / "network" / "edits" / "halve.py").write_text(EDIT)
    table = copy / "network" / "edits" / "table.py"
    _insert(
        table, "from penjing.network.edits.overflow", "from penjing.network.edits import halve\n"
    )
    row = '    "halve": Edit(halve.halve, {"layers": checks.names}, halve.misfit),\n'
    _insert(table, '    "shrink": Edit(', row)


def _add_runtime(copy: Path, folder: Path) -> None:
    (copy / "runtimes" / "other.py").write_text(RUNTIME)
    entry = (
        '    "other": Entry(\n        "penjing.runtimes.other:Other", ".other", ("onnxruntime",),'
        ' "", "for a test"\n    ),\n'
    )
    _insert(copy / "runtimes" / "registry.py", '    "openvino": Entry(', entry)


def _add_criterion(copy: Path, folder: Path) -> None:
    path = copy / "passes" / "structure" / "channels" / "importance.py"
    _insert(path, '"taylor", "fisher"]', '"largest", ')
    entry = '        "largest": lambda name: parameters[name].abs().pow(8),\n'
    _insert(path, '        "taylor": lambda', entry)


def _add_target(copy: Path, folder: Path) -> None:
    path = copy / "devices.toml"
    path.write_text(path.read_text() + TARGET)


def _add_strategy(copy: Path, folder: Path) -> None:
    (folder / "once.py").write_text(STRATEGY)


KINDS = {
    "a pass": _add_pass,
    "an edit of its own": _add_edit,
    "a runtime": _add_runtime,
    "a criterion of importance": _add_criterion,
    "a target": _add_target,
    "a strategy": _add_strategy,
}


def test_one_of_each_touches_as_many_files_as_is_said_and_works(tmp_path: Path) -> None:
    copy = tmp_path / "penjing"
    shutil.copytree(SOURCE, copy, ignore=shutil.ignore_patterns("__pycache__"))
    said = re.findall(r"^\| (an? [a-z ]+) \| (\d):", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert [kind for kind, _ in said] == list(KINDS)
    for kind, count in said:
        before = _changed(copy) | {path.name for path in tmp_path.glob("*.py")}
        KINDS[kind](copy, tmp_path)
        touched = (_changed(copy) | {path.name for path in tmp_path.glob("*.py")}) - before
        assert len(touched) == int(count), (kind, touched)
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", USE, str(tmp_path)],
        capture_output=True, text=True, cwd=tmp_path, env={"PYTHONPATH": str(tmp_path), "PATH": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all of it works\n"
