"""Values of 16 bits: which of them are, what they are worth, and who refuses them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.arith.quantizer import INT16
from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.network import Network, capture
from penjing.network.edits.checking.allowed import require_known
from penjing.network.graph.qparams import value_qparams
from penjing.network.lowering.form import UNSIGNED
from penjing.network.lowering.lower import lowered
from penjing.network.save import restore, save
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.registry import find_runtime
from penjing.targets import find_target
from penjing.tasks.task import Task


class Branches(nn.Module):
    """Two branches that are concatenated, a sum, gates, a pool, and a linear layer."""

    def __init__(self, gate: Any = torch.sigmoid) -> None:
        super().__init__()
        self.stem, self.left = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 4, 3, padding=1)
        self.right, self.join = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 8, 1)
        self.last, self.gate = nn.Linear(8, 5), gate

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        y = torch.cat([torch.relu(self.left(x)), self.gate(self.right(x))], 1)
        y = torch.relu(self.join(y) + x)
        return self.last(functional.max_pool2d(y, 2).mean((2, 3)))


def task_of(model: nn.Module) -> Task:
    torch.manual_seed(0)
    batches = [(torch.randn(16, 3, 8, 8), torch.arange(16) % 5) for _ in range(4)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)


@pytest.fixture(scope="module")
def task() -> Task:
    torch.manual_seed(0)
    return task_of(Branches())


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return capture(task.model, task.example)


MEAN = {"adaptive_avg_pool2d_default", "flatten_using_ints"}
"""What a mean over height and width becomes."""


def _wide(network: Network) -> set[str]:
    """The names of the values that have 16 bits."""
    found = [qparams for qparams in value_qparams(network) if qparams.is_wide]
    assert all(qparams.integers == (0, *INT16) for qparams in found)
    return {qparams.source.name for qparams in found}


@pytest.mark.parametrize(
    ("layers", "wide"),
    [
        ((), set()),
        (("last",), {"linear"}),
        (("stem",), {"relu", "relu_2", "max_pool2d", *MEAN}),
        (("left",), {"relu_1", "cat", "sigmoid"}),
        (("right",), {"conv2d_2", "sigmoid", "cat", "relu_1"}),
    ],
)
def test_these_results_have_16_bits_and_what_is_made_of_them_up_to_the_next_layer(
    network: Network, task: Task, layers: tuple[str, ...], wide: set[str]
) -> None:
    made = Quantize(outputs=True, elementwise=True, int16=layers)(network, task)
    assert _wide(made) == wide


def test_they_are_nearer_to_the_real_numbers(network: Network, task: Task) -> None:
    x = task.train[1][0]  # type: ignore[index]
    lost = []
    for layers in ((), ("last",), ("stem", "left", "right", "join", "last")):
        made = Quantize(outputs=True, elementwise=True, int16=layers)(network, task)
        with torch.no_grad():
            lost.append(float((made(x) - network(x)).square().mean()))
    assert lost == sorted(lost, reverse=True)
    assert lost[-1] < 0.5 * lost[0]


def test_a_result_that_an_operator_of_eight_bits_reads_keeps_eight() -> None:
    task = task_of(Branches(functional.hardswish))
    network = capture(task.model, task.example)
    quantize = Quantize(outputs=True, elementwise=True, int16=("right",))
    plan = quantize.plan(network, task)
    (left,) = [left for left in plan.left_alone if left.what == "right"]
    assert "no kernel for 16" in left.why
    assert not _wide(quantize(network, task))


def test_such_a_network_is_saved_and_restored(network: Network, task: Task, tmp_path: Path) -> None:
    made = Quantize(outputs=True, int16=("last",))(network, task)
    save(made, tmp_path)
    again = restore(tmp_path, task.model, task.example)
    x = task.train[1][0]  # type: ignore[index]
    with torch.no_grad():
        assert torch.equal(made(x), again(x))


def test_it_can_be_trained(network: Network, task: Task) -> None:
    made = Quantize(outputs=True, int16=("stem",))(network, task)
    made(task.train[0][0]).square().sum().backward()  # type: ignore[index]
    assert all(one.grad is not None and one.grad.any() for one in made.parameters())


def test_who_has_no_16_bits_refuses_in_one_line(
    network: Network, task: Task, tmp_path: Path
) -> None:
    made = Quantize(int16=("stem",))(network, task)
    runtime = find_runtime("onnxruntime")
    words = r"\d values have 16 bits; onnxruntime keeps values in 8: leave out int16"
    with pytest.raises(InputError, match=words):
        runtime.require_possible(made, find_target("cpu"))
    with pytest.raises(InputError, match="16 bits; this runtime keeps"):
        runtime.lower(made, tmp_path / "a.onnx")
    with pytest.raises(InputError, match="16 bits; this runtime keeps"):
        lowered(made, UNSIGNED)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"int16": ("head",)}, r"int16 names 'head', but the network has no such layer"),
        ({"int16": ("last",), "activations": None}, r"int16 needs activations"),
    ],
)
def test_wrong_options_are_refused(
    network: Network, task: Task, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        Quantize(**options).plan(network, task)


@pytest.mark.parametrize(
    "integers",
    [(0, -32768, 32766), (1, -32768, 32767), (0, 0, 65535), (0, -32769, 32767), (0.0, -32768, 1)],
)
def test_other_integers_of_more_than_eight_bits_are_refused(integers: tuple[Any, ...]) -> None:
    zero, low, high = integers
    qparams = {"scale": 0.1, "zero_point": zero, "low": low, "high": high, "root": "x"}
    edit = {"edit": "fake_quantize", "activations": {"x": qparams}, "weights": {}}
    with pytest.raises(UnsafeError, match="eight bits or those of int16 around 0"):
        require_known(Plan("Quantize", {}, (edit,)))
