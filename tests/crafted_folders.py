"""Folders of a saved network that somebody tampered with, each in one way.

    python -m tests.crafted_folders

prints what `restore` says of each, and the exit code that it has on the command line.
"""

from __future__ import annotations

import builtins
import copy
import json
import os
import pickle
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.files import sha256_of
from penjing.network.save import FORMAT, OLDEST, restore
from tests.fuzz_plans import CANARY, CODE, SING, Seed

RECORD, WEIGHTS = "network.json", "weights.safetensors"
Change = Callable[[Path, Seed], None]


def _record(change: Callable[[dict[str, Any]], Any]) -> Change:
    """The record, changed in place or replaced by what the change gives."""

    def made(folder: Path, seed: Seed) -> None:
        record = seed.record()
        changed = change(record)
        (folder / RECORD).write_text(json.dumps(record if changed is None else changed))

    return made


def _text(change: Callable[[str], str | bytes]) -> Change:
    def made(folder: Path, seed: Seed) -> None:
        text = change(json.dumps(seed.record()))
        (folder / RECORD).write_bytes(text if isinstance(text, bytes) else text.encode())

    return made


def _weights(change: Callable[[dict[str, Tensor]], Any]) -> Change:
    """Other weights, of which the record has the hash."""

    def made(folder: Path, seed: Seed) -> None:
        tensors = safetensors.torch.load(seed.weights)
        change(tensors)
        _with_hash(folder, seed, safetensors.torch.save(tensors))

    return made


def _with_hash(folder: Path, seed: Seed, weights: bytes) -> None:
    (folder / WEIGHTS).write_bytes(weights)
    record = seed.record() | {"weights_sha256": sha256_of(weights)}
    (folder / RECORD).write_text(json.dumps(record))


def _edit(record: dict[str, Any], name: str = "fake_quantize") -> dict[str, Any]:
    edits = [edit for plan in record["plans"] for edit in plan["edits"]]
    found: dict[str, Any] = next(one for one in edits if one["edit"] == name)
    return found


def _renamed(record: dict[str, Any], code: str) -> None:
    """Code as the root, and as the name of a value, of the first that is rounded."""
    values = _edit(record)["activations"]
    first = next(iter(values))
    for one in values.values():
        one["root"] = code if one["root"] == first else one["root"]
    values[code] = values.pop(first) | {"root": code}


def _rooted(code: str) -> Change:
    """Code as the root of a value, in a folder of which all else is sound."""

    def made(folder: Path, seed: Seed) -> None:
        qparams = {"scale": 0.1, "zero_point": 0, "low": 0, "high": 255, "root": code}
        edit = {"edit": "fake_quantize", "activations": {"relu": qparams}, "weights": {}}
        weights = safetensors.torch.save(dict(seed.original.state_dict()))
        plan = seed.record()["plans"][0] | {"edits": [edit]}
        record = seed.record() | {"plans": [plan], "weights_sha256": sha256_of(weights)}
        (folder / WEIGHTS).write_bytes(weights)
        (folder / RECORD).write_text(json.dumps(record))

    return made


def _first(record: dict[str, Any], **changes: Any) -> None:
    values = _edit(record)["activations"]
    next(iter(values.values())).update(changes)


def _without(owner: dict[str, Any], key: str) -> None:
    del owner[key]


def _flipped(folder: Path, seed: Seed) -> None:
    weights = bytearray(seed.weights)
    weights[-3] ^= 16
    (folder / WEIGHTS).write_bytes(weights)


def _cut(folder: Path, seed: Seed) -> None:
    (folder / WEIGHTS).write_bytes(seed.weights[:-5])


class _Sings:
    def __reduce__(self) -> Any:
        return exec, (SING,)


def _linked(name: str) -> Change:
    def made(folder: Path, seed: Seed) -> None:
        elsewhere = folder.with_name(f"{folder.name}-elsewhere")
        elsewhere.write_bytes((folder / name).read_bytes())
        (folder / name).unlink()
        (folder / name).symlink_to(elsewhere)

    return made


def _pipe(folder: Path, seed: Seed) -> None:
    (folder / WEIGHTS).unlink()
    os.mkfifo(folder / WEIGHTS)


