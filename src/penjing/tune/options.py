"""TuneOptions: how to train, as frozen data that is checked when it is created.

The length of the training is given in epochs. There is no time limit among the options, because its
meaning would depend on the machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from penjing.errors import InputError, require_positive


@dataclass(frozen=True)
class TuneOptions:
    """How to train a network.

    Attributes:
        epochs: the number of passes over the training data, above 0; may be a fraction.
        optimizer: `"sgd"`, with Nesterov momentum 0.9, or `"adamw"`.
        lr: the peak learning rate of the one-cycle schedule, above 0.
        weight_decay: the weight decay of tensors with two or more dimensions, 0 or more.
        distill: the share of the distillation loss in the whole loss, in [0, 1]. 0 is the task's
            loss alone, and 1 is distillation alone, which needs no labels.
        temperature: the temperature of distillation, above 0.
        accumulate: the batches whose gradients make a step, 1 or more. With N processes of
            `torchrun`, a step takes N times as many.
        patience: the number of epochs without gain on the validation data after which training
            stops, 1 or more.
        device: `"auto"` (CUDA if there is any), `"cpu"` or `"cuda"`.
        precision: `"float32"`, `"bfloat16"` (mixed precision), or `"auto"`: bfloat16 on CUDA and on
            processors that have instructions for it.
        seed: the seed of dropout and of everything else that is drawn at random.

    Raises:
        InputError: an option is out of range.

    >>> TuneOptions(epochs=0.5, optimizer="adamw", lr=1e-3).distill
    0.9
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
    accumulate: int = 1
    patience: int = 8
    device: str = "auto"
    precision: str = "auto"
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("epochs", "lr", "temperature"):
            value = getattr(self, name)
            require_positive(name, value)
        if not (math.isfinite(self.weight_decay) and self.weight_decay >= 0):
            raise InputError(f"weight_decay must be 0 or more; found {self.weight_decay}")
        if not 0 <= self.distill <= 1:
            raise InputError(f"distill must be in [0, 1]; found {self.distill}")
        for name, unit in (("patience", "epoch"), ("accumulate", "batch")):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be 1 {unit} or more; found {getattr(self, name)}")
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
