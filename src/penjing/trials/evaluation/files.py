"""Files: the candidates' files in the folder of a result, and sessions of those used last."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field, replace
from pathlib import Path

from penjing.contract import Artifact, Estimate, Session
from penjing.errors import InputError
from penjing.files import require_writable_folder, sha256
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime
from penjing.targets import Target
from penjing.trials.candidate import Candidate
from penjing.trials.evaluation.estimates import Estimating
from penjing.trials.trial import ORIGINAL, Trial

CANDIDATES = "candidates"
STEM, TRACEBACK = "model", "traceback.txt"
"""The name of a candidate's file, without the ending, and of the traceback that a bug leaves."""
MOST_LOADED = 8


@dataclass(frozen=True)
class Loaded:
    """A candidate's file, and a session of it on this machine.

    Attributes:
        key: the candidate's.
        title: what the file is called in messages; unique in a sitting.
        estimate: what it costs on a target that isn't here; None where files are timed.
    """

    key: str
    title: str
    artifact: Artifact
    session: Session
    estimate: Estimate | None = None


@dataclass
class Files:
    """The files of one fit; each candidate has a folder of its own in `candidates/`.

    Attributes:
        out: the result's folder.
        runtime: of the original, set up for the target.
        target: where the files will run.
        estimating: what estimates their costs, for a target that isn't here.
    """

    out: Path
    runtime: Runtime
    target: Target
    estimating: Estimating | None = None
    recent: OrderedDict[str, Loaded] = field(default_factory=OrderedDict)

    @property
    def original(self) -> Candidate:
        """The candidate with which all others are compared."""
        return Candidate((), self.runtime.name)

    def runtime_of(self, candidate: Candidate) -> Runtime:
        """The runtime that the candidate's file is for."""
        if candidate.runtime == self.runtime.name:
            return self.runtime
        return find_runtime(candidate.runtime).on(self.target)

    def require_possible(
        self, candidate: Candidate, network: Network, artifact: Artifact | None = None
    ) -> None:
        """Raise InputError if the target can't take the file; before there is one, the network.

        The original may be too large for a device that isn't here: all others are compared with it,
        and what is made of it may fit.
        """
        runtime, floats = self.runtime_of(candidate), candidate.floats
        too_large = runtime.too_large(network, self.target, artifact, floats)
        problems = too_large
        if artifact is None:
            problems = runtime.problems(network, self.target, floats)
        if self.estimating is not None and candidate == self.original:
            problems = [problem for problem in problems if problem not in too_large]
        for problem in problems:
            raise InputError(problem)

    def folder(self, key: str) -> Path:
        """The folder of a candidate's files; created if it doesn't exist."""
        folder = self.out / CANDIDATES / key
        require_writable_folder(folder)
        return folder

    def make(self, candidate: Candidate, title: str, network: Network) -> Loaded:
        """Write the network as the candidate's file, and load it.

        Raises:
            InputError: the runtime can't take the network.
        """
        return self._hold(self.written(candidate, title, network, self.folder(candidate.key)))

    def written(self, candidate: Candidate, title: str, network: Network, folder: Path) -> Loaded:
        """Write the network as a file in a folder, and load it; raises as `make` does."""
        runtime = self.runtime_of(candidate)
        path = folder / f"{STEM}{runtime.ending}"
        artifact = runtime.lower(network, path, candidate.floats)
        estimate = self._estimate(runtime, artifact, network, candidate.floats)
        return Loaded(candidate.key, title, artifact, runtime.load(artifact), estimate)

    def loaded_original(self) -> Loaded:
        """The original's file."""
        key = self.original.key
        if key not in self.recent:
            path = self.out / CANDIDATES / key / f"{STEM}{self.runtime.ending}"
            artifact, estimate = self.runtime.artifact(path), None
            if self.estimating is not None:
                original = self.estimating.original
                estimate = self._estimate(self.runtime, artifact, original, "float32")
            self._hold(Loaded(key, ORIGINAL, artifact, self.runtime.load(artifact), estimate))
        return self.recent[key]

    def _estimate(
        self, runtime: Runtime, artifact: Artifact, network: Network, floats: str
    ) -> Estimate | None:
        if self.estimating is None:
            return None
        return self.estimating.of(runtime, artifact, network, floats)

    def loaded(self, trial: Trial) -> Loaded:
        """The trial's file, loaded again if it was released.

        Raises:
            UnsafeError: it isn't the one that was measured.
        """
        if trial.key in self.recent:
            return self.recent[trial.key]
        runtime = self.runtime_of(trial.candidate)
        assert trial.artifact is not None
        lies_there = runtime.artifact(self.out / trial.artifact)
        artifact = replace(lies_there, sha256=str(trial.sha256))
        estimate = trial.measurement.estimate
        file = Loaded(trial.key, trial.title, artifact, runtime.load(artifact), estimate)
        return self._hold(file)

    def has(self, trial: Trial) -> bool:
        """Whether the trial's file is still the one that was measured."""
        if trial.artifact is None:
            return False
        paths = self.runtime_of(trial.candidate).files(self.out / trial.artifact)
        return all(path.is_file() for path in paths) and sha256(*paths) == trial.sha256

    def _hold(self, file: Loaded) -> Loaded:
        self.recent[file.key] = file
        others = [key for key in self.recent if key != self.original.key]
        for key in others[:-MOST_LOADED]:
            del self.recent[key]
        return file
