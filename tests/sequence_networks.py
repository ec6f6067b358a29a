"""Small networks over sequences: what an embedding gives goes through a recurrent layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from penjing.tasks.task import Task

WORDS, WIDTH, HIDDEN, CLASSES, STEPS = 300, 16, 32, 4, 4


class Reader(nn.Module):
    """An embedding, a recurrent layer, and a linear one after its last step."""

    def __init__(self, kind: Any, **options: Any) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.gru = kind(WIDTH, HIDDEN, batch_first=True, **options)
        self.head = nn.Linear(HIDDEN * (2 if self.gru.bidirectional else 1), CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        """x_NT -> y_NK."""
        return self.head(self.gru(self.words(x))[0][:, -1])


def reading(model: nn.Module) -> Task:
    """A task with words drawn at random."""
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    batches = [(torch.randint(WORDS, (8, STEPS)), torch.arange(8) % CLASSES) for _ in range(3)]
    return Task(model.eval(), batches[0][0][:2], batches, batches)
