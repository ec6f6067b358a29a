"""In PyTorch: a module as a session, so that it is asked the same as a file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils import _pytree as pytree

from penjing.contract import Array, Input, as_arrays
from penjing.tasks.task import as_call


class InPyTorch:
    """A module that runs in evaluation mode, see `penjing.contract.Session`.

    >>> session = InPyTorch(nn.Sequential(nn.Linear(2, 1), nn.Dropout()))
    >>> session.run(np.ones((3, 2), np.float32)).shape
    (3, 1)
    """

    inputs: Sequence[Input] = ()

    def __init__(self, module: nn.Module) -> None:
        self.module = module

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        args, kwargs = as_call(pytree.tree_map(torch.from_numpy, inputs))
        modes = {module: module.training for module in self.module.modules()}
        self.module.eval()
        try:
            with torch.no_grad():
                outputs = self.module(*args, **kwargs)
        finally:
            for module, mode in modes.items():
                module.training = mode
        arrays: Array | Any = pytree.tree_map(np.asarray, as_arrays(outputs))
        return arrays
