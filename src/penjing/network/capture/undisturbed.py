"""Undisturbed: a model whose `forward` keeps things on the model is left as it was found."""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

HOLDERS: tuple[type[Any], ...] = (list, dict, set, OrderedDict)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put back, afterwards, whatever calls and exports changed on the model's modules.

    A `forward` may keep anchors for the size of the images that it saw last, count its calls, or
    write into a buffer. While the model is traced it would keep tensors without values, and fail
    from then on. Attributes get their old values, lists and dicts their old entries, and tensors
    their old numbers. The mode of each module is an attribute, too.

    >>> class Counting(nn.Linear):
    ...     def forward(self, x):
    ...         self.calls = getattr(self, "calls", 0) + 1
    ...         return super().forward(x)
    >>> model = Counting(2, 1)
    >>> with undisturbed(model):
    ...     y = model(torch.zeros(3, 2))
    >>> hasattr(model, "calls")
    False
    """
    attributes = [(vars(module), dict(vars(module))) for module in model.modules()]
    values = [value for _, before in attributes for value in before.values()]
    holders = [(held, copy.copy(held)) for held in values if type(held) in HOLDERS]
    kept = [*model.buffers(), *(value for value in values if isinstance(value, Tensor))]
    strided = [tensor for tensor in kept if tensor.layout is torch.strided and not tensor.is_meta]
    tensors = [(tensor, tensor.detach().clone()) for tensor in strided]
    try:
        yield
    finally:
        for held, entries in (*attributes, *holders):
            held.clear()
            held.extend(entries) if isinstance(held, list) else held.update(entries)
        with torch.no_grad():
            for tensor, numbers in tensors:
                if not torch.equal(tensor, numbers):
                    tensor.copy_(numbers)
