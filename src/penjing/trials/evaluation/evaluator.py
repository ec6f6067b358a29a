"""FileEvaluator: makes candidates into files, and measures every figure on the file."""

from __future__ import annotations

import math
import traceback
from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from pathlib import Path

from penjing.contract import Json, Latency, Measurement, Parity, as_arrays
from penjing.device.address import Device
from penjing.errors import (
    ONE_CANDIDATES,
    BugError,
    InputError,
    PenjingError,
    RemoteFileError,
    in_one_line,
    is_one_candidates,
)
from penjing.files import write_atomically
from penjing.measure import costs
from penjing.measure.footprint import footprint
from penjing.measure.parity import parity
from penjing.measure.scores import Scores, judge
from penjing.network import Network
from penjing.passes.order import require_legal
from penjing.runtimes.contract import Runtime
from penjing.targets import Target
from penjing.tasks.batches import number_of_samples, samples_told
from penjing.tasks.data import cut, first
from penjing.tasks.task import Batches, Task
from penjing.trials.candidate import Candidate
from penjing.trials.contract import MEASURING, Pace, Probed, Sitting, StoppedError, Watch
from penjing.trials.evaluation import by_layer
from penjing.trials.evaluation.divergence import require_parity
from penjing.trials.evaluation.estimates import Estimating
from penjing.trials.evaluation.files import TRACEBACK, Files, Loaded
from penjing.trials.evaluation.float_layers import slower_layers
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.evaluation.networks import Networks
from penjing.trials.evaluation.on_device import JOBS_THERE, SAMPLES_THERE, agreement
from penjing.trials.evaluation.probes import probe
from penjing.trials.evaluation.remarks import remarks
from penjing.trials.evaluation.saturation import as_json
from penjing.trials.evaluation.sensitive_layers import sensitive_layers
from penjing.trials.evaluation.timing import LATENCY_SECONDS, Estimated, Here, OnDevice, Timing
from penjing.trials.judgement.promise import MOST_TEST_EVALUATIONS, Promise, promise_of
from penjing.trials.layers import Layers
from penjing.trials.trial import ORIGINAL, Extent, Proposal, Status, Trial
from penjing.tune.options import TuneOptions

MAKING = 0.7
"""Share of a candidate's time, about, that its network takes; the rest is measuring."""


