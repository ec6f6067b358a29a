"""What tests of fits share: a clock that stands still, and times that are told by name.

A fit with these ends alike on every machine, however slow or busy.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn

from penjing.contract import Array, Artifact, Input, Latency, Placement, Session, as_arrays
from penjing.files import sha256_of, write_atomically
from penjing.network import Network, restore, save
from penjing.network.graph.qparams import qparams_in
from penjing.runtimes import registry
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import Entry
from penjing.runtimes.signature import Signature
from penjing.search import folder
from penjing.targets import Target, this_machine
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task, as_call, cross_entropy
from penjing.trials.evaluation.files import STEM
from penjing.trials.evaluation.instruments import Instruments


@dataclass
class Told:
    """A clock, a timer and a profiler that say what they are told to.

    Attributes:
        ratio: what a file takes of the original's time, by its candidate's name.
        disturbed: of these candidates no figure is ever good.
        slow: layers that every quantized file computes slower than float ones.
        now: the clock; whoever wants time to pass adds to it.
        sittings: which candidates were timed side by side, in order.
    """

    ratio: Callable[[str], float]
    disturbed: Collection[str] = ()
    slow: Collection[str] = ()
    now: float = 0.0
    sittings: list[tuple[str, ...]] = field(default_factory=list)

    def instruments(self) -> Instruments:
        """These, for a fit."""
        return Instruments(lambda: self.now, self.compare, lambda *_: None, self.profile)

    def compare(
        self,
        sessions: Mapping[str, Session],
        inputs: Any,
        baseline: str,
        seconds: float = 0.0,
        seed: int = 0,
    ) -> dict[str, Latency]:
        """As `penjing.measure.latency.compare`; every interval is the ratio and 2 % each way."""
        self.sittings.append(tuple(sessions))
        self.now += seconds
        return {name: self._latency(name, baseline) for name in sessions}

    def _latency(self, name: str, baseline: str) -> Latency:
        ratio = self.ratio(name) / self.ratio(baseline)
        spread = 0.0 if name == baseline else 0.02
        low, high = ratio * (1 - spread), ratio * (1 + spread)
        ms = self.ratio(name)
        return Latency(ms, ms, ratio, low, high, 15, name in self.disturbed)

    def profile(
        self, runtime: Runtime, artifact: Artifact, inputs: Any, runs: int
    ) -> Mapping[str, float] | None:
        """Layers of the original take 1, those of every other file 2 if they are slow."""
        if not self.slow:
            return {}
        quantized = any(True for _ in qparams_in(Direct.networks[artifact.sha256]))
        return dict.fromkeys(self.slow, 2.0 if quantized else 1.0)


class Direct(Runtime):
    """The network itself, run by PyTorch: a runtime that takes no time to lower to.

    Its file holds the weights, in bytes where the network is quantized; `networks` has what each
    file was made from, and `store`, where it is set, has that for other processes too.
    """

    name: ClassVar[str] = "direct"
    ending: ClassVar[str] = ".direct"
    networks: ClassVar[dict[str, Network]] = {}
    store: ClassVar[tuple[Path, Task] | None] = None

    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        kind = np.dtype(np.int8 if any(True for _ in qparams_in(network)) else floats)
        peak = max(float(one.detach().abs().max()) for one in network.parameters()) / 127
        unit = peak if kind == np.int8 else 1.0
        parts = [
            (one.detach().numpy() / unit).astype(kind).tobytes() for one in network.parameters()
        ]
        write_atomically(path, self.name.encode() + b"".join(parts))
        found = self.artifact(path)
        self.networks[found.sha256] = network
        if self.store is not None:
            save(network, self.store[0] / found.sha256)
        return found

    def open(self, contents: list[bytes], threads: int = 1) -> Session:
        sha256 = sha256_of(*contents)
        if sha256 not in self.networks and self.store is not None:
            folder, task = self.store
            self.networks[sha256] = restore(folder / sha256, task.model, task.example)
        return _Running(self.networks[sha256])

    def placement(self, artifact: Artifact) -> list[Placement]:
        return []

    def signature(self, artifact: Artifact) -> Signature:
        return Signature((), ())

    def loading(self, path: Path, signature: Signature) -> str:
        return ""


class Another(Direct):
    """The same under another name, as a second runtime of the target."""

    name: ClassVar[str] = "another"
    ending: ClassVar[str] = ".another"


@dataclass
class _Running:
    network: Network
    inputs: tuple[Input, ...] = ()

    def run(self, inputs: Any) -> Array:
        args, kwargs = as_call(torch.utils._pytree.tree_map(torch.as_tensor, inputs))
        with torch.no_grad():
            outputs: Array = as_arrays(self.network(*args, **kwargs))
        return outputs


def known(monkeypatch: pytest.MonkeyPatch, *runtimes: type[Runtime]) -> None:
    """Let these be among the runtimes, and their files among those that are penjing's."""
    for one in runtimes:
        entry = Entry(f"{one.__module__}:{one.__name__}", one.ending, ("numpy",), "", "")
        monkeypatch.setitem(registry.ENTRIES, one.name, entry)
    for kept in ("DELIVERED", "OF_CANDIDATES"):
        names = {f"{STEM}{runtime.ending}" for runtime in runtimes}
        monkeypatch.setattr(folder, kept, getattr(folder, kept) | names)


def only(monkeypatch: pytest.MonkeyPatch, *runtimes: type[Runtime], **changes: Any) -> Target:
    """Let fits find a target of this machine's that has these runtimes and nothing else."""
    known(monkeypatch, *runtimes)
    names = tuple(one.name for one in runtimes)
    target = replace(this_machine(), runtimes=names, channel_multiple=2, **changes)
    monkeypatch.setattr("penjing.search.fit.find_target", lambda _: target)
    return target


@dataclass
class Slowly:
    """A loss, and so a training step, or batches that let a told clock go on.

    Attributes:
        seconds: for each step or batch; from the one after `after` on it takes `later`.
    """

    told: Told
    seconds: float
    later: float | None = None
    after: int = 0
    batches: Arrays | None = None
    given: int = 0

    def __call__(self, outputs: Any, targets: torch.Tensor) -> torch.Tensor:
        self._tick()
        return cross_entropy(outputs, targets)

    def __len__(self) -> int:
        return len(self.batches or ())

    def __iter__(self) -> Iterator[Any]:
        for one in self.batches or ():
            self._tick()
            yield one

    def _tick(self) -> None:
        late = self.later is not None and self.given >= self.after
        self.told.now += (self.later or 0.0) if late else self.seconds
        self.given += 1


def small_task(samples: int = 120) -> Task:
    """Four classes that a network of two layers has learnt by heart, in a fraction of a second."""
    torch.manual_seed(0)
    x, y = torch.randn(samples, 3, 8, 8), torch.arange(samples) % 4
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(576, 4))
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        optimizer.zero_grad()
        torch.autograd.backward(nn.functional.cross_entropy(model(x), y))
        optimizer.step()
    splits = (Arrays(x + 1e-3 * k * torch.randn_like(x), y, batch_size=20) for k in range(3))
    train, validation, test = splits  # the same decisions, but not the same samples
    return Task(model.eval(), x[:2], train, test, validation, name="small")
