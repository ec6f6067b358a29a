"""Overlap: whether data that judges was learned from, told by the hashes of samples."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch.utils import _pytree as pytree
from torch.utils.data import RandomSampler, SequentialSampler

from penjing.errors import InputError
from penjing.tasks.batches import Reading, reading, samples_told
from penjing.tasks.data import Arrays
from penjing.tasks.task import Batches, Task

IN_MEMORY, READ = 4096, 512
"""Samples of a split that are looked at, at most: of `Arrays`, and of what must be read."""
MOST_BYTES = 256_000_000
REFUSED, TOLD = 0.5, 0.01
"""Shares of a split that are in another, from which on that is an error, or is said."""
LEAST_PAIRS = 3
LEAST_SAMPLES = 32
"""Fewer prove nothing, whatever they were learned from."""


def require_apart(task: Task) -> tuple[str, ...]:
    """Look for samples that two splits have in common, among a bounded number of each.

    Samples are the same if their inputs and their targets are, to the bit. Where the training data
    repeats itself (few inputs are possible), what it shares with the others is only told.

    Returns:
        A line for each pair of splits that have more than a hundredth in common.

    Raises:
        InputError: most of the validation data or of the test data is training data.
    """
    notes = []
    splits = {"training": task.train, "test": task.test}
    if task.validation is not None:
        splits["validation"] = task.validation
    seen = {name: _hashes(batches, seed) for seed, (name, batches) in enumerate(splits.items())}
    for split, other in (("validation", "training"), ("test", "training"), ("test", "validation")):
        if split not in seen or other not in seen:
            continue
        if min(len(seen[split]), len(seen[other])) < LEAST_SAMPLES:
            continue
        share = _share(seen[split], seen[other], splits[split], splits[other])
        distinct = len(set(seen[other])) / max(1, len(seen[other]))
        if share > REFUSED and distinct > REFUSED and other == "training":
            raise InputError(
                f"the {split} data is training data: {_percent(share)} of its samples are in both; "
                "give samples that weren't learned from"
            )
        if share > TOLD:
            notes.append(f"{_percent(share)} of the {split} data is in the {other} data as well")
    return tuple(notes)


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}"


def _share(mine: list[bytes], its: list[bytes], my_batches: Any, its_batches: Any) -> float:
    """About which part of the first split is in the second, from the samples looked at."""
    if _whole(my_batches) is _whole(its_batches):
        return 1.0
    known = set(its)
    both = sum(digest in known for digest in mine)
    if both < min(LEAST_PAIRS, len(mine)):
        return 0.0
    looked_at = len(its) / max(samples_told(its_batches), len(its))
    if looked_at == 0:  # its size isn't known: what was found is the least
        looked_at = 1.0
    return both / len(mine) / looked_at


def _whole(batches: Any) -> Any:
    """The user's own object behind batches; of a `DataLoader` that gives all of it, its dataset."""
    given: Any = batches.batches if isinstance(batches, Reading) else batches
    sampler = getattr(given, "sampler", None)
    return given.dataset if isinstance(sampler, RandomSampler | SequentialSampler) else given


def _hashes(batches: Batches, seed: int) -> list[bytes]:
    """A hash for each sample that is looked at, as it is given out but not augmented."""
    if isinstance(batches, Arrays):
        leaves = pytree.tree_leaves(batches.x)
        size = sum(4 * leaf[:1].numel() for leaf in leaves)
        most = max(LEAST_PAIRS, min(IN_MEMORY, MOST_BYTES // max(1, size)))
        index = np.random.default_rng(seed).permutation(batches.samples)[:most]
        batches = batches.subset(index, shuffle=False, augment=None, batch_size=256)
    else:
        most = READ
        batches = reading(batches, "given")
    digests: list[bytes] = []
    for inputs, targets in batches:
        rows = [leaf.numpy(force=True) for leaf in (*pytree.tree_leaves(inputs), targets)]
        for number in range(len(targets)):
            digest = hashlib.blake2b(digest_size=8)
            for row in rows:
                digest.update(row[number].tobytes())
            digests.append(digest.digest())
        if len(digests) >= most:
            break
    return digests
