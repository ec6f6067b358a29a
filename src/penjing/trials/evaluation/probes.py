"""Probes: files that are only timed, to learn what the parts of a network cost."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.targets import Target
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Watch
from penjing.trials.evaluation.files import Files, Loaded
from penjing.trials.evaluation.networks import Networks

MOST_AT_ONCE = 8
SECONDS = 0.6
"""Of timing, for each file."""


def probe(
    candidates: Sequence[Candidate],
    networks: Networks,
    files: Files,
    times_of: Callable[[Sequence[Loaded], float], Mapping[str, Latency]],
    target: Target,
    watch: Watch,
) -> list[Latency]:
    """The latencies of candidates beside the original's; their files aren't kept.

    A few are timed at once, so that a device can hold them.

    Args:
        candidates: what is timed.
        networks, files: of the fit.
        times_of: times files for so many seconds, by their keys; the first one's ratio is 1.
        target: where they run.
        watch: told which file comes next.

    Raises:
        InputError: the runtime can't take one of the networks.
    """
    latencies: list[Latency] = []
    for begin in range(0, len(candidates), MOST_AT_ONCE):
        batch = candidates[begin : begin + MOST_AT_ONCE]
        with tempfile.TemporaryDirectory() as folder:
            loaded = []
            for number, candidate in enumerate(batch, start=begin):
                watch.say(
                    f"timing what parts of the network cost: file {number + 1} of "
                    f"{len(candidates)}",
                    number / len(candidates),
                )
                loaded.append(_made(candidate, networks, files, target, Path(folder)))
            together = [files.loaded_original(), *loaded]
            times = times_of(together, SECONDS * len(together))
        latencies += [times[candidate.key] for candidate in batch]
    return latencies


def _made(
    candidate: Candidate, networks: Networks, files: Files, target: Target, folder: Path
) -> Loaded:
    runtime = files.runtime_of(candidate)
    network = networks.made(candidate.recipe)
    runtime.require_possible(network, target, candidate.floats)
    (folder / candidate.key).mkdir()
    return files.written(candidate, candidate.key, network, folder / candidate.key)
