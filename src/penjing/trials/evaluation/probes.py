"""Probes: files of which only time and bytes are measured, to learn what a network's parts cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Probed, Watch
from penjing.trials.evaluation.files import Files, Loaded
from penjing.trials.evaluation.networks import Networks

MOST_AT_ONCE = 8
SECONDS = 0.6
"""Of timing, for each file."""
Times = Callable[[Sequence[Loaded], float], Mapping[str, Latency]]
"""Times files for so many seconds, by their keys; the first one's ratio is 1."""


def probe(
    candidates: Sequence[Candidate],
    networks: Networks,
    files: Files,
    times_of: Times | None,
    watch: Watch,
) -> list[Probed]:
    """What the files of candidates take of the original's; the files aren't kept.

    A few are timed at once, so that a device can hold them.

    Args:
        candidates: what is measured.
        networks, files: of the fit.
        times_of: what times files; None if times don't matter.
        watch: told which file comes next.

    Raises:
        InputError: the runtime can't take one of the networks.
    """
    original, probed = files.loaded_original(), list[Probed]()
    for begin in range(0, len(candidates), MOST_AT_ONCE):
        batch = candidates[begin : begin + MOST_AT_ONCE]
        with tempfile.TemporaryDirectory() as folder:
            made = []
            for number, candidate in enumerate(batch, start=begin):
                watch.say(
                    f"measuring what parts of the network cost: file {number + 1} of "
                    f"{len(candidates)}",
                    number / len(candidates),
                )
                made.append(_written(candidate, networks, files, Path(folder)))
            together = [original, *made]
            times = times_of(together, SECONDS * len(together)) if times_of else {}
        for file in made:
            shares = {"size": file.artifact.file_bytes / original.artifact.file_bytes}
            if file.key in times:
                shares["latency"] = times[file.key].ratio
            probed.append(Probed(shares))
    return probed


def _written(candidate: Candidate, networks: Networks, files: Files, folder: Path) -> Loaded:
    network = networks.made(candidate.recipe)
    files.require_possible(candidate, network)
    (folder / candidate.key).mkdir()
    return files.written(candidate, candidate.key, network, folder / candidate.key)
