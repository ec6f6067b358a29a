"""Recurrent: the layers that `torch.export` doesn't break up: LSTM, GRU and plain RNN."""

from __future__ import annotations

from torch import fx

from penjing.network.axes.algebra import Axis, Concat, Expression, Product, size
from penjing.network.axes.trace import Dims, Trace


def recurrent(trace: Trace, node: fx.Node) -> tuple[Dims, ...]:
    """x_TBI, states_LBH, w_(gH)I, w_(gH)H, b_(gH).. -> y_TB(dH), states: H shrinks in all gates.

    The `d` directions stand side by side in the output. All layers and directions share one H,
    because their states are one tensor.
    """
    x = trace.of(node.args[0])
    lstm = "lstm" in str(node.target)
    states = node.args[1] if lstm else [node.args[1]]
    assert isinstance(states, list | tuple)
    assert isinstance(node.args[2], list | tuple)
    weights = [trace.of(weight) for weight in node.args[2]]
    biased, layers, _, _, bidirectional = node.args[3:8]
    assert isinstance(layers, int)
    directions = 2 if bidirectional else 1
    per_cell = len(weights) // (layers * directions)
    if per_cell > (4 if biased else 2):
        return _pinned(trace, node, weights)
    hidden = Axis(size(weights[1][1]))
    for state in states:
        trace.join(node, trace.of(state)[-1], hidden)
    inputs: Expression = x[-1]
    for layer in range(layers):
        outputs: list[Expression] = []
        for direction in range(directions):
            start = per_cell * (layer * directions + direction)
            _cell(trace, node, weights[start : start + per_cell], inputs, hidden)
            outputs.append(hidden)
        inputs = Concat(tuple(outputs)) if directions > 1 else hidden
    shapes = trace.shapes[node]
    result = [(*x[:-1], inputs)]
    why = "it belongs to a recurrent state"
    result += [(*trace.fixed(node, why, shape[:-1]), hidden) for shape in shapes[1:]]
    return tuple(result)


def _cell(
    trace: Trace, node: fx.Node, weights: list[Dims], inputs: Expression, hidden: Axis
) -> None:
    gates = size(weights[0][0]) // hidden.size
    packed = Product((trace.fixed(node, "it counts the gates of a cell", (gates,))[0], hidden))
    trace.join(node, weights[0][1], inputs)
    trace.join(node, weights[1][1], hidden)
    for dims in weights:
        trace.join(node, dims[0], packed)


def _pinned(trace: Trace, node: fx.Node, weights: list[Dims]) -> tuple[Dims, ...]:
    why = "penjing doesn't shrink recurrent layers with a projection"
    for dims in (*weights, *(trace.of(source) for source in node.all_input_nodes)):
        trace.pin(node, dims, why)
    return tuple(trace.fixed(node, why, shape) for shape in trace.shapes[node])
