"""Files that somebody made to harm who opens them, one for each way.

    python -m tests.hostile_files

prints what `bench` says of each, and the exit code that it has on the command line.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from penjing.errors import PenjingError
from penjing.tools.bench import bench
from penjing.tools.quarantine import Limits

LOW, SHORT = Limits(memory_bytes=2**30), Limits(seconds=1.0)
"""Of the tests: terabytes aren't to be had, and what never ends doesn't in a second."""
Maker = Callable[[Path], Path]


def _value(name: str, shape: list[Any] | None, kind: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, kind, shape)


def _saved(folder: Path, graph: Any, **rest: Any) -> Path:
    opsets = [helper.make_opsetid("", 20), helper.make_opsetid("own", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10, **rest)
    (folder / "made.onnx").write_bytes(model.SerializeToString())
    return folder / "made.onnx"


def _graph(nodes: list[Any], initializers: tuple[Any, ...] = (), shape: Any = (1, 4)) -> Any:
    values = [_value("x", list(shape))], [_value("y", None)]
    return helper.make_graph(nodes, "g", *values, list(initializers))


def sound(folder: Path) -> Path:
    """The file that the others are made like, in which nothing is wrong."""
    weight = numpy_helper.from_array(np.ones((1, 4), np.float32), "w")
    return _saved(folder, _graph([helper.make_node("Add", ["x", "w"], ["y"])], (weight,)))


def endless(folder: Path) -> Path:
    """A loop of 2^62 rounds."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["more"], ["go_on"]),
         helper.make_node("Add", ["v", "v"], ["next"])],
        "body",
        [_value("k", [], TensorProto.INT64), _value("more", [], TensorProto.BOOL),
         _value("v", [1, 4])],
        [_value("go_on", [], TensorProto.BOOL), _value("next", [1, 4])],
    )  # fmt: skip
    constants = (
        numpy_helper.from_array(np.array(2**62), "rounds"),
        numpy_helper.from_array(np.array(True), "yes"),
    )
    loop = helper.make_node("Loop", ["rounds", "yes", "x"], ["y"], body=body)
    return _saved(folder, _graph([loop], constants))


def crowded(folder: Path) -> Path:
    """300,000 constants."""
    crowd = tuple(helper.make_tensor(f"c{k}", 1, [1], [0.0]) for k in range(300_000))
    return _saved(folder, _graph([helper.make_node("Identity", ["x"], ["y"])], crowd))


def external(location: str, **entries: str) -> Maker:
    """A weight that is said to lie in another file."""

    def make(folder: Path) -> Path:
        _decoys(folder)
        weight = TensorProto(name="w", data_type=1, dims=[1, 4], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": location.format(folder=folder), **entries}.items():
            weight.external_data.add(key=key, value=value)
        return _saved(folder, _graph([helper.make_node("Add", ["x", "w"], ["y"])], (weight,)))

    return make


def _decoys(folder: Path) -> None:
    """What the paths could lead to: a file outside, links to it, a good file beside."""
    outside = folder.with_name(f"{folder.name}-outside")
    outside.mkdir()
    (outside / "secret.bin").write_bytes(bytes(64))
    (folder / "good.bin").write_bytes(bytes(64))
    (folder / "link.bin").symlink_to(outside / "secret.bin")
    (folder / "linked").symlink_to(outside)
    os.link(outside / "secret.bin", folder / "hard.bin")


def cyclic(folder: Path) -> Path:
    """Two nodes that wait for each other."""
    nodes = [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Relu", ["a"], ["b"])]
    return _saved(folder, _graph([*nodes, helper.make_node("Relu", ["a"], ["y"])]))


def lacking(folder: Path) -> Path:
    """A node that reads what nobody gives."""
    return _saved(folder, _graph([helper.make_node("Add", ["x", "nothing"], ["y"])]))


def in_functions(folder: Path) -> Path:
    """Two functions that call each other."""
    opsets = [helper.make_opsetid("own", 1)]
    functions = [
        helper.make_function(
            "own", name, ["a"], ["b"], [helper.make_node(other, ["a"], ["b"], domain="own")], opsets
        )
        for name, other in (("Ping", "Pong"), ("Pong", "Ping"))
    ]
    node = helper.make_node("Ping", ["x"], ["y"], domain="own")
    return _saved(folder, _graph([node]), functions=functions)


def nested(folder: Path) -> Path:
    """Branches within branches, 28 deep."""
    inner = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["b0"])], "b0", [], [_value("b0", None)]
    )
    yes = numpy_helper.from_array(np.array(True), "yes")
    for depth in range(1, 28):
        node = helper.make_node("If", ["yes"], [f"b{depth}"], then_branch=inner)
        inner = helper.make_graph([node], f"b{depth}", [], [_value(f"b{depth}", None)])
    last = helper.make_node("Identity", ["b27"], ["y"])
    return _saved(folder, _graph([*inner.node, last], (yes,)))


