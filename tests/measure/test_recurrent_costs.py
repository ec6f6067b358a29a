"""MACs of recurrent networks: by hand, as torch counts them, and as expected of a cut."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from penjing.contract import Plan
from penjing.measure.cost_model import cost_in_macs
from penjing.measure.costs import totals
from penjing.network import capture, carry_out, find_axes

STEPS, INPUTS, HIDDEN, OUTPUTS = 7, 5, 8, 3


class Last(nn.Module):
    """A recurrent layer, and a linear one after its last step."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.rnn = kind(INPUTS, HIDDEN, batch_first=True, **options)
        width = self.rnn(torch.zeros(1, 1, INPUTS))[0].shape[-1]
        self.head = nn.Linear(width, OUTPUTS)

    def forward(self, x: Tensor) -> Tensor:
        """x_NTI -> y_NO."""
        return self.head(self.rnn(x)[0][:, -1])


@pytest.mark.parametrize(("kind", "gates"), [(nn.RNN, 1), (nn.GRU, 3), (nn.LSTM, 4)])
def test_each_step_multiplies_by_the_matrices_of_all_gates(
    kind: type[nn.RNNBase], gates: int
) -> None:
    network = capture(Last(kind).eval(), torch.zeros(2, STEPS, INPUTS))
    of_a_step = gates * (INPUTS * HIDDEN + HIDDEN * HIDDEN)
    assert totals(network)[0] == STEPS * of_a_step + HIDDEN * OUTPUTS


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        (nn.GRU, {"num_layers": 2, "bidirectional": True}),
        (nn.LSTM, {"num_layers": 3, "bias": False}),
        (nn.LSTM, {"proj_size": 3, "num_layers": 2, "bidirectional": True}),
        (nn.RNN, {"nonlinearity": "relu"}),
    ],
)
@pytest.mark.filterwarnings("ignore:.*oneDNN:UserWarning")
def test_macs_are_what_torch_counts(kind: type[nn.RNNBase], options: dict[str, Any]) -> None:
    model, x = Last(kind, **options).eval(), torch.zeros(2, STEPS, INPUTS)
    with (
        FlopCounterMode(display=False) as counter,
        torch.no_grad(),
        torch.backends.mkldnn.flags(enabled=False),  # whose LSTM it doesn't see into
    ):
        model(x)
    assert totals(capture(model, x))[0] == counter.get_total_flops() / 2 / len(x)


def test_a_cost_model_knows_what_a_narrower_state_saves() -> None:
    network = capture(
        Last(nn.GRU, num_layers=2, bidirectional=True).eval(), torch.zeros(2, STEPS, INPUTS)
    )
    axes = find_axes(network)
    (state,) = axes.free
    cut = carry_out(network, Plan("cut", {}, ({"edit": "shrink", "axes": {state: [0, 2, 5]}},)))
    assert cost_in_macs(axes).total({state: 3}) == totals(cut)[0] < totals(network)[0]
