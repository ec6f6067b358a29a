"""Small networks that every runtime is asked to take, and what it must not do with its files."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Artifact, Estimate, Session, as_arrays
from penjing.errors import UnsafeError
from penjing.network import Network, capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.tasks.task import Task, as_call
from tests.passes.rounding.test_quantize import Chained, Small
from tests.runtimes.onnx.test_onnxruntime import Two


class Signal(nn.Module):
    """Convolutions over one dimension, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv1d(2, 8, 5, padding=2), nn.Conv1d(8, 8, 3, 2, 1)
        self.linear = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.linear(x.mean(2))


class Token(nn.Module):
    """A patch convolution, a learned token before its patches, a norm, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, 12, 4, 4), nn.LayerNorm(12)
        self.token = nn.Parameter(torch.randn(1, 1, 12))
        nn.init.normal_(self.patch.get_parameter("bias"))
        self.first, self.last = nn.Linear(12, 12), nn.Linear(12, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1)
        return self.last(self.first(self.norm(x)).mean(1))


class Gated(nn.Module):
    """Activations that gate themselves, squeeze-and-excitation of both kinds, a sum in place."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.narrow, self.widen = nn.Conv2d(8, 4, 1), nn.Conv2d(4, 8, 1)
        self.join, self.last = nn.Conv2d(8, 8, 1), nn.Conv2d(8, 5, 8)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.silu(self.first(x))
        y = functional.hardswish(self.second(x))
        y = y * torch.sigmoid(self.excite(functional.silu(self.squeeze(y.mean((2, 3), True)))))
        y = y * functional.hardsigmoid(self.widen(self.narrow(y.mean((2, 3), True)).relu()))
        y = self.join(y)
        y += x
        return self.last(y).flatten(1)


def linear() -> nn.Module:
    """Linear layers only."""
    return nn.Sequential(
        nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 3)
    )


Made = tuple[Network, Any, Artifact]
"""A network, inputs, and its file."""
Maker = Callable[[str, bool], Made]

PAIR = {"left": torch.zeros(2, 4), "right": torch.zeros(2, 4)}
NETWORKS: dict[str, tuple[Any, Any]] = {
    "small": (Small, torch.zeros(2, 3, 8, 8)),
    "linear": (linear, torch.zeros(2, 6)),
    "signal": (Signal, torch.zeros(2, 2, 32)),
    "chained": (Chained, torch.zeros(2, 3, 8, 8)),
    "gated": (Gated, torch.zeros(2, 3, 8, 8)),
    "token": (Token, torch.zeros(2, 3, 8, 8)),
    "pair to dict": (lambda: Two(True), PAIR),
    "pair to tuple": (lambda: Two(False), PAIR),
}
"""By name: how to make it, and an example whose values don't matter."""


def here(name: str) -> Runtime:
    """The runtime of that name; a test is skipped where it isn't installed."""
    if absent := ENTRIES[name].absent:
        pytest.skip(absent)
    return find_runtime(name)


def like(example: Any, samples: int) -> Any:
    """Random inputs of that structure."""
    if isinstance(example, dict):
        return {name: like(one, samples) for name, one in example.items()}
    return torch.randn(samples, *example.shape[1:])


def network_of(name: str, quantized: bool, **constraints: Any) -> tuple[Network, Any]:
    """The captured network, int8 if wanted, as a runtime needs it, and 16 samples."""
    torch.manual_seed(0)
    make, example = NETWORKS[name]
    batches = [(like(example, 16), torch.arange(16) % 2) for _ in range(4)]
    task = Task(make().eval(), like(example, 2), batches, batches)
    network = capture(task.model, task.example)
    if quantized:
        network = Quantize(samples=64, **constraints)(network, task)
    return network, batches[0][0]


def made_once(runtime: Runtime, folder: Path) -> Maker:
    """Makes the file of a network of that name, in integers or not, when it is first asked for."""

    @functools.cache
    def make(name: str, quantized: bool) -> Made:
        network, inputs = network_of(name, quantized, **runtime.constraints)
        path = folder / f"{name}{quantized}{runtime.ending}"
        return network, inputs, runtime.lower(network, path)

    return make


def gap(network: Network, session: Session, inputs: Any) -> float:
    """The worst difference of any output to the network's, over the spread of that output."""
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        wanted = network(*args, **kwargs)
    found = session.run(as_arrays(inputs))
    assert type(found) is (np.ndarray if isinstance(wanted, Tensor) else type(wanted))
    if isinstance(wanted, dict):
        assert list(found) == list(wanted)
    leaves = torch.utils._pytree.tree_leaves
    pairs = zip(leaves(wanted), leaves(found), strict=True)
    return max(float(np.abs(one.numpy() - other).max() / one.std()) for one, other in pairs)


def assert_damage_is_refused(
    runtime: Runtime, artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    """100 flipped bits or cut ends, in any of the files: refused, unseen by the runtime."""

    def seen(*_: Any) -> None:
        raise AssertionError("the runtime saw a damaged file")

    monkeypatch.setattr(type(runtime), "open", seen)
    draw = random.Random(0)
    paths = runtime.files(artifact.path)
    for turn in range(100):
        path = draw.choice(paths)
        whole = path.read_bytes()
        damaged = bytearray(whole)
        if turn % 2:
            damaged[draw.randrange(len(damaged))] ^= 1 << draw.randrange(8)
        else:
            del damaged[draw.randrange(len(damaged)) :]
        path.write_bytes(damaged)
        with pytest.raises(UnsafeError, match="has changed"):
            runtime.load(artifact)
        path.write_bytes(whole)
    assert runtime.artifact(artifact.path) == artifact


def first(inputs: Any, samples: int) -> Any:
    """The first samples of a batch's inputs."""
    if isinstance(inputs, dict):
        return {name: one[:samples] for name, one in inputs.items()}
    return inputs[:samples]


def assert_estimated_by_vela(found: Estimate, accelerator: str) -> None:
    """All figures are there, they are of that NPU, and say whose they are."""
    assert found.source.startswith("estimated by Vela 5")
    assert accelerator.replace("-", "_").lower() in found.machine.lower()
    assert all(
        (getattr(found, one) or 0) > 0
        for one in ("latency_ms", "cycles", "cycles_npu", "sram_bytes", "flash_bytes", "macs")
    )
    assert found.dram_bytes == 0


def assert_zeros_fit(session: Session) -> None:
    """What a session says of its inputs is what it takes."""
    found = session.run({one.name: one.zeros() for one in session.inputs})
    assert all(np.isfinite(one).all() for one in torch.utils._pytree.tree_leaves(found))
