"""Recurrent: LSTM, GRU and plain RNN as `torch.export` gives them, one operator for all steps."""

from __future__ import annotations

import torch
from torch import fx

aten = torch.ops.aten
RECURRENT = {
    aten.gru.input, aten.lstm.input, aten.rnn_tanh.input, aten.rnn_relu.input
}  # fmt: skip
"""Operators over x_TBI or x_BTI that repeat a cell for each step."""
WEIGHTS = 2
"""The place of their weights among their arguments: a list for all layers and directions."""


def matrices_of(node: fx.Node) -> list[fx.Node]:
    """The weights that an operator multiplies by in each step: for each layer and direction,
    w_(gH)I of its inputs, w_(gH)H of its state, and that of a projection. Biases aren't among them.

    A cell has two biases or none, and they follow its first two matrices.
    """
    weights, biased, layers, *_ = node.args[WEIGHTS:]
    bidirectional = node.args[7]
    assert isinstance(weights, list | tuple)
    assert isinstance(layers, int)
    per_cell = len(weights) // (layers * (2 if bidirectional else 1))
    biases = (2, 3) if biased else ()
    return [
        weight
        for place, weight in enumerate(weights)
        if isinstance(weight, fx.Node) and place % per_cell not in biases
    ]
