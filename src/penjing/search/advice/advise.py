"""Advise: which methods pay for a network on a device, by trying each for a moment."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

from penjing.errors import (
    ONE_CANDIDATES,
    InputError,
    PenjingError,
    in_one_line,
    is_one_candidates,
    require_positive,
)
from penjing.network import Network, capture
from penjing.passes import Quantize
from penjing.runtimes.registry import ENTRIES, first_runtime
from penjing.search.advice.methods import INTEGERS, Method, methods
from penjing.search.advice.outlook import CYCLES, Advice, Outlook
from penjing.search.advice.recommendation import recommended
from penjing.search.advice.trying import Tried, Trying
from penjing.search.advice.verdict import CANT, MAY_PAY, NOT_TRIED, PAYS, cut, expected, uncut
from penjing.search.budget import Budget
from penjing.search.preflight import prepare, require_better_than_chance, usual_training
from penjing.search.ways import Way, Ways
from penjing.targets import find_target
from penjing.tasks.batches import number_of_samples
from penjing.tasks.reference import find_task
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.evaluation.estimates import Estimating
from penjing.trials.evaluation.files import Files
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.evaluation.networks import Networks

FEW = 1000
"""With fewer training samples than this, training a cut network is likely to overfit."""
LATE = "the time was over; give more minutes"
Say = Callable[[str, float], None]
"""Called with what is being done, and the share of the time that is over."""


@dataclass(frozen=True)
class AdviceOptions:
    """What `advise` may be told beside its task, target and time.

    >>> AdviceOptions(seed=1).seed
    1

    Attributes:
        seed: of everything random.
        say: told what is being done.
        instruments: the clock, and what measures times.
    """

    seed: int = 0
    say: Say = lambda *_: None
    instruments: Instruments = field(default_factory=lambda: Instruments())  # the name, for tests


def advise(
    task: Task | str,
    target: str = "cpu",
    minutes: float = 2.0,
    options: AdviceOptions | None = None,
) -> Advice:
    """Try each family of methods without training, and say which pay.

    Each method becomes a file in the target's runtime. On this machine the file is timed beside the
    original's. For a device that isn't here, its compiler's cycles stand for the time where it
    estimates them, else the MACs do; both are marked as estimates. What a file loses is measured on
    about 1,000 held-out samples, with the layers solved again by least squares and nothing trained.
    Without validation data, samples are held out as in a fit, see
    `penjing.search.preflight.prepare`.

    Args:
        task: a `Task`, or the name of one as on the command line.
        target: the name of a target, see `penjing targets`.
        minutes: about how long it may take. The original and the integers are always tried.
        options: everything else.

    Raises:
        PenjingError: something is wrong with the task, there is no such target, or no runtime of
            the target is installed here.

    >>> import penjing, torch
    >>> _ = torch.manual_seed(0)
    >>> splits = [penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4) for _ in range(3)]
    >>> model = torch.nn.Sequential(torch.nn.Linear(8, 32), torch.nn.ReLU(), torch.nn.Linear(32, 4))
    >>> task = penjing.Task(model, splits[0].x[:2], *splits)
    >>> advice = advise(task, "raspberry-pi-5")
    >>> advice.speed, advice.is_estimate
    ('MACs', True)
    >>> [outlook.title for outlook in advice.outlooks][:2]
    ['float32 in onnxruntime', 'int8 in onnxruntime']
    """
    options = options or AdviceOptions()
    require_positive("`minutes`", minutes)
    where = find_target(target)
    runtime = first_runtime(where).on(where)
    options.say("reading the task", 0.0)
    given = find_task(task) if isinstance(task, str) else task
    begin = options.instruments.clock()
    prepared, _, notes = prepare(given, Budget(1.0), lambda line: options.say(line, 0.0))
    network = capture(prepared.model, prepared.example, source=prepared.source)
    estimating = None if where.local else Estimating.on(where, network)
    with tempfile.TemporaryDirectory() as folder:
        trying = Trying(
            prepared, where, runtime,
            Networks(prepared, network, Path(folder), options.instruments.clock),
            Files(Path(folder), runtime, where, estimating), options.instruments, options.seed,
        )  # fmt: skip
        advising = _Advising(trying, network, begin, 60 * minutes, options)
        advising.run()
        return advising.advice(notes)


@dataclass(frozen=True)
class _Base:
    """The fastest uncut file so far, whose runtime and rounding the cut networks get."""

    tried: Tried
    way: Way
    scheme: tuple[Quantize, ...]
    title: str


@dataclass
class _Advising:
    """One advice in the making.

    Attributes:
        begin, seconds: when it began by the clock, and how long it may take.
        outlooks: so far.
        epoch: seconds of an epoch of training; None if the network can't be trained.
        knows_nothing: whether the model is no better than chance.
    """

    trying: Trying
    network: Network
    begin: float
    seconds: float
    options: AdviceOptions
    outlooks: list[Outlook] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    base: _Base | None = None
    epoch: float | None = None
    knows_nothing: bool = False

    def run(self) -> None:
        """Try everything that there is time for. Floats of other runtimes come last, since they
        tell least."""
        self._look_at_accuracy()
        first, *others = self._ways()
        self._uncut("float", first, ())
        for way in (first, *others):
            if way.floats == "float32":
                self._uncut(INTEGERS, way, (Quantize(),))
        if self.base is None:
            reasons = "; ".join(outlook.why for outlook in self.outlooks)
            name = self.trying.target.name
            raise InputError(f"no file could be made for target {name}: {reasons}")
        self._look_at_training()
        for method in methods(self.network, self.trying.target.width_multiple):
            self.outlooks.append(self._outlook(method, self.base))
        for way in others:
            self._uncut("float", way, (), must=False)

    def _ways(self) -> list[Way]:
        """All ways on this machine; of a device that isn't here, its first runtime."""
        trying = self.trying
        if not trying.target.local:
            return [Way(trying.runtime)]
        return list(Ways.on(trying.target, trying.runtime).every)

    def _uncut(
        self, family: str, way: Way, scheme: tuple[Quantize, ...], must: bool = True
    ) -> None:
        """Try the network as it is, in float or in integers; if it must be or there is time."""
        title = f"{'int8' if scheme else way.floats} in {way.runtime.name}"
        candidate, before = way.candidate(*scheme), self.base
        outlook = Outlook(family, title, CANT, "", candidate.recipe, way.runtime.name)
        if not must and self._share() >= 1:
            self.outlooks.append(replace(outlook, verdict=NOT_TRIED, why=LATE))
            return
        tried = self._tried(title, candidate)
        if isinstance(tried, str):
            self.outlooks.append(replace(outlook, why=tried))
            return
        best = None if before is None else before.tried.figures
        rival = "" if before is None else before.title
        verdict, why = uncut(tried.figures, best, self.trying.speed, rival)
        self.outlooks.append(replace(outlook, verdict=verdict, why=why, figures=tried.figures))
        if best is None or verdict in (PAYS, MAY_PAY):
            self.base = _Base(tried, way, scheme, title)

    def _outlook(self, method: Method, base: _Base) -> Outlook:
        """Try a method that takes something from the network."""
        way = Way(self.trying.runtime) if method.in_first else base.way
        if any(isinstance(step, Quantize) for step in method.passes):
            way = Way(way.runtime)  # integers are never made in half precision
        needs_integers = way.runtime.stand_in  # as NPUs do, for which something else stands here
        scheme = base.scheme if method.rounded or (needs_integers and method.in_first) else ()
        candidate = way.candidate(*method.passes, *scheme)
        outlook = Outlook(
            method.family, method.title, CANT, method.impossible, candidate.recipe, way.runtime.name
        )
        if method.impossible:
            return replace(outlook, recipe=())
        if self._share() >= 1:
            return replace(outlook, verdict=NOT_TRIED, why=LATE)
        tried = self._tried(method.title, candidate)
        if isinstance(tried, str):
            return replace(outlook, why=tried)
        mine, whole = tried.figures, base.tried.figures
        verdict, why = cut(mine, whole, self.trying.speed, base.title, method.trains)
        after = expected(mine, whole) if method.trains and self.epoch is not None else None
        return replace(outlook, verdict=verdict, why=why, figures=mine, expected=after)

    def _tried(self, title: str, candidate: Candidate) -> Tried | str:
        """A file and its figures, or why there is none."""
        try:
            return self.trying.tried(
                candidate,
                lambda line, _=0.0: self.options.say(f"{title}: {line}", self._share()),
            )
        except ONE_CANDIDATES as error:
            if not is_one_candidates(error):
                raise
            return in_one_line(error)

    def _look_at_accuracy(self) -> None:
        """Say so if the model has learnt nothing that could be lost."""
        trying = self.trying
        scores = trying.original.scores
        try:
            require_better_than_chance(trying.task.metric.name, scores, trying.samples)
        except InputError as error:
            self.notes.append(f"what files lose tells nothing here: {error}")
            self.knows_nothing = True

    def _look_at_training(self) -> None:
        """How long an epoch takes here, and whether there is data to train with."""
        networks = self.trying.networks
        training = usual_training(self.trying.task, self.network, self.options.seed)
        self.options.say("timing a few steps of training", self._share())
        try:
            self.epoch = networks.pace((), training).epoch
        except PenjingError as error:
            self.notes.append(f"the network can't be trained: {in_one_line(error)}")
            return
        samples = number_of_samples(networks.blind.train)
        if samples < FEW:
            self.notes.append(
                f"there are only {samples} training samples; a network from which something was "
                "taken needs training, and with so few it is likely to overfit"
            )

    def _other_runtime(self) -> list[str]:
        """That the target's own runtime isn't here, if so."""
        own, used = self.trying.target.runtimes[0], self.trying.runtime.name
        if self.trying.target.local or own == used:
            return []
        return [
            f"{self.trying.target.name} has {own}, which isn't installed here, so files were made "
            f"for {used}; with it ({ENTRIES[own].install}) the advice may be another"
        ]

    def _share(self) -> float:
        """The share of the time that is over."""
        return self._elapsed / self.seconds

    @property
    def _elapsed(self) -> float:
        return self.options.instruments.clock() - self.begin

    def advice(self, notes: tuple[str, ...]) -> Advice:
        """What came of it."""
        trying, first = self.trying, self.trying.reference
        assert first is not None
        title = next(o.title for o in self.outlooks if o.figures is first.figures)
        target, estimate = trying.target, first.file.estimate
        machine = target.description
        if estimate is not None and trying.speed == CYCLES:
            machine = f"{estimate.source} for {estimate.machine}"
        return Advice(
            task=trying.task.name,
            target=target.name,
            speed=trying.speed,
            machine=machine,
            samples=trying.count,
            metric=trying.task.metric.name,
            first=title,
            outlooks=tuple(self.outlooks),
            recommended=recommended(
                self.outlooks, target, self.epoch, self._elapsed, self.knows_nothing
            ),
            epoch_seconds=self.epoch,
            notes=(*notes, *self._other_runtime(), *self.notes),
            seconds=self._elapsed,
        )
