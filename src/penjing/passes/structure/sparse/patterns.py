"""Patterns: which weights go together when single weights are removed, and how many may stay."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from penjing.errors import InputError

LEAST_KEPT = 0.25
"""In a global ranking, every layer keeps at least this share of what it would keep alone."""


@dataclass(frozen=True)
class Pattern:
    """How zeros are arranged in a weight w_OI..; for a convolution, in each tap alike.

    Attributes:
        rows, columns: the size of a block of adjacent outputs and inputs that goes as one.
        stay: how many of each `columns` adjacent inputs stay; None where any number may.
    """

    rows: int = 1
    columns: int = 1
    stay: int | None = None

    @classmethod
    def read(cls, text: str | None) -> Pattern:
        """Read `"2:4"` (2 of 4 adjacent inputs stay) or `"1x4"` (blocks of 1 output, 4 inputs).

        Raises:
            InputError: the text is neither, or would keep no or all weights.

        >>> Pattern.read("2:4")
        Pattern(rows=1, columns=4, stay=2)
        """
        if text is None:
            return cls()
        match = re.fullmatch(r"([1-9]\d{0,2})([:x])([1-9]\d{0,2})", str(text))
        first, kind, second = match.groups() if match else ("1", ":", "1")
        if kind == ":" and int(first) >= int(second):
            raise InputError(
                f"pattern must be None, N:M with N < M, such as '2:4', or a block of outputs and "
                f"inputs, such as '1x4'; found {text!r}"
            )
        if kind == ":":
            return cls(1, int(second), int(first))
        return cls(int(first), int(second))

    @property
    def share(self) -> float | None:
        """The share of zeros that the pattern itself sets; None if it sets none."""
        return None if self.stay is None else 1 - self.stay / self.columns

    def misfit(self, weight: Tensor) -> str:
        """Why the pattern doesn't fit a weight; empty if it does."""
        outputs, inputs = weight.shape[:2]
        if inputs % self.columns:
            return f"its {inputs} inputs can't be divided by {self.columns}"
        return f"its {outputs} outputs can't be divided by {self.rows}" * bool(outputs % self.rows)

    def units(self, scores: Tensor) -> Tensor:
        """The sums of scores over the weights that go as one, (O / rows, I / columns, taps)."""
        if self.stay is not None:
            return scores
        outputs, inputs = scores.shape[:2]
        shape = (outputs // self.rows, self.rows, inputs // self.columns, self.columns, -1)
        return scores.reshape(shape).sum((1, 3))

    def spread(self, kept: Tensor, shape: torch.Size) -> Tensor:
        """The mask of a weight of that shape, from what stays of its units."""
        outputs, inputs = shape[:2]
        kept = kept.reshape(outputs // self.rows, 1, inputs // self.columns, 1, -1)
        return kept.expand(-1, self.rows, -1, self.columns, -1).reshape(shape)

    def some_of_each(self, scores: Tensor, done: float) -> Tensor:
        """The mask that keeps `stay` of each `columns` inputs, or more while `done` is below 1."""
        outputs, inputs = scores.shape[:2]
        stay = self.columns - round((self.columns - (self.stay or 0)) * done)
        groups = scores.reshape(outputs, inputs // self.columns, self.columns, -1)
        best = torch.argsort(groups, stable=True, dim=2, descending=True)[:, :, :stay]
        return torch.zeros_like(groups, dtype=torch.bool).scatter_(2, best, True).view_as(scores)


def masks(
    scores: Mapping[str, Tensor],
    shares: Mapping[str, float],
    pattern: Pattern,
    together: bool,
    done: float = 1.0,
) -> dict[str, Tensor]:
    """Which weights stay: those with the largest scores.

    Args:
        scores: by name of a weight, one score for each of its numbers, in its shape.
        shares: by name, the share of the weight to remove in the end, 0 <= share < 1.
        pattern: what goes together.
        together: rank all weights of the same share together. Each keeps at least `LEAST_KEPT` of
            what it would keep alone, and never less than one unit.
        done: how much of its share goes now, 0..1.

    Returns:
        By name, a mask in the shape of the weight.
    """
    if pattern.stay is not None:
        return {name: pattern.some_of_each(score, done) for name, score in scores.items()}
    units = {name: pattern.units(score.double()) for name, score in scores.items()}
    kept: dict[str, Tensor] = {}
    lots = [[name] for name in units]
    if together:
        lots = [[name for name in units if shares[name] == s] for s in {*shares.values()}]
    for lot in lots:
        kept |= _largest({name: units[name] for name in lot}, shares[lot[0]], done)
    return {name: pattern.spread(kept[name], score.shape) for name, score in scores.items()}


def _largest(units: Mapping[str, Tensor], share: float, done: float) -> dict[str, Tensor]:
    """Mark all units except those with the lowest scores in a common ranking."""
    ranked = []
    for score in units.values():
        flat = score.flatten().clone()
        least = max(1, int(LEAST_KEPT * (1 - share) * len(flat)))
        flat[flat.topk(least).indices] = torch.inf
        ranked.append(flat)
    every = torch.cat(ranked)
    removed = every.argsort(stable=True)[: round(share * done * len(every))]
    stays = torch.ones(len(every), dtype=torch.bool, device=every.device)
    stays[removed] = False
    stays |= every.isinf()
    parts = torch.split(stays, [score.numel() for score in units.values()])
    return {
        name: part.view_as(score) for (name, score), part in zip(units.items(), parts, strict=True)
    }
