"""Probes: files that are only timed, to learn what the parts of a network cost."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from penjing.contract import Latency
from penjing.errors import InputError
from penjing.targets import Target
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Watch
from penjing.trials.evaluation.files import STEM, Files, Loaded
from penjing.trials.evaluation.networks import Networks
from penjing.trials.evaluation.timing import Timing

MOST_AT_ONCE = 8
SECONDS = 0.6
"""Of timing, for each file."""


def probe(
    candidates: Sequence[Candidate],
    networks: Networks,
    files: Files,
    timing: Timing,
    target: Target,
    watch: Watch,
) -> list[Latency]:
    """The latencies of candidates beside the original's; their files aren't kept.

    A few are timed at once, so that a device can hold them.

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
            times = timing.latencies(together, SECONDS * len(together))
            if any(latency.disturbed for latency in times.values()):
                times = timing.latencies(together, SECONDS * len(together))
        latencies += [times[candidate.key] for candidate in batch]
    return latencies


def _made(
    candidate: Candidate, networks: Networks, files: Files, target: Target, folder: Path
) -> Loaded:
    runtime = files.runtime_of(candidate)
    network = networks.made(candidate.recipe)
    for problem in runtime.problems(network, target, candidate.floats):
        raise InputError(problem)
    (folder / candidate.key).mkdir()
    path = folder / candidate.key / f"{STEM}{runtime.ending}"
    artifact = runtime.lower(network, path, candidate.floats)
    return Loaded(candidate.key, candidate.key, artifact, runtime.load(artifact))
