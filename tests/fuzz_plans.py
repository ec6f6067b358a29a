"""Saved networks whose plans were tampered with: each is refused, or is a sound network.

    python -m tests.fuzz_plans --runs 10000

prints how many were restored and how many refused; one that raises anything but a PenjingError, or
that runs code, ends it with the seed that shows it again.
"""

from __future__ import annotations

import argparse
import builtins
import collections
import copy
import json
import random
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Plan
from penjing.errors import PenjingError
from penjing.files import sha256_of
from penjing.network import Network, capture
from penjing.network.edits.table import EDITS
from penjing.network.save import FORMAT, restore
from penjing.passes import (
    Binarize,
    CorrectBias,
    Drop,
    Equalize,
    Factorize,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Share,
    Sparsify,
    Ternarize,
)
from penjing.tasks.task import Task

CANARY = "penjing_canary"
SING = f'setattr(__import__("builtins"), "{CANARY}", 1)'
CODE = (
    f'forward") and {SING} or getattr(self, "q',
    f'q", 0) or {SING} or getattr(self, "q',
    f'forward")\n{SING}\ndef f():\n    ("',
    f'q"]); {SING}; (["',
    f"q'); {SING}; ('",
    f'q\\"); {SING} #',
    f"{SING}",
    "__class__.__init__.__globals__",
    "../../../etc/passwd",
    "a\0b\x1b[31m",
    "\ud800",
    "x" * 5000,
    "",
)
"""Strings that were code, if one of them were ever written into a program."""
ODD: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2**31, 2**63, -(2**63), 10**40, 0.0, -0.0, 1e-320, 1e300, -1.5,
    float("nan"), float("inf"), float("-inf"), "", "1", [], {}, [[]], [0], {"edit": "shrink"},
)  # fmt: skip


class Net(nn.Module):
    """Of all that the edits are about, a little."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)
        self.second, self.third = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1, bias=False)
        self.relu6, self.last = nn.ReLU6(), nn.Linear(6, 3)
        self.side = nn.Conv2d(4, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(torch.relu(self.norm(self.first(x))))
        x = torch.relu(self.third(self.relu6(self.second(x)))) + x
        return self.last(torch.cat([x, self.side(x)], 1).mean((2, 3)))


class Reads(nn.Module):
    """A table of an embedding, which is large enough to be worth integers."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(64, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.table(x).mean(1))


RECIPES: tuple[tuple[Pass, ...], ...] = (
    (PruneChannels(0.5), Quantize(samples=4, split_silu=True), CorrectBias(samples=4)),
    (Equalize(), Quantize(samples=4, weights=4, scales="tensor"), Reconstruct(samples=4, steps=1)),
    (Quantize(samples=4, activations=None, weights=3, group=2),),
    (Quantize(samples=4, outputs=True, int16=("first", "last")),),
    (Ternarize("two", activations=8, samples=4),),
    (Binarize(learned_sign=True, shortcuts=True),),
    (
        Factorize(ranks={"first": 2, "third": 2}, scheme="spatial", basis="weights"),
        Factorize(ranks={"second": [2, 3], "last": 2}, samples=4),
        PruneChannels(0.3),
    ),
    (Sparsify(0.5, "l1"), PruneChannels(0.5), Quantize(samples=4, activations=None)),
    (Drop(names=("add",), replace="linear", samples=4), PruneChannels(0.3)),
    (Drop(names=("relu6", "side")), Quantize(samples=4, activations=None)),
    (Share(4, assignment="rate", samples=4), PruneChannels(0.5)),
)


class Seed:
    """A captured network, what `save` writes of what a recipe makes of it, and its node names."""

    def __init__(self, original: Network, made: Network) -> None:
        self.original = original
        self.plans = [plan.to_json() for plan in made.history]
        tensors = {name: one.detach().clone() for name, one in made.state_dict().items()}
        self.weights = safetensors.torch.save(tensors)
        self.names = sorted({node.name for node in (*original.graph.nodes, *made.graph.nodes)})

    def record(self) -> dict[str, Any]:
        """What `network.json` holds."""
        return {
            "format": FORMAT, "source": None, "plans": copy.deepcopy(self.plans),
            "weights_sha256": sha256_of(self.weights),
        }  # fmt: skip


def seeds() -> tuple[Seed, ...]:
    """One for each recipe; every edit is in one of them."""
    torch.manual_seed(0)
    images, words = torch.randn(4, 2, 4, 4), torch.randint(64, (4, 6))
    found = _of(Net(), images, RECIPES) + _of(Reads(), words, ((Quantize(samples=4),),))
    made = {edit["edit"] for seed in found for plan in seed.plans for edit in plan["edits"]}
    assert made == set(EDITS), sorted(set(EDITS) - made)
    return tuple(found)


def _of(model: nn.Module, x: Tensor, recipes: tuple[tuple[Pass, ...], ...]) -> list[Seed]:
    batches = [(x, torch.arange(4) % 3)]
    task = Task(model.eval(), x[:2], batches, batches)
    original = capture(task.model, task.example)
    found = []
    for recipe in recipes:
        network = original
        for step in recipe:
            network = step(network, task)
        found.append(Seed(original, network))
    return found


def mutated(seed: Seed, others: tuple[Seed, ...], draw: random.Random) -> bytes:
    """The text of a record in which one to three things are otherwise."""
    record = seed.record()
    for _ in range(draw.choice((1, 1, 2, 3))):
        record = draw.choice(MUTATIONS)(record, seed, others, draw) or record
    text = json.dumps(record).encode()
    if draw.random() < 0.1:
        text = _bytes_changed(text, draw)
    return text


