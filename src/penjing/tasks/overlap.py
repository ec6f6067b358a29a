"""Overlap: whether validation or test samples are also in the training data, by their hashes."""

from __future__ import annotations

import filecmp
import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from torch.utils import _pytree as pytree
from torch.utils.data import RandomSampler, SequentialSampler

from penjing.errors import InputError
from penjing.tasks.batches import Reading, reading, samples_told
from penjing.tasks.data import Arrays
from penjing.tasks.reading.images import ImageFolder
from penjing.tasks.reading.loaders import drawn_from
from penjing.tasks.targets import of_sample, samples_in
from penjing.tasks.task import Batches, Task

IN_MEMORY, READ = 4096, 512
"""At most so many samples of a split are compared: of `Arrays`, and of data that must be read."""
MOST_BYTES = 256_000_000
REFUSED, TOLD = 0.5, 0.01
"""If a larger share of a split is also in another one, that is an error, or noted."""
LEAST_PAIRS = 3
TAIL = 4096  # bytes at the end of a file that tell it from most others
LEAST_SAMPLES = 32
"""Splits with fewer samples aren't compared: they prove nothing in any case."""


def require_apart(task: Task, say: Callable[[str], object] = lambda _: None) -> tuple[str, ...]:
    """Look for samples that two splits share, among a bounded number of samples of each.

    Two samples are the same if their inputs and targets are equal bit by bit. In two image folders,
    they are copies of one file in the same class; no image is decoded. If most of the
    training samples occur more than once (there are only few possible inputs), what the training
    data shares with another split is noted but isn't an error.

    Returns:
        One note for each pair of splits that share more than a hundredth of their samples.

    Raises:
        InputError: most of the validation data or of the test data is training data.
    """
    notes, compared = [], "looking for samples that are in two splits"
    say(compared)
    splits = {"training": task.train, "test": task.test}
    if task.validation is not None:
        splits["validation"] = task.validation
    given = {name: _given(batches) for name, batches in splits.items()}
    if all(isinstance(batches, ImageFolder) for batches in given.values()):
        splits = given
    seen = {name: _hashes(batches, seed) for seed, (name, batches) in enumerate(splits.items())}
    for split, other in (("validation", "training"), ("test", "training"), ("test", "validation")):
        if split not in seen or other not in seen:
            continue
        if min(len(seen[split]), len(seen[other])) < LEAST_SAMPLES:
            continue
        say(f"{compared}: {split} and {other}")
        share = _share(seen[split], seen[other], splits[split], splits[other])
        distinct = len(set(seen[other])) / max(1, len(seen[other]))
        if share > REFUSED and distinct > REFUSED and other == "training":
            raise InputError(
                f"the {split} data is training data: {_percent(share)} of its samples are in both; "
                "give samples that the model wasn't trained on"
            )
        if share > TOLD:
            notes.append(f"{_percent(share)} of the {split} data is also in the {other} data")
    return tuple(notes)


def _percent(share: float) -> str:
    return f"{min(share, 1.0):.0%}"


def _share(mine: list[bytes], its: list[bytes], my_batches: Any, its_batches: Any) -> float:
    """Estimate which part of the first split is also in the second, from the compared samples."""
    if _whole(my_batches) is _whole(its_batches):
        return 1.0
    if isinstance(my_batches, ImageFolder) and isinstance(its_batches, ImageFolder):
        return _copied(my_batches, its_batches)
    known = set(its)
    both = sum(digest in known for digest in mine)
    if both < min(LEAST_PAIRS, len(mine)):
        return 0.0
    looked_at = len(its) / max(samples_told(its_batches), len(its))
    if looked_at == 0:  # its size isn't known, so the result is a lower bound
        looked_at = 1.0
    return both / len(mine) / looked_at


def _copied(mine: ImageFolder, its: ImageFolder) -> float:
    """Which part of some of the first folder's images are files of the second one too."""
    some, by_size, by_end = _drawn(mine, 0), defaultdict(list), defaultdict(list)
    for file, size, label in _sized(its):
        by_size[size, label].append(file)
    wanted = list(_sized(some))
    for alike in {(size, label) for _, size, label in wanted}:
        for file in by_size[alike]:
            by_end[_end(file, *alike)].append(file)
    copies = [
        any(filecmp.cmp(file, other, False) for other in by_end[_end(file, size, label)])
        for file, size, label in wanted
    ]
    return sum(copies) / len(copies)


def _sized(images: ImageFolder) -> Iterator[tuple[str, int, int]]:
    """The file of each image, its bytes and its class."""
    return zip(images.files, images.file_bytes(), images.y.tolist(), strict=True)


def _drawn(images: ImageFolder, seed: int) -> ImageFolder:
    return images.subset(np.random.default_rng(seed).permutation(images.samples)[:READ])


def _end(file: str, size: int, label: int) -> bytes:
    """The hash of a file's size, its last bytes and its class."""
    with open(file, "rb") as opened:
        opened.seek(max(0, size - TAIL))
        content = opened.read()
    return hashlib.blake2b(b"%d,%d," % (size, label) + content, digest_size=8).digest()


def _given(batches: Any) -> Any:
    return batches.batches if isinstance(batches, Reading) else batches


def _whole(batches: Any) -> Any:
    """The user's own object behind batches. Of a `DataLoader` that reads it all, the dataset."""
    given = _given(batches)
    sampler = getattr(given, "sampler", None)
    return given.dataset if isinstance(sampler, RandomSampler | SequentialSampler) else given


def _hashes(batches: Batches, seed: int) -> list[bytes]:
    """The hash of each compared sample: as the batches give it, but without augmentation."""
    if isinstance(batches, ImageFolder):
        return [_end(*image) for image in _sized(_drawn(batches, seed))]
    if isinstance(batches, Arrays):
        leaves = pytree.tree_leaves(batches.x)
        size = sum(4 * leaf[:1].numel() for leaf in leaves)
        most = max(LEAST_PAIRS, min(IN_MEMORY, MOST_BYTES // max(1, size)))
        index = np.random.default_rng(seed).permutation(batches.samples)[:most]
        batches = batches.subset(index, shuffle=False, augment=None, batch_size=256)
    else:
        most = READ
        if isinstance(_given(batches), ImageFolder):
            batches = drawn_from(batches, most, seed) or batches
        batches = reading(batches, "given")
    digests: list[bytes] = []
    for inputs, targets in batches:
        rows = [leaf.numpy(force=True) for leaf in pytree.tree_leaves(inputs)]
        for number in range(samples_in(targets)):
            digest = hashlib.blake2b(digest_size=8)
            for part in (*(row[number] for row in rows), *of_sample(targets, number)):
                digest.update(_as_bytes(part))
            digests.append(digest.digest())
        if len(digests) >= most:
            break
    return digests


def _as_bytes(value: Any) -> bytes:
    """An array's bytes; of a number or a text, those of how it is written."""
    return value.tobytes() if isinstance(value, np.ndarray | np.generic) else repr(value).encode()
