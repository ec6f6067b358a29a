"""Targets: the right answers of a batch, in any structure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from penjing.errors import InputError

Targets = Any
"""A tensor, or a tuple or dict of tensors, whose first dimension are the samples. Or a list with
something for each sample: a text, or a dict of so many boxes and classes as the sample has."""


def as_targets(given: Any, samples: int, what: str) -> Targets:
    """What a batch holds as its targets, with tensors in place of arrays and numbers.

    >>> as_targets([3, 1], 2, "targets")
    tensor([3, 1])
    >>> as_targets(["two", "words"], 2, "targets")
    ['two', 'words']
    >>> boxes = as_targets([{"boxes": np.zeros((n, 4))} for n in (1, 3)], 2, "targets")
    >>> [len(sample["boxes"]) for sample in boxes]
    [1, 3]

    Args:
        given: the targets, as the user's data has them.
        samples: how many samples the batch holds.
        what: what the targets are called in messages.

    Raises:
        InputError: they hold something else than tensors, arrays, numbers and texts.
    """
    if isinstance(given, list | tuple) and given and all(isinstance(x, int | float) for x in given):
        return torch.tensor(given)
    if isinstance(given, list | tuple) and _is_a_list(given, samples):
        return [pytree.tree_map(lambda leaf: _leaf(leaf, what), sample) for sample in given]
    if not isinstance(given, list | tuple | dict):
        return _tensor(given, what)
    parts = tuple(given) if isinstance(given, list) else given
    return pytree.tree_map(lambda leaf: _tensor(leaf, what), parts)


def samples_in(targets: Targets) -> int:
    """How many samples there are targets of.

    >>> samples_in({"boxes": torch.zeros(5, 8, 4), "classes": torch.zeros(5, 8)})
    5
    """
    return len(targets if isinstance(targets, list) else pytree.tree_leaves(targets)[0])


def picked(targets: Targets, index: Tensor) -> Targets:
    """The targets of some samples, by their places.

    >>> picked(["a", "b", "c"], torch.tensor([2, 0]))
    ['c', 'a']
    """
    if isinstance(targets, list):
        return [targets[place] for place in index.tolist()]
    return pytree.tree_map(lambda leaf: leaf[index], targets)


def moved(targets: Targets, device: torch.device) -> Targets:
    """The targets with their tensors on a device."""
    return pytree.tree_map(
        lambda leaf: leaf.to(device) if isinstance(leaf, Tensor) else leaf, targets
    )


def targets_as_arrays(targets: Targets) -> Any:
    """The targets with NumPy arrays in place of tensors, in the same structure."""
    return pytree.tree_map(
        lambda leaf: leaf.numpy(force=True) if isinstance(leaf, Tensor) else leaf, targets
    )


def are_classes(targets: Targets) -> bool:
    """Whether targets can be classes: integers, of samples or of positions in them.

    >>> are_classes(torch.zeros(2, 8, 8, dtype=torch.int64)), are_classes({"boxes": torch.ones(2)})
    (True, False)
    """
    return isinstance(targets, Tensor) and not (targets.is_floating_point() or targets.is_complex())


def labels_in(targets: Targets) -> Tensor | None:
    """The targets if they are one integer per sample, as classes are; else None.

    >>> labels_in(torch.tensor([2, 0, 1]))
    tensor([2, 0, 1])
    >>> labels_in(torch.tensor([0.5, 2.0])) is labels_in(["a", "b"]) is None
    True
    """
    return targets if are_classes(targets) and targets.dim() == 1 else None


def all_labels(parts: Iterable[Targets]) -> Tensor | None:
    """The labels of several batches, if the targets of each are labels; else None."""
    labels = [labels_in(targets) for targets in parts]
    known = [some for some in labels if some is not None]
    return torch.cat(known) if known and len(known) == len(labels) else None


def of_sample(targets: Targets, place: int) -> list[Any]:
    """What there is of one sample: arrays, numbers and texts."""
    mine = targets[place] if isinstance(targets, list) else targets
    leaves = pytree.tree_leaves(targets_as_arrays(mine))
    return leaves if isinstance(targets, list) else [leaf[place] for leaf in leaves]


def spelled(targets: Targets) -> str:
    """What targets are, in a few words.

    >>> spelled(torch.zeros(2, 3)), spelled({"boxes": torch.zeros(2, 8, 4)}), spelled(["cat"])
    ('torch.float32 of shape [2, 3]', 'a dict', "text ('cat')")
    """
    if isinstance(targets, list) and targets and isinstance(targets[0], str):
        return f"text ({targets[0][:40]!r})"
    if isinstance(targets, Tensor):
        return f"{targets.dtype} of shape {list(targets.shape)}"
    return f"a {type(targets).__name__}"


def _is_a_list(given: Any, samples: int) -> bool:
    """Whether this has an entry for each sample, rather than tensors of all samples."""
    if any(isinstance(entry, dict | int | float | str | bytes) for entry in given):
        return True
    return len(given) == samples and not all(
        isinstance(leaf, Tensor | np.ndarray) and leaf.ndim and len(leaf) == samples
        for leaf in pytree.tree_leaves(given)
    )


def _leaf(value: Any, what: str) -> Any:
    return value if isinstance(value, int | float | str | bytes) else _tensor(value, what)


def _tensor(value: Any, what: str) -> Tensor:
    tensor = as_tensor(value, what)
    is_whole = isinstance(value, np.ndarray) and value.dtype.kind in "iu"
    return tensor.long() if is_whole else tensor  # losses want classes as int64


def as_tensor(value: Any, what: str) -> Tensor:
    """A tensor as it is, and an array of numbers as a tensor.

    Raises:
        InputError: it is neither.
    """
    if isinstance(value, Tensor):
        return value
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.tensor(value)
    if isinstance(value, np.ndarray) and value.size and isinstance(value.flat[0], str):
        raise InputError(
            f"the {what} contain text ({str(value.flat[0])[:40]!r}); wanted numbers: number the "
            "classes from 0"
        )
    kind = f"an array of {value.dtype}" if isinstance(value, np.ndarray) else type(value).__name__
    raise InputError(f"the {what} contain {kind}; wanted tensors or NumPy arrays of numbers")