def _set(tensors: dict[str, Tensor], name: str, value: float) -> None:
    tensors[name].flatten()[0] = value


def _factors(**layers: Any) -> Change:
    """A plan that writes layers as factors, in a folder of which all else is sound."""

    def made(folder: Path, seed: Seed) -> None:
        weights = safetensors.torch.save(dict(seed.original.state_dict()))
        edits = [{"edit": "factorize", "layers": layers}]
        plan = seed.record()["plans"][0] | {"edits": edits, "parts": []}
        record = seed.record() | {"plans": [plan], "weights_sha256": sha256_of(weights)}
        (folder / WEIGHTS).write_bytes(weights)
        (folder / RECORD).write_text(json.dumps(record))

    return made


UNSAFE: dict[str, Change] = {
    "code as a root": _rooted(CODE[0]),
    "code as a root, with a default": _rooted(CODE[1]),
    "code as a name and its root": _record(lambda r: _renamed(r, CODE[1])),
    "code on a line of its own": _record(lambda r: _renamed(r, CODE[2])),
    "code as a root on a line of its own": _rooted(CODE[2]),
    "code as an axis": _record(lambda r: _edit(r, "shrink").update(axes={CODE[0]: [0]})),
    "code as a layer": _record(lambda r: _edit(r, "give_bias").update(layers=[CODE[0]])),
    "code as an edit": _record(lambda r: _edit(r).update(edit=CODE[6])),
    "code as a method": _record(lambda r: r["plans"][0].update(method=CODE[6])),
    "an attribute of Python's": _record(lambda r: _renamed(r, "__class__.__init__")),
    "a part that isn't there": _record(lambda r: r["plans"][-1].update(parts=[["layer4_conv"]])),
    "a part that is no layer": _record(lambda r: r["plans"][-1].update(parts=[["x"]])),
    "a part from its end to its beginning": _record(
        lambda r: r["plans"][-1].update(parts=[["linear", "conv2d"]])
    ),
    "code as a part": _record(lambda r: r["plans"][-1].update(parts=[[CODE[0]]])),
    "a part of three nodes": _record(
        lambda r: r["plans"][-1].update(parts=[["x", "conv2d", "linear"]])
    ),
    "a part that is a name": _record(lambda r: r["plans"][-1].update(parts=["conv2d"])),
    "an unknown edit": _record(lambda r: _edit(r).update(edit="run")),
    "an unknown key": _record(lambda r: _edit(r).update(also=1)),
    "a key missing": _record(lambda r: _without(_edit(r), "weights")),
    "a plan's key missing": _record(lambda r: _without(r["plans"][0], "notes")),
    "text for a number": _record(lambda r: _first(r, scale="0.5")),
    "a scale of 0": _record(lambda r: _first(r, scale=0.0)),
    "a number for a list": _record(lambda r: _edit(r, "give_bias").update(layers=7)),
    "factors of a layer that isn't there": _factors(layer4={"scheme": "channel", "ranks": [1]}),
    "factors of a node that is no layer": _factors(relu={"scheme": "channel", "ranks": [1]}),
    "code as factors": _factors(**{CODE[0]: {"scheme": "channel", "ranks": [1]}}),
    "code as a scheme": _factors(conv2d={"scheme": CODE[0], "ranks": [1]}),
    "a scheme that isn't one": _factors(conv2d={"scheme": ["channel"], "ranks": [1]}),
    "a rank above the full rank": _factors(conv2d={"scheme": "channel", "ranks": [5]}),
    "a huge rank": _factors(conv2d={"scheme": "channel", "ranks": [2**31 - 1]}),
    "a rank of 0": _factors(conv2d={"scheme": "channel", "ranks": [0]}),
    "too few ranks": _factors(conv2d={"scheme": "tucker", "ranks": [1]}),
    "a scheme for another kernel": _factors(conv2d={"scheme": "matrices", "ranks": [1]}),
    "deep nesting": _text(lambda text: "[" * 100_000 + "]" * 100_000),
    "a huge integer": _record(lambda r: _first(r, high=10**60)),
    "an integer beyond 32 bits": _record(lambda r: _first(r, high=2**40)),
    "NaN": _record(lambda r: _first(r, scale=float("nan"))),
    "1e999": _text(lambda text: text.replace('"scale": ', '"scale": 1e999, "scale_": ', 1)),
    "not UTF-8": _text(lambda text: text.encode().replace(b"fold", b"f\xffld")),
    "UTF-16": _text(lambda text: text.encode("utf-16")),
    "a key twice": _text(lambda text: text.replace('"source"', '"plans": [], "source"', 1)),
    "not JSON": _text(lambda text: text[:-40]),
    "a list for an object": _record(lambda r: [r]),
    "a list for a plan": _record(lambda r: r.update(plans=[[]])),
    "a format in words": _record(lambda r: r.update(format="three")),
    "no hash of the weights": _record(lambda r: _without(r, "weights_sha256")),
    "a source that is no text": _record(lambda r: r.update(source=["a"])),
    "a node of another network": _record(lambda r: _renamed(r, "layer4_1_relu")),
    "indices beyond an axis": _record(
        lambda r: _edit(r, "shrink").update(axes={"second": [0, 99]})
    ),
    "scales of another layer": _record(
        lambda r: next(iter(_edit(r)["weights"].values())).update(scales=[0.1])
    ),
    "plans twice": _record(lambda r: r.update(plans=r["plans"] * 2)),
    "ten thousand edits": _record(
        lambda r: r["plans"][0].update(edits=[{"edit": "pool_means"}] * 10_000)
    ),
    "a bit of a weight flipped": _flipped,
    "weights cut off": _cut,
    "weights cut off, with their hash": lambda folder, seed: _with_hash(
        folder, seed, seed.weights[:-5]
    ),
    "a NaN weight": _weights(lambda one: _set(one, "last.weight", float("nan"))),
    "an infinite weight": _weights(lambda one: _set(one, "last.bias", float("inf"))),
    "float64 weights": _weights(
        lambda one: one.update({name: tensor.double() for name, tensor in one.items()})
    ),
    "another shape": _weights(lambda one: one.update({"last.weight": torch.zeros(3, 5)})),
    "a tensor missing": _weights(lambda one: one.pop("last.bias")),
    "a tensor too much": _weights(lambda one: one.update({"more": torch.zeros(1)})),
    "a pickle": lambda folder, seed: _with_hash(folder, seed, pickle.dumps(_Sings())),
    "no weights at all": lambda folder, seed: _with_hash(folder, seed, b""),
    "weights behind a link": _linked(WEIGHTS),
    "a record behind a link": _linked(RECORD),
    "a pipe for weights": _pipe,
}
"""By what is wrong: refused with exit code 3."""
HONEST: dict[str, Change] = {
    "a newer format": _record(lambda r: r.update(format=FORMAT + 1)),
    "an older format": _record(lambda r: r.update(format=OLDEST - 1)),
    "weights missing": lambda folder, seed: (folder / WEIGHTS).unlink(),
}
"""Mistakes that anybody makes: refused with exit code 2."""


