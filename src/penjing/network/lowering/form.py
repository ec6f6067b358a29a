"""Form: how a runtime wants a network to be written."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["moves", "averages", "means", "maxima", "gates"]
"""Operators that can be written as convolutions:

    moves       slices with a stride, and padding of channels
    averages    average pools whose input and output have different quantization parameters
    means       adaptive average pools of that kind whose output is 1 x 1
    maxima      the padding of max pools over values that aren't negative
    gates       hard sigmoids whose output range is 0 to 1
"""

Cell = Literal["gru", "lstm", "rnn"]


@dataclass(frozen=True)
class Form:
    """How a runtime wants a network to be written. Every form computes the same numbers.

    Attributes:
        values: the type of quantized activations: `torch.uint8`, or `torch.int8` with all integers
            lower by 128.
        codes: whether weights and biases are stored as integers, with a dequantize behind them. If
            not, weights are real multiples of their scale, with a quantize and a dequantize behind
            them, and biases are real numbers.
        biases: whether biases are stored as integers where weights are.
        joins: whether a concatenation whose parts share quantization parameters is quantized once
            more, which changes no number.
        one_reader: whether each reader of integers has a dequantize of its own, as torchao's
            quantizer leaves it.
        choices: whether the output of an operator that selects from values with different
            quantization parameters is quantized, with a range that covers all of them.
        real_softmax: whether a softmax between integers is computed on real numbers, unless its
            result has the one scale of integer kernels.
        pools: whether means over height and width are written as pools.
        recurrence: the kinds of recurrent layers whose matrices are integers with a dequantize
            behind them, which the runtime computes once; those of others are real numbers.
        convolutions: the kinds of operators that are written as convolutions.
        int16: whether activations may have 16 bits. They are written as int8 with a larger scale,
            and the runtime makes int16 of these in the converter's file.
    """

    values: torch.dtype = torch.uint8
    codes: bool = True
    biases: bool = True
    joins: bool = True
    one_reader: bool = False
    choices: bool = False
    real_softmax: bool = False
    pools: bool = False
    recurrence: tuple[Cell, ...] = ("gru", "lstm", "rnn")
    convolutions: tuple[Kind, ...] = ()
    int16: bool = False

    @property
    def ends(self) -> tuple[int, int, torch.dtype]:
        """The smallest and the largest integer of an activation, and their type."""
        limits = torch.iinfo(self.values)
        return (int(limits.min), int(limits.max), self.values)


UNSIGNED = Form()