def _bytes_changed(text: bytes, draw: random.Random) -> bytes:
    broken = bytearray(text)
    place = draw.randrange(len(broken))
    how = draw.randrange(3)
    if how == 0:
        broken[place] = draw.randrange(256)
    elif how == 1:
        del broken[place:]
    else:
        broken[place:place] = draw.choice((b"[" * 100_000, b'"edits":[],', b"1" * 5000, b"\xff"))
    return bytes(broken)


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Every container and key of a value of JSON."""
    pairs = list(value.items()) if isinstance(value, dict) else list(enumerate(value))
    found = []
    for key, one in pairs:
        found.append((value, key))
        if isinstance(one, dict | list):
            found += _places(one)
    return found


def _place(record: dict[str, Any], draw: random.Random) -> tuple[Any, Any]:
    """One that tells something: as often among the edits as among all."""
    edits = [places for mine in _lists_of_edits(record) for places in _places(mine)]
    return draw.choice(edits if edits and draw.random() < 0.7 else _places(record))


def _lists_of_edits(record: dict[str, Any]) -> list[list[Any]]:
    """Of each plan that still has one."""
    plans = record.get("plans")
    known = [one for one in plans if isinstance(one, dict)] if isinstance(plans, list) else []
    return [one["edits"] for one in known if isinstance(one.get("edits"), list)]


def _another_value(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    owner, key = _place(record, draw)
    value = draw.choice((draw.choice(CODE), draw.choice(ODD), draw.choice(seed.names)))
    owner[key] = copy.deepcopy(value)


def _another_number(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    places = [(o, k) for o, k in _places(record) if type(o[k]) in (int, float)]
    if places:
        owner, key = draw.choice(places)
        owner[key] = draw.choice((-owner[key], owner[key] * 2, owner[key] + 1, 0, 1e-45, 3e38))


def _another_name(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    places = [(o, k) for o, k in _places(record) if isinstance(o, dict)]
    if places:
        owner, key = draw.choice(places)
        name = draw.choice((draw.choice(CODE), draw.choice(seed.names)))
        owner[name] = owner.pop(key)


def _another_word(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    places = [(o, k) for o, k in _places(record) if isinstance(o[k], str)]
    if places:
        owner, key = draw.choice(places)
        owner[key] = draw.choice((draw.choice(CODE), draw.choice(seed.names), *list(EDITS)[:2]))


def _gone(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    owner, key = _place(record, draw)
    del owner[key]


def _twice(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    lists = [(o, k) for o, k in _places(record) if isinstance(o, list)]
    if lists:
        owner, key = draw.choice(lists)
        owner.insert(draw.randrange(len(owner) + 1), copy.deepcopy(owner[key]))


def _shuffled(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    lists = [o[k] for o, k in _places(record) if isinstance(o[k], list) and len(o[k]) > 1]
    if lists:
        draw.shuffle(draw.choice(lists))


def _of_another(record: Any, seed: Seed, others: tuple[Seed, ...], draw: random.Random) -> None:
    """An edit of another recipe among this one's."""
    edits = [edit for plan in draw.choice(others).plans for edit in plan["edits"]]
    lists = _lists_of_edits(record)
    if lists:
        mine = draw.choice(lists)
        mine.insert(draw.randrange(len(mine) + 1), copy.deepcopy(draw.choice(edits)))


def _another_part(record: Any, seed: Seed, others: Any, draw: random.Random) -> None:
    """A part that is another, of a plan that has some."""
    plans = record.get("plans")
    known = [one for one in plans if isinstance(one, dict)] if isinstance(plans, list) else []
    lists = [one["parts"] for one in known if isinstance(one.get("parts"), list) and one["parts"]]
    if lists:
        parts = draw.choice(lists)
        names = [draw.choice((*CODE, *seed.names)) for _ in range(draw.randrange(4))]
        parts[draw.randrange(len(parts))] = draw.choice((names, draw.choice(ODD)))


MUTATIONS: tuple[Callable[..., None], ...] = (
    _another_value, _another_number, _another_name, _another_word, _gone, _twice, _shuffled,
    _of_another, _another_part,
)  # fmt: skip


def outcome(folder: Path, seed: Seed, text: bytes) -> str:
    """`"restored"`, or the first words of why it was refused.

    Raises:
        AssertionError: it ran code, or it was restored and isn't sound.
    """
    (folder / "network.json").write_bytes(text)
    (folder / "weights.safetensors").write_bytes(seed.weights)
    with patch("penjing.network.save.capture", lambda *_, **__: copy.deepcopy(seed.original)):
        try:
            network = restore(folder, nn.Identity(), seed.original.example)
            with torch.no_grad():
                found = network(seed.original.example)
        except PenjingError as error:
            found, why = None, type(error).__name__
    assert not hasattr(builtins, CANARY), "it ran code"
    if found is None:
        return why
    assert found.shape == (2, 3)
    assert all(isinstance(plan, Plan) for plan in network.history)
    return "restored"


def fuzz(runs: int, start: int = 0) -> collections.Counter[str]:
    """How often each outcome came."""
    warnings.simplefilter("ignore")
    known, counts = seeds(), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as name:
        for seed in known:  # as they are, they are restored
            text = json.dumps(seed.record()).encode()
            assert outcome(Path(name), seed, text) == "restored"
        for number in range(start, start + runs):
            draw = random.Random(number)
            seed = draw.choice(known)
            text = mutated(seed, known, draw)
            try:
                counts[outcome(Path(name), seed, text)] += 1
            except BaseException:
                print(f"run {number} (--start {number} --runs 1)")
                raise
    return counts


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--start", type=int, default=0)
    given = parser.parse_args()
    counts = fuzz(given.runs, given.start)
    told = ", ".join(f"{count} {what}" for what, count in counts.most_common())
    print(f"{given.runs} tampered plans: {told}; 0 other exceptions, 0 canaries")


if __name__ == "__main__":
    main()
