"""Prediction: what a strategy expected of a candidate before its network was made."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Prediction:
    """What was expected of a candidate; its trial says what came of it.

    Attributes:
        key: the candidate's.
        drop: the points that it was expected to lose on the validation data.
        ratio: what it was expected to cost of the original: time, bytes, or what the goal names.
        epochs: for how long its network was trained in all.
    """

    key: str
    drop: float
    ratio: float
    epochs: float