def said(folder: Path, seed: Seed, change: Change) -> PenjingError | None:
    """Why a folder that was changed is refused; None if it isn't."""
    folder.mkdir()
    (folder / RECORD).write_text(json.dumps(seed.record()))
    (folder / WEIGHTS).write_bytes(seed.weights)
    change(folder, seed)
    with patch("penjing.network.save.capture", lambda *_, **__: copy.deepcopy(seed.original)):
        try:
            network = restore(folder, nn.Identity(), seed.original.example)
            network(seed.original.example)
        except PenjingError as error:
            return error
        finally:
            assert not hasattr(builtins, CANARY), "it ran code"
    return None


def main() -> None:
    """Print the table."""
    from tests.fuzz_plans import seeds

    seed = seeds()[0]
    refused = 0
    with tempfile.TemporaryDirectory() as name:
        for number, (what, change) in enumerate((UNSAFE | HONEST).items()):
            error = said(Path(name) / str(number), seed, change)
            refused += error is not None
            code = "" if error is None else error.exit_code
            line = " ".join(str(error).split()).replace(f"{name}/{number}", "saved")
            print(f"{what} | {code} | {line[:150]}")
    print(f"{refused} of {len(UNSAFE | HONEST)} refused, 0 canaries")


if __name__ == "__main__":
    main()
