"""The form in which a runtime takes a network."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch

Kind = Literal["moves", "averages", "means", "maxima", "gates"]
"""Slices with a stride and padded channels; average pools between two grids; adaptive ones among
those that give 1 x 1; the padding of pools of maxima over values >= 0; hard sigmoids whose grid
ends at 0 and 1."""


@dataclass(frozen=True)
class Form:
    """How a runtime wants a network written down; what it computes is the same in every form.

    Attributes:
        values: `torch.uint8`, or `torch.int8` with everything moved down by 128.
        codes: whether weights and biases are integers with a dequantize behind them. If not,
            weights are real numbers on their grid with a quantize and a dequantize behind them,
            and biases real numbers on theirs.
        biases: whether biases are integers where weights are.
        joins: whether a concatenation of values on one grid is rounded to it once more, which
            changes no number.
        choices: whether what an operator chooses from values on several grids is rounded to one
            that reaches as far as all of theirs.
        pools: whether means over height and width are written as pools.
        convolutions: operators of which kinds are written as convolutions, which give the same
            numbers.
    """

    values: torch.dtype = torch.uint8
    codes: bool = True
    biases: bool = True
    joins: bool = True
    choices: bool = False
    pools: bool = False
    convolutions: tuple[Kind, ...] = ()

    @property
    def ends(self) -> tuple[int, int, torch.dtype]:
        """The least and the greatest value, and their type."""
        limits = torch.iinfo(self.values)
        return (int(limits.min), int(limits.max), self.values)


UNSIGNED = Form()
