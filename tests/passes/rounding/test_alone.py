"""Weights of embeddings and recurrent layers: rounded by row, their values left alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from penjing.arith.fake_quantize import fake_quantize
from penjing.arith.quantizer import weight_scales
from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.network import Network, capture, carry_out, find_axes
from penjing.network.graph.qparams import alone_qparams, value_qparams, weight_qparams
from penjing.passes import MixedPrecision, Quantize
from penjing.tasks.task import Task
from tests.sequence_networks import WORDS, Reader, reading

MATRICES = {f"gru.weight_{of}_l0" for of in ("ih", "hh")}


@pytest.fixture(scope="module")
def task() -> Task:
    return reading(Reader(nn.GRU))


@pytest.fixture(scope="module")
def network(task: Task) -> Network:
    return capture(task.model, task.example)


def rounded(network: Network) -> set[str]:
    return {qparams.source_name for qparams in alone_qparams(network)}


def test_the_table_and_the_matrices_are_rounded_by_row_and_nothing_in_the_recurrence_is(
    network: Network, task: Task
) -> None:
    quantized = Quantize(samples=16)(network, task)
    assert rounded(quantized) == {"words.weight", *MATRICES}
    assert all(qparams.source.op != "get_attr" for qparams in value_qparams(quantized))
    model = Reader(nn.GRU)
    model.load_state_dict(network.state_dict())
    for name in rounded(quantized):
        weight = model.get_parameter(name)
        scales = weight_scales(weight)
        assert torch.equal(quantized.tensor(f"{name}_scale"), scales)
        weight.data = fake_quantize(weight.detach(), scales, 0, -127, 127)
    x = task.example
    alone = Quantize(activations=None, skip=("head",))(network, task)
    assert not weight_qparams(alone)
    assert not value_qparams(alone)
    assert torch.allclose(alone(x), model(x), atol=1e-6)
    assert not torch.equal(alone(x), network(x))


def test_the_plan_tells_of_them(network: Network, task: Task) -> None:
    plan = Quantize(activations=None).plan(network, task)
    assert plan.summary == (
        "quantizes the weights of 1 layer to 8 bits; activations stay in float; and 3 weights of "
        "embeddings and recurrent layers"
    )
    assert (
        carry_out(network, Plan.from_json(plan.to_json())).state_dict().keys()
        == carry_out(network, plan).state_dict().keys()
    )


def test_what_is_named_stays_in_float_or_gets_other_bits(network: Network, task: Task) -> None:
    assert rounded(Quantize(activations=None, skip=("gru",))(network, task)) == {"words.weight"}
    kept = Quantize(activations=None, recurrent=False).plan(network, task)
    assert {left.what for left in kept.left_alone} == MATRICES
    four = Quantize(activations=None, layers={"words": 4, "gru": 0})(network, task)
    assert [qparams.bits for qparams in alone_qparams(four)] == [4]
    with pytest.raises(InputError, match=r"skip names 'wrods'.*it has head, words, gru"):
        Quantize(skip=("wrods",)).plan(network, task)


def test_mixed_precision_rounds_them_too(network: Network, task: Task) -> None:
    mixed = MixedPrecision(bytes=0.3, widths=(4, 8), samples=16)(network, task)
    assert rounded(mixed) == {"words.weight", *MATRICES}


class Tied(nn.Module):
    """A head that scores each word by the table in which they are looked up."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.mix = nn.Embedding(WORDS, 16), nn.Linear(16, 16)

    def forward(self, x: Tensor) -> Tensor:
        """x_NT -> y_NV."""
        return self.mix(self.words(x)).mean(1) @ self.words.weight.mT


class Small(Tied):
    """With a table of its own, so small that an operator more would take what integers save."""

    def forward(self, x: Tensor) -> Tensor:
        """x_NT -> y_N16."""
        return self.mix(self.words(x[:, :4] % 9)).mean(1)


@pytest.mark.parametrize(
    ("model", "why"),
    [(Tied, "it shares its weight with another layer"), (Small, "integers would save only")],
)
def test_what_cant_or_neednt_be_rounded_is_said(model: type[Tied], why: str) -> None:
    built = model()
    if model is Small:
        built.words = nn.Embedding(9, 16)
    task = reading(built)
    plan = Quantize(activations=None).plan(capture(task.model, task.example), task)
    (left,) = plan.left_alone
    assert (left.what, why in left.why) == ("words.weight", True)


def test_a_state_is_pruned_after_its_matrices_were_rounded(network: Network, task: Task) -> None:
    quantized = Quantize(activations=None)(network, task)
    keep = list(range(0, 32, 2))
    (state,) = (key for key, axis in find_axes(quantized).free.items() if axis.size == 32)
    cut = carry_out(quantized, Plan("cut", {}, ({"edit": "shrink", "axes": {state: keep}},)))
    assert cut.tensor("gru.weight_hh_l0").shape == (48, 16)
    assert cut.tensor("gru.weight_hh_l0_scale").shape == (48,)
    assert cut(task.example).isfinite().all()


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({"head.weight": {"scales": [1.0] * 4, "low": -127, "high": 127}}, "no embedding"),
        ({"words.weight": {"scales": [1.0], "low": -127, "high": 127}}, "for the 300 rows"),
        ({"words.weight": {"scales": [1.0] * 300, "low": -300, "high": 127}}, "1 to 8 bits"),
    ],
)
def test_an_edit_that_doesnt_fit_is_refused(network: Network, tensors: object, why: str) -> None:
    plan = {"method": "Quantize", "options": {}, "summary": "", "left_alone": [], "notes": [],
            "parts": [], "edits": [{"edit": "round_tensors", "tensors": tensors}]}  # fmt: skip
    with pytest.raises(UnsafeError, match=why):
        carry_out(network, Plan.from_json(plan))
