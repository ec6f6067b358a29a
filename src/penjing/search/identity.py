"""Identity: hashes of what a fit was started with, so that `resume` never mixes different fits."""

from __future__ import annotations

import hashlib
from collections.abc import Sized
from typing import Any

import numpy as np
import torch

from penjing.network import Network
from penjing.tasks.data import Arrays, drawn
from penjing.tasks.reading.draws import same_draws
from penjing.tasks.reading.images import ImageFolder
from penjing.tasks.task import Batches, Task

SAMPLES = 256
"""How many samples are hashed of data that isn't in memory."""


def identity(task: Task, network: Network) -> dict[str, str]:
    """Hashes of the network and of each split of the data, by name.

    Data in memory is hashed whole, and image folders by their files' names and sizes too. Other
    data is hashed by its length and a few samples, read with a fixed seed. If two such reads
    differ, the data is random in some other way, and only its length counts.

    Args:
        task: the task as the user gave it.
        network: the network that was captured from its model.
    """
    tensors = (*network.named_parameters(), *network.named_buffers())
    hashes = {
        "graph": _hash(str(network.graph)),
        "weights": _hash([text for name, tensor in tensors for text in (name, tensor)]),
        "example": _hash([leaf.shape for leaf in torch.utils._pytree.tree_leaves(task.example)]),
        "metric": task.metric.name,
    }
    splits = {"training": task.train, "validation": task.validation, "test": task.test}
    given = {name: batches for name, batches in splits.items() if batches is not None}
    return hashes | {f"{name} data": _of_data(batches) for name, batches in given.items()}


def _of_data(batches: Batches) -> str:
    if isinstance(batches, Arrays):
        how = (batches.batch_size, batches.mean, batches.std, batches.augment, batches.shuffle)
        return _hash([batches.x, batches.y, str(how)])
    if isinstance(batches, ImageFolder):
        files = zip(batches.names, batches.file_bytes(), strict=True)
        plain = (batches.batch_size, batches.shuffle, batches.mean, batches.std, _named(batches))
        return _hash([*map(str, files), str(plain), _of_first_samples(batches)])
    length = str(len(batches)) if isinstance(batches, Sized) else "unknown"
    once, again = (_of_first_samples(batches) for _ in range(2))
    return _hash([length, once if once == again else "never the same"])


def _of_first_samples(batches: Batches) -> str:
    with same_draws():
        return _hash([_hash(batch) for batch in drawn(batches, SAMPLES)])


def _named(images: ImageFolder) -> str:
    """How a folder's images are augmented; of a function, its name."""
    how = images.augment
    return getattr(how, "__qualname__", type(how).__name__) if callable(how) else str(how)


def _hash(value: Any) -> str:
    """The SHA-256 of all tensors and texts in `value`, with their types and shapes."""
    digest = hashlib.sha256()
    for leaf in torch.utils._pytree.tree_leaves(value):
        if isinstance(leaf, (torch.Tensor, np.ndarray)):
            tensor = torch.as_tensor(leaf).detach().cpu().contiguous()
            digest.update(f"{tensor.dtype}{tuple(tensor.shape)}".encode())
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(f"{leaf!r};".encode())
    return digest.hexdigest()