@dataclass
class FileEvaluator:
    """See `penjing.trials.contract.Evaluator`.

    Attributes:
        out: the result's folder; each candidate gets a folder of its own in `candidates/`.
        runtime: the original's.
        confidence: of bounds on validation data.
        device: where time and memory are measured, if not here. Accuracy is always measured here,
            on the same file.
        estimating: what estimates the costs of files on a target that isn't here; None where time
            is measured.
        timing: of files, here or on the device.
        scoring_seconds: how long the original took on the validation data.
    """

    task: Task
    network: Network
    target: Target
    out: Path
    confidence: float
    seed: int
    runtime: Runtime
    device: Device | None = None
    estimating: Estimating | None = None
    instruments: Instruments = field(default_factory=Instruments)
    scoring_seconds: float = 0.0
    promise: Promise = field(default_factory=Promise)
    timing: Timing = field(init=False)
    networks: Networks = field(init=False)
    files: Files = field(init=False)
    _original_scores: Scores | None = None

    def __post_init__(self) -> None:
        inputs = cut(as_arrays(self.task.example), 1)
        given = (inputs, self.seed, self.instruments)
        if self.device is not None:
            self.timing = OnDevice(*given, device=self.device)
        else:
            self.timing = Here(*given) if self.estimating is None else Estimated(*given)
        self.files = Files(self.out, self.runtime, self.target, self.estimating)
        self.networks = Networks(self.task, self.network, self.out, self.instruments.clock)

    @property
    def validation(self) -> Batches:
        """The held-out data on which candidates are judged."""
        assert self.task.validation is not None
        return self.task.validation

    def baseline(self, watch: Watch) -> Trial:
        """See `Evaluator.baseline`."""
        begin = self.instruments.clock()
        trial = self._made(Proposal(self.files.original, ORIGINAL), watch)
        return self._measured(replace(trial, status=Status.BASELINE), begin, watch)

    def settle(self, max_drop: float) -> Promise:
        """See `Evaluator.settle`."""
        original = self.original_scores()
        samples = number_of_samples(self.task.test)
        unit = self.task.metric.unit
        made = promise_of(max_drop, self.confidence, len(original), samples, original.least, unit)
        self.hold_to(made)
        return made

    def hold_to(self, promise: Promise) -> None:
        """See `Evaluator.hold_to`."""
        self.promise, self.confidence = promise, promise.confidence

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        """See `Evaluator.evaluate`.

        Raises:
            BugError: an exception that nothing is documented to raise; its traceback lies in the
                candidate's folder.
            PenjingError: an error that is not the candidate's, and so ends the run.
        """
        try:
            return self._evaluated(proposal, watch)
        except StoppedError:
            raise
        except Exception as error:
            if is_one_candidates(error):
                return Trial(
                    proposal.candidate, proposal.title, Status.FAILED, in_one_line(error),
                    replaces=proposal.replaces,
                )  # fmt: skip
            if isinstance(error, PenjingError):
                raise
            path = self.files.folder(proposal.key) / TRACEBACK
            write_atomically(path, "".join(traceback.format_exception(error)))
            raise BugError(proposal.title, error, path) from error

    def _evaluated(self, proposal: Proposal, watch: Watch) -> Trial:
        begin = self.instruments.clock()
        watch.say(proposal.title)
        trial = self._made(proposal, watch)
        watch.say(f"{proposal.title}: measuring", MAKING)
        if proposal.extent == Extent.SPEED:
            return trial
        trial = self._measured(trial, begin, watch)
        watch.say(proposal.title, 1.0)
        assert trial.drop is not None
        status, reason = self.promise.judge(trial.drop)
        made = self.networks.made(trial.candidate.recipe), self.files.runtime_of(trial.candidate)
        reason = "; ".join(filter(None, (reason, *remarks(*made, trial.measurement.file_bytes))))
        return replace(trial, status=Status(status), reason=reason)

    def _made(self, proposal: Proposal, watch: Watch) -> Trial:
        """The candidate's file, with what is known of it before it runs."""
        candidate, title = proposal.candidate, proposal.title
        require_legal(candidate.passes)
        runtime = self.files.runtime_of(candidate)
        begin = self.instruments.clock()
        network = self.networks.made(
            candidate.recipe,
            lambda line, share=0.0: watch.say(f"{title}: {line}", MAKING * share),
            proposal.seconds,
        )
        making = self.instruments.clock() - begin
        self.files.require_possible(candidate, network)
        file = self.files.make(candidate, title, network)
        artifact = file.artifact
        self.files.require_possible(candidate, network, artifact)
        macs, params = costs.totals(network)
        sizes = Measurement(
            file_bytes=artifact.file_bytes,
            weight_bytes=runtime.weight_bytes(artifact),
            peak_activation_bytes=footprint(network).value_bytes,
            macs=macs,
            params=params,
            metric=self.task.metric.name,
            saturates=as_json(runtime.saturating(artifact)),
            estimate=file.estimate,
        )
        return Trial(
            candidate, title, Status.NOT_TUNED, "", sizes,
            str(artifact.path.relative_to(self.out)), artifact.sha256, making_seconds=making,
            replaces=proposal.replaces,
        )  # fmt: skip

    def _measured(self, trial: Trial, begin: float, watch: Watch) -> Trial:
        """The trial with everything that is measured on its file: score, drop, parity, memory and
        latency.

        Raises:
            InputError: its outputs aren't finite, or the metric can't score them.
            DivergenceError: it computes something else here than its network.
        """
        file, start = self.files.loaded(trial), self.instruments.clock()
        stage = MEASURING if trial.status == Status.BASELINE else trial.title
        told = watch.scoring(stage, samples_told(self.validation), MAKING)
        score = judge(file.session, self.validation, self.task.metric, told)
        if trial.key == self.files.original.key:
            self._original_scores = score
            self.scoring_seconds = self.instruments.clock() - start
        same = self._require_parity(trial, file)
        took, peak = self.timing.latency_and_peak(self.files.loaded_original(), file)
        figures = replace(
            trial.measurement,
            peak_process_bytes=peak,
            score=score.figure,
            latency=took,
            drop=self.original_scores().lost(score, self.confidence),
            parity=same,
        )
        return replace(trial, measurement=figures, seconds=self.instruments.clock() - begin)

    def _require_parity(self, trial: Trial, file: Loaded) -> Parity:
        """How far the file's outputs are from its network's; raises as `_measured` does."""
        runtime, floats = self.files.runtime_of(trial.candidate), trial.candidate.floats
        network = runtime.as_computed(self.networks.made(trial.candidate.recipe))
        agreement = parity(network, file.session, self.validation, floats=floats)
        if not math.isfinite(agreement.max_difference):
            raise InputError("the file's outputs are NaN or infinite on validation data")
        (inputs, _), *_ = first(self.validation, SAMPLES_THERE)
        require_parity(agreement, network, runtime, file.artifact, inputs, floats)
        return agreement

    def original_scores(self) -> Scores:
        """See `Evaluator.original_scores`; computed again in a resumed run."""
        if self._original_scores is None:
            start = self.instruments.clock()
            session = self.files.loaded_original().session
            self._original_scores = judge(session, self.validation, self.task.metric)
            self.scoring_seconds = self.instruments.clock() - start
        return self._original_scores

    def has(self, trial: Trial) -> bool:
        """See `Evaluator.has`."""
        return self.files.has(trial)

    @property
    def timing_seconds(self) -> float:
        """See `Evaluator`."""
        return self.stretch * self.timing.usual_seconds + 2 * self.travel_seconds

    @property
    def travel_seconds(self) -> float:
        """See `Evaluator`."""
        return self.timing.travel_seconds

    @property
    def stretch(self) -> float:
        """See `Evaluator`."""
        return self.timing.stretch

    def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
        """See `Evaluator.time`. Files that a device can't hold all at once are timed one by one,
        each beside the original."""
        files = {trial.title: self.files.loaded(trial) for trial in trials}
        files.pop(ORIGINAL, None)
        try:
            together = [self.files.loaded_original(), *files.values()]
            return Sitting(self._times(together, seconds))
        except RemoteFileError as error:
            if error.file in files:
                rest = [trial for trial in trials if trial.title != error.file]
                sitting = self.time(rest, seconds)
                refused = {files[error.file].key: str(error)}
                return Sitting(sitting.times, {**sitting.refused, **refused})
            if len(trials) < 2:
                raise
        sittings = [self.time([trial], seconds / len(trials)) for trial in trials]
        return Sitting(
            {key: time for sitting in sittings for key, time in sitting.times.items()},
            {key: why for sitting in sittings for key, why in sitting.refused.items()},
        )

    def _times(self, files: Sequence[Loaded], seconds: float) -> dict[str, Latency]:
        times = self.timing.latencies(files, seconds)
        if any(latency.disturbed for latency in times.values()):
            times = self.timing.latencies(files, seconds)
        return times

    def compare(self, trial: Trial, rival: Trial) -> Latency:
        """See `Evaluator.compare`."""
        files = [self.files.loaded(rival), self.files.loaded(trial)]
        return self._times(files, LATENCY_SECONDS)[trial.key]

    def slower_layers(self, trial: Trial, rival: Trial) -> list[str] | None:
        """See `Evaluator.slower_layers`."""
        if self.estimating is not None:
            return []  # no layer of an estimate is slow by itself
        if not self._is_timed_here or trial.latency is None:
            return None
        both = [
            (self.files.runtime_of(each.candidate), self.files.loaded(each).artifact)
            for each in (trial, rival)
        ]
        inputs = self.timing.inputs
        return slower_layers(both, self.network, trial.latency, inputs, self.instruments)

    def sensitive_layers(self, trial: Trial) -> list[str]:
        """See `Evaluator.sensitive_layers`."""
        return sensitive_layers(self.networks.made(trial.candidate.recipe), self.network, self.task)

    def layers(self, trial: Trial, original: Trial) -> Layers:
        """See `Evaluator.layers`."""
        both = (original, trial)
        try:
            network = self.networks.made(by_layer.shaping(trial.candidate.recipe))
            sizes = by_layer.sizes(self.network), by_layer.sizes(network)
            times = {each.key: self._milliseconds(each) for each in both}
        except ONE_CANDIDATES as error:
            if not is_one_candidates(error):
                raise
            return Layers(notes=(f"the layers couldn't be looked at: {in_one_line(error)}",))
        silent = dict.fromkeys(self.profiler(each) for each in both if times[each.key] is None)
        if self.estimating is not None:
            silent = {}  # nobody was asked
        notes = tuple(f"{who} doesn't report the time of each layer" for who in silent)
        return Layers(by_layer.beside(*sizes, times[original.key], times[trial.key]), notes)

    def _milliseconds(self, trial: Trial) -> by_layer.Times:
        if not self._is_timed_here or trial.latency is None:
            return None
        runtime = self.files.runtime_of(trial.candidate)
        artifact, inputs = self.files.loaded(trial).artifact, self.timing.inputs
        return by_layer.milliseconds(runtime, artifact, trial.latency, inputs, self.instruments)

    def profiler(self, trial: Trial) -> str:
        """See `Evaluator.profiler`."""
        return trial.runtime if self._is_timed_here else "the device"

    @property
    def _is_timed_here(self) -> bool:
        return self.device is None and self.estimating is None

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        """See `Evaluator.probe`."""
        times_of = self._times if timed else None
        return probe(candidates, self.networks, self.files, times_of, watch)

    def made(self, recipe: Sequence[Json], watch: Watch) -> Network:
        """See `Evaluator.made`."""
        return self.networks.made(recipe, watch.say)

    @property
    def blind(self) -> Task:
        """See `Evaluator.blind`."""
        return self.networks.blind

    def changes(self, recipe: Sequence[Json], watch: Watch) -> bool:
        """See `Evaluator.changes`."""
        return self.networks.changes(recipe, watch.say)

    def pace(self, recipe: Sequence[Json], training: TuneOptions, watch: Watch) -> Pace:
        """See `Evaluator.pace`."""
        return self.networks.pace(recipe, training, watch.say)

    def is_trained(self, recipe: Sequence[Json]) -> bool:
        """See `Evaluator.is_trained`."""
        return self.networks.is_saved(recipe)

    def epochs_trained(self, recipe: Sequence[Json], watch: Watch) -> float:
        """See `Evaluator.epochs_trained`."""
        return self.networks.epochs_trained(recipe, watch.say)

    def test(self, trial: Trial, stage: str, watch: Watch) -> Scores:
        """See `Evaluator.test`."""
        told = watch.scoring(stage, samples_told(self.task.test))
        return judge(self.files.loaded(trial).session, self.task.test, self.task.metric, told)

    def testing_seconds(self) -> float:
        """See `Evaluator.testing_seconds`; if both splits have batches of the same size."""
        both = self.task.test, self.validation
        known = all(isinstance(split, Sized) for split in both)
        share = len(both[0]) / max(1, len(both[1])) if known else 1.0  # type: ignore[arg-type]
        return (1 + MOST_TEST_EVALUATIONS) * share * self.scoring_seconds

    def notes(self, trial: Trial) -> tuple[str, ...]:
        """See `Evaluator.notes`."""
        if self.estimating is not None and trial.key == self.files.original.key:
            too_large = self.files.runtime.too_large
            return tuple(too_large(self.network, self.target, self.files.loaded(trial).artifact))
        if self.device is None:
            return ()
        network = self.networks.made(trial.candidate.recipe)
        batches = first(self.validation, SAMPLES_THERE)[:JOBS_THERE]
        said = agreement(self.device, self.files.loaded(trial), trial, network, batches)
        return (*self.timing.notes, said)
