"""TuneOptions: how to train, as frozen data that refuses what can't work.

How long is told in epochs. A limit of time isn't among them: with it, what an option means would
hang on the hour and the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penjing.errors import InputError


@dataclass(frozen=True)
class TuneOptions:
    """How to train.

    Attributes:
        epochs: passes over the training data; may be a fraction.
        optimizer: `"sgd"` (Nesterov momentum 0.9) or `"adamw"`.
        lr: the peak of the one-cycle schedule.
        weight_decay: of weights with two dimensions or more.
        distill: share (0..1) of the teacher's soft targets in the loss; 0 is the plain loss.
        temperature: of the soft targets.
        patience: epochs without gain on the validation data before training stops.
        device: `"auto"`, `"cpu"` or `"cuda"`.
        precision: `"float32"`, `"bfloat16"` (mixed), or `"auto"`: bfloat16 on CUDA and on a
            processor that has instructions for it.
        seed: of dropout and of whatever else draws while training.

    >>> TuneOptions(temperature=0)
    Traceback (most recent call last):
    ...
    penjing.errors.InputError: temperature must be a positive number; found 0
    """

    epochs: float = 1.0
    optimizer: str = "sgd"
    lr: float = 0.02
    weight_decay: float = 5e-4
    distill: float = 0.9
    temperature: float = 4.0
    patience: int = 8
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "temperature"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise InputError(f"{name} must be a positive number; found {value}")
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay must be 0 or more; found {self.weight_decay}")
        if not 0 <= self.distill <= 1:
            raise InputError(f"distill must be in [0, 1]; found {self.distill}")
        if self.patience < 1:
            raise InputError(f"patience must be 1 epoch or more; found {self.patience}")
        choices = {
            "optimizer": ("sgd", "adamw"),
            "device": ("auto", "cpu", "cuda"),
            "precision": ("auto", "float32", "bfloat16"),
        }
        for name, allowed in choices.items():
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}"
                )
