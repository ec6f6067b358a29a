"""States: a metric of torchmetrics, by what it keeps of each sample.

Such a metric sums up what it has seen in states, and tells how the states of several processes
become one. Here each sample is such a process. So a figure of samples that are drawn again takes
their states, and needs neither outputs nor targets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.contract import Array
from penjing.errors import InputError

Prepare = Callable[[Any, Any], Sequence[Any]]
WANTED = "wanted a metric of torchmetrics, such as torchmetrics.classification.BinaryAUROC()"
CLOSE = 1e-4
"""So far sums of float32 may differ by their order, as a share."""


def as_they_are(outputs: Any, targets: Any) -> Sequence[Any]:
    """A batch's outputs and targets, as most metrics take them."""
    return outputs, targets


@dataclass(frozen=True, eq=False)
class States:
    """The two functions of a `penjing.Metric`, made of a metric of torchmetrics.

    Attributes:
        metric: a copy of the user's, on the CPU.
        prepare: makes what its `update` takes, of the outputs and targets of a batch.
    """

    metric: Any
    prepare: Prepare

    @classmethod
    def of(cls, metric: Any, prepare: Prepare | None) -> States:
        """See `penjing.Metric.of`.

        Raises:
            InputError: it is no metric, or none with states of its own.
        """
        if isinstance(metric, type):
            raise InputError(f"Metric.of was given the class {metric.__name__}; {WANTED}")
        name = type(metric).__name__
        if not all(hasattr(metric, each) for each in ("compute", "metric_state", "_reductions")):
            raise InputError(f"Metric.of was given {name!r}; {WANTED}")
        if not metric.metric_state:
            raise InputError(f"{name} has no states of its own; give the metric that is in it")
        for state, value in metric.metric_state.items():
            if metric._reductions[state] is None and not isinstance(value, list):
                raise InputError(
                    f"{name} can't be made of single samples, for its {state} don't add up; write "
                    "penjing.Metric(name, scores, over=...)"
                )
        return cls(metric.clone().cpu(), prepare or as_they_are)

    @property
    def is_share(self) -> bool:
        """Whether the figure lies between 0 and 1, so that points are hundredths of it."""
        return (self.metric.plot_lower_bound, self.metric.plot_upper_bound) == (0.0, 1.0)

    @property
    def _fields(self) -> np.dtype[np.void]:
        """One of numbers for each tensor, and one of objects for each list, of any length."""
        defaults = self.metric._defaults.items()
        return np.dtype([
            (name, object)
            if isinstance(state, list)
            else (name, state.numpy().dtype, tuple(state.shape))
            for name, state in defaults
        ])  # fmt: skip

    def scores(self, outputs: Any, targets: Any) -> Array:
        """The states after each sample alone: an array with a field for each.

        Raises:
            ValueError: outputs aren't finite, or states of samples don't add up to their batch's.
        """
        arguments = self.prepare(_tensors(outputs), _tensors(targets))
        _require_finite(arguments[0])
        single = [self._after(_sample(arguments, n)) for n in range(_samples(arguments[0]))]
        kept = np.empty(len(single), self._fields)
        for name in single[0]:
            for number, states in enumerate(single):
                kept[name][number] = states[name]
        self._require_sum(kept, self._after(arguments))
        return kept

    def over(self, kept: Array) -> float:
        """The metric's figure of samples with these states."""
        for name, state in self._merged(kept).items():
            setattr(self.metric, name, state)
        self.metric._update_count, self.metric._computed = len(kept), None
        figure: float = self.metric.compute()  # `Metric.figure` looks whether it is one number
        return figure

    def _after(self, arguments: Sequence[Any]) -> dict[str, Any]:
        """The states after these alone."""
        self.metric.reset()
        self.metric.update(*arguments)
        return {
            name: self._listed(name, state) if isinstance(state, list) else state.numpy()
            for name, state in self.metric.metric_state.items()
        }

    def _listed(self, name: str, parts: list[Any]) -> Any:
        """A list state: one array of its parts, if torchmetrics too makes one tensor of them."""
        if self.metric._reductions[name] is None:
            return list(parts)
        return np.concatenate([np.atleast_1d(part.numpy()) for part in parts])

    def _merged(self, kept: Array) -> dict[str, Any]:
        """The states of samples as one, as torchmetrics merges those of processes."""
        merged: dict[str, Any] = {}
        for name, reduction in self.metric._reductions.items():
            if kept.dtype[name].kind != "O":
                merged[name] = reduction(torch.from_numpy(np.ascontiguousarray(kept[name])))
            elif reduction is None:
                merged[name] = [part for parts in kept[name] for part in parts]
            else:
                merged[name] = [torch.from_numpy(np.concatenate(list(kept[name])))]
        return merged

    def _require_sum(self, kept: Array, batch: Mapping[str, Any]) -> None:
        """Raise if the samples of a batch were taken otherwise than in the batch.

        Some metrics take whatever is outside of 0 to 1 for logits, batch by batch.
        """
        for name, state in self._merged(kept).items():
            mine, its = _flat(state), _flat(batch[name])
            if mine.shape == its.shape and not np.allclose(mine, its, CLOSE, equal_nan=True):
                raise ValueError(
                    f"{name} of samples alone differ from those of their batch; if the outputs are "
                    "logits, make them probabilities: prepare=lambda y, t: (y.sigmoid(), t)"
                )


def _tensors(values: Any) -> Any:
    """The same with tensors in place of arrays."""
    return pytree.tree_map(
        lambda leaf: torch.from_numpy(leaf) if isinstance(leaf, np.ndarray) else leaf, values
    )


def _samples(argument: Any) -> int:
    return len(argument if isinstance(argument, list) else pytree.tree_leaves(argument)[0])


def _sample(arguments: Sequence[Any], number: int) -> list[Any]:
    """A batch of one of its samples; lists have something for each."""
    some = slice(number, number + 1)
    return [
        argument[some]
        if isinstance(argument, list)
        else pytree.tree_map(lambda leaf: leaf[some], argument)
        for argument in arguments
    ]


def _require_finite(outputs: Any) -> None:
    for leaf in pytree.tree_leaves(outputs):
        if isinstance(leaf, Tensor) and not bool(torch.isfinite(leaf).all()):
            raise ValueError("outputs are NaN or infinite")


def _flat(state: Any) -> Array:
    """All numbers of a state, one after the other."""
    parts = state if isinstance(state, list) else [state]
    flat: Array = np.concatenate([np.zeros(0), *(np.asarray(part).ravel() for part in parts)])
    return flat
