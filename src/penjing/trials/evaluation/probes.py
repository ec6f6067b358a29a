"""Probes: files of which only time and bytes are measured, to learn what a network's parts cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.measure.footprint import footprint
from penjing.network import Network
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
    whole = _bytes_of(original, networks.original)
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
                network = networks.made(candidate.recipe)
                file = _written(candidate, network, files, Path(folder))
                made.append((file, _bytes_of(file, network)))
            together = [original, *(file for file, _ in made)]
            times = times_of(together, SECONDS * len(together)) if times_of else {}
        for file, sizes in made:
            shares = {name: size / max(whole[name], 1) for name, size in sizes.items()}
            if file.key in times:
                shares["latency"] = times[file.key].ratio
            probed.append(Probed(shares))
    return probed


def _written(candidate: Candidate, network: Network, files: Files, folder: Path) -> Loaded:
    files.require_possible(candidate, network)
    (folder / candidate.key).mkdir()
    return files.written(candidate, candidate.key, network, folder / candidate.key)


def _bytes_of(file: Loaded, network: Network) -> dict[str, int]:
    """The bytes of a file, and of its network's values that are alive at once."""
    return {"size": file.artifact.file_bytes, "memory": footprint(network).value_bytes}
