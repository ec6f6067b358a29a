"""Ternary: weights of three values, trained so, for who wants a small file."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penjing.errors import ONE_CANDIDATES, is_one_candidates
from penjing.passes import Ternarize, Tune
from penjing.search.strategies.rounding import Asking
from penjing.search.strategies.schemes import Passes, again
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.contract import Pace
from penjing.trials.judgement.goal import mean_of, weights_of
from penjing.trials.trial import Status, Trial

SHARES = (0.75, 0.9)
"""Of the time that is left, what each training may take."""
NEAR = 1.0
"""So many points beyond the budget a network is trained on."""
LEAST_GAIN = 0.95
"""A file that takes more than this share of the answer's isn't worth a training."""
LEAST_EPOCHS = 2.0
"""So long the first training must be: all weights begin anew."""
PEAK, CALMER, AGAIN = 2.5, 0.25, 0.5
"""The peak of the learning rate, of the usual one: weights have to change their sign. `CALMER` is
for a network whose training fails with that, `AGAIN` for one that was trained so. ResNet-20 lost
0.86 points after 5.5 epochs, and 0.96 after 7.3 more that began at the first peak again."""
NAME = "ternary weights"
"""Under which the ledger remembers, and what files are called."""


@dataclass(frozen=True)
class Ternary:
    """Trains the whole network with ternary weights, if that makes it the best by the goal.

    What its file takes doesn't depend on the values of the weights, so it is known before any
    training. ResNet-20's takes 0.24 of its int8 file's bytes in ONNX Runtime, which stores five
    weights in a byte.

    Attributes:
        study: the fit.
        pace: how fast the original trains.
    """

    study: Study
    pace: Pace

    def run(self) -> Asking:
        """Train it; and once more if it is over the budget, but near, or if the training failed."""
        if "size" not in weights_of(self.study.goal):
            return
        way = self._way()
        if way is None:
            return
        passes: Passes = (Ternarize(),)
        peak = PEAK
        for turn, share in enumerate(SHARES):
            length = self._length(turn, share, way, passes, peak)
            if length is None:
                return
            epochs, seconds = length
            longer = (*passes, self._tuning(epochs, peak))
            title = f"{NAME}{' at a lower rate' if peak == CALMER else again(longer)}"
            proposal = self.study.proposal(title, *longer, way=way, must=True)
            (trial,) = yield [replace(proposal, seconds=seconds)]
            if trial.status == Status.FAILED:
                peak = CALMER
            elif trial.status != Status.OVER_BUDGET or self._is_far(trial):
                return
            else:
                passes, peak = longer, AGAIN

    def _is_far(self, trial: Trial) -> bool:
        most = self.study.max_drop + NEAR * self.study.result.point
        return trial.drop is None or trial.drop.drop > most

    def _way(self) -> Way | None:
        """The way in which its file is the best by the goal; None if the answer so far is about as
        good, or better."""
        known = self.study.ledger.recall(NAME)
        if known is None:
            shares: dict[int, float] = {}
            for place, way in enumerate(self.study.ways.every):
                try:
                    share = self._share_in(way)
                    if share is not None:
                        shares[place] = share
                except ONE_CANDIDATES as error:  # there are others
                    if not is_one_candidates(error):
                        raise
            best = min(shares, key=shares.__getitem__, default=None)
            result = self.study.result
            most = LEAST_GAIN * result.aim.share(result.answer, result.baseline)
            known = {"way": None if best is None or shares[best] > most else best}
            self.study.ledger.remember(NAME, known)
        place = known["way"]
        return None if place is None else self.study.ways.every[place]

    def _share_in(self, way: Way) -> float | None:
        """What its file takes by the goal; None if that is beyond a limit."""
        goal, result = self.study.goal, self.study.result
        timed = "latency" in weights_of(goal) or result.max_ms is not None
        (probed,) = self.study.evaluator.probe(
            [way.candidate(Ternarize())], self.study.watch, timed
        )
        limits = {"latency": result.max_ms, "size": result.max_kb}
        whole = result.baseline.measurement
        figures = {
            "latency": whole.latency.latency_ms if whole.latency else 0.0,
            "size": (whole.file_bytes or 0) / 1e3,
        }
        for name, limit in limits.items():
            if limit is not None and probed.shares[name] * figures[name] > limit:
                return None
        return mean_of(goal, probed.shares)

    def _length(
        self, turn: int, share: float, way: Way, passes: Passes, peak: float
    ) -> tuple[float, float | None] | None:
        """How long to train; None if it can't be trained, or too briefly to be of use.

        A resumed fit gives the same answer, if that training was finished.
        """
        study, name = self.study, f"{NAME}, training {turn}"
        endless = study.schedule.epochs is not None
        known = study.ledger.recall(name)
        if known is not None:
            candidate = way.candidate(*passes, self._tuning(known, peak))
            if endless or study.was_tried(candidate) or study.is_trained(*candidate.passes):
                return known, None
        seconds = share * study.schedule.left()
        least = self.pace.least if turn else LEAST_EPOCHS * self.pace.epoch
        if seconds < least and not endless:
            study.note(f"too little time to train {NAME}")
            return None
        length = study.length_if_any(seconds, NAME, *passes)
        if length is not None:
            study.ledger.remember(name, length[0])
        return length

    def _tuning(self, epochs: float, peak: float) -> Tune:
        """Training for so many epochs, without weight decay, which would pull scales to 0."""
        options = self.study.training
        return Tune(
            replace(options, epochs=epochs, lr=peak * options.lr, weight_decay=0.0),
            recalibration_samples=0,
        )