def huge_input(folder: Path) -> Path:
    """An input of four terabytes."""
    return _saved(folder, _graph([helper.make_node("Relu", ["x"], ["y"])], shape=(2**20, 2**20)))


def huge_value(folder: Path) -> Path:
    """A value of four terabytes, of a file of some bytes."""
    sizes = numpy_helper.from_array(np.array([2**20, 2**20]), "sizes")
    nodes = [helper.make_node("ConstantOfShape", ["sizes"], ["zeros"]),
             helper.make_node("ReduceSum", ["zeros"], ["sum"], keepdims=0),
             helper.make_node("Add", ["x", "sum"], ["y"])]  # fmt: skip
    return _saved(folder, _graph(nodes, (sizes,)))


def noted(text: str) -> Maker:
    """A sound file, with a note about its outputs that penjing wouldn't write."""

    def make(folder: Path) -> Path:
        model = onnx.load(sound(folder))
        helper.set_model_props(model, {"penjing.outputs": text})
        (folder / "made.onnx").write_bytes(model.SerializeToString())
        return folder / "made.onnx"

    return make


MAKERS: dict[str, Maker] = {
    "a loop of 2^62 rounds": endless,
    "300,000 constants": crowded,
    "weights in ../": external("../secret.bin"),
    "weights in an absolute path": external("{folder}-outside/secret.bin"),
    "weights behind a link": external("link.bin"),
    "weights in a linked folder": external("linked/secret.bin"),
    "weights behind a hard link": external("hard.bin"),
    "weights in no file": external("absent.bin"),
    "weights at a negative place": external("good.bin", offset="-16", length="16"),
    "weights at a huge place": external("good.bin", offset=str(2**62), length="16"),
    "weights that are too long": external("good.bin", offset="0", length=str(2**62)),
    "weights in memory": external("*/_ORT_MEM_ADDR_/*", offset="4096", length="16"),
    "a graph in a circle": cyclic,
    "a value that nobody gives": lacking,
    "functions without end": in_functions,
    "branches 28 deep": nested,
    "an input of 4 TB": huge_input,
    "a value of 4 TB": huge_value,
    "a note of deep nesting": noted("[" * 100_000),
    "a note of other outputs": noted(json.dumps(["a", "b"])),
    "a note that is no JSON": noted("import os"),
    "a note that is a number": noted("7"),
}
"""By what is wrong: refused with exit code 3."""


def main() -> None:
    """Print the table."""
    refused = 0
    for what, make in MAKERS.items():
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name) / "folder"
            folder.mkdir()
            path = make(folder)
            try:
                bench([path], seconds=0.1)
                print(f"{what} | 0 | timed")
            except PenjingError as error:
                refused += error.exit_code == 3
                line = " ".join(str(error).split()).replace(str(path), "made.onnx")
                print(f"{what} | {error.exit_code} | {line[:150]}", flush=True)
    print(f"{refused} of {len(MAKERS)} refused as unsafe; this process is alive")


if __name__ == "__main__":
    main()
