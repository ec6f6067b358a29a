"""Quantizers: how a real range is laid on integers, and the numeric search for that range.

Activations: uint8, per tensor, x ~ scale * (q - zero_point); 0.0 is always exact.
Weights: int8 in -127..127, one scale per output channel (dimension 0), zero point 0.

Legend: C output channels, B histogram bins, K candidate ranges.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Ranges = Literal["mse", "percentile", "minmax"]
BINS = 8192
LEVELS = 255
SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class Affine:
    """x = scale * (q - zero_point), q in 0..255.

    >>> Affine.over(-1.0, 1.55).zero_point
    100
    """

    scale: float
    zero_point: int

    @classmethod
    def over(cls, low: float, high: float) -> Affine:
        """The grid that covers low..high and zero; float32 scale, zero point an integer."""
        low, high = min(low, 0.0), max(high, 0.0)
        width = max((high - low) / LEVELS, SMALLEST_SCALE)
        scale = float(torch.tensor(width, dtype=torch.float32))
        return cls(scale, max(0, min(LEVELS, round(-low / scale))))

    def round(self, x: Tensor) -> Tensor:
        """`x` after quantizing and dequantizing; same shape."""
        q = torch.round(x / self.scale) + self.zero_point
        return (q.clamp(0, LEVELS) - self.zero_point) * self.scale


class Histogram:
    """Counts of a stream of values over a symmetric range that doubles when it must.

    Exact zeros (behind a ReLU: most values) are left out, for every grid represents them exactly.

    Attributes:
        low, high: exact extremes seen, zero included.
    """

    def __init__(self) -> None:
        self.low, self.high = 0.0, 0.0
        self._reach = 0.0
        self._counts = torch.zeros(BINS, dtype=torch.float64)

    def add(self, values: Tensor) -> None:
        """Count `values`, any shape."""
        flat = values.detach().reshape(-1).float().cpu()
        flat = flat[flat != 0]
        if not flat.numel():
            return
        low, high = (float(one) for one in torch.aminmax(flat))
        self.low, self.high = min(self.low, low), max(self.high, high)
        self._widen(max(-low, high))
        self._counts += torch.histc(flat, BINS, -self._reach, self._reach).double()

    def _widen(self, needed: float) -> None:
        if self._reach == 0.0:
            self._reach = needed
        while self._reach < needed:
            inner = self._counts.reshape(-1, 2).sum(1)
            self._counts = torch.zeros_like(self._counts)
            self._counts[BINS // 4 : -BINS // 4] = inner
            self._reach *= 2

    @property
    def centres(self) -> Tensor:
        """The middle of each bin, shape (B,)."""
        step = 2 * self._reach / BINS
        return (torch.arange(BINS, dtype=torch.float64) + 0.5) * step - self._reach

    def range(self, how: Ranges, percentile: float = 99.99) -> tuple[float, float]:
        """The range low <= 0 <= high to lay the integers on, chosen by `how`."""
        if how == "minmax" or self._reach == 0.0:
            return self.low, self.high
        if how == "percentile":
            return self._percentile(percentile)
        return self._least_squares()

    def _percentile(self, percentile: float) -> tuple[float, float]:
        share = torch.cumsum(self._counts, 0) / self._counts.sum()
        rest = 1 - percentile / 100
        centres = self.centres
        low = float(centres[min(int(torch.searchsorted(share, rest)), BINS - 1)])
        high = float(centres[min(int(torch.searchsorted(share, 1 - rest)), BINS - 1)])
        return max(min(low, 0.0), self.low), min(max(high, 0.0), self.high)

    def _least_squares(self) -> tuple[float, float]:
        """Least mean squared error: first both ends together, then one after the other."""
        seen = self._counts > 0
        x, counts = self.centres[seen], self._counts[seen]
        shrink = [1 - step / 64 for step in range(52)]
        pairs = [(self.low * part, self.high * part) for part in shrink]
        best = _least(x, counts, pairs)
        if self.low < 0 < self.high:
            best = _least(x, counts, [(self.low * part, best[1]) for part in shrink] + [best])
            best = _least(x, counts, [(best[0], self.high * part) for part in shrink] + [best])
        return best


def _least(x: Tensor, counts: Tensor, pairs: list[tuple[float, float]]) -> tuple[float, float]:
    def error(pair: tuple[float, float]) -> float:
        return float((counts * (Affine.over(*pair).round(x) - x).square()).sum())

    return min(pairs, key=error)


def channel_scales(weight: Tensor, how: Ranges = "mse") -> Tensor:
    """One int8 scale per output channel, shape (C,), float32.

    `minmax` takes max|w| / 127; the others take the part (0.5..1) of it with the least squared
    error. A channel of zeros gets the scale 1.
    """
    rows = weight.detach().flatten(1).float()
    widest = rows.abs().amax(1) / 127
    widest = torch.where(widest < SMALLEST_SCALE, torch.ones_like(widest), widest)
    if how == "minmax":
        return widest
    best = widest
    least = torch.full_like(widest, torch.inf)
    for step in range(41):
        scale = widest * (1 - step / 80)
        error = (round_weight(rows, scale).float() * scale[:, None] - rows).square().sum(1)
        best = torch.where(error < least, scale, best)
        least = torch.minimum(least, error)
    return best


def round_weight(weight: Tensor, scale: Tensor) -> Tensor:
    """int8 in -127..127 of `weight` (C, ...) with one `scale` (C,) per channel; same shape."""
    shape = (-1, *[1] * (weight.dim() - 1))
    return torch.round(weight.detach() / scale.reshape(shape)).clamp(-127, 127).to(torch.int8)


def round_bias(bias: Tensor, scale: Tensor) -> Tensor:
    """int32 of `bias` (C,) with scale (C,), the input's scale times the weight's."""
    limit = 2**31 - 1
    return torch.round(bias.detach().double() / scale).clamp(-limit, limit).to(torch.int32)
