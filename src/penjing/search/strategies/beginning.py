"""Beginning: what every strategy tries first, and how much training the time allows."""

from __future__ import annotations

from penjing.errors import PenjingError, in_one_line
from penjing.search.strategies.cutting import CUTS, MOST_EPOCHS
from penjing.search.strategies.rounding import Asking, Rounding
from penjing.search.study import Study
from penjing.search.ways import Way
from penjing.trials.contract import Pace
from penjing.trials.judgement.choice import choose
from penjing.trials.trial import ORIGINAL, Status

FLOAT_SHARE = 0.15  # the largest share of the time left that leaving layers in float may take


def try_unpruned(study: Study, rounding: Rounding) -> Asking:
    """Try the original and int8 in every runtime and precision, however little time there is, and
    other quantization schemes where int8 loses too much accuracy."""
    for way in study.ways.others:
        yield [study.proposal(ORIGINAL, way=way, must=True)]
    yield from rounding.try_everywhere()
    yield from rounding.try_schemes()


def must_try(study: Study) -> int:
    """How many rounds of `try_unpruned` are never left out."""
    return len(study.ways.others) + len(study.ways.integer)


def look_ahead(study: Study) -> Pace | None:
    """Measure how fast the network trains, and say how much training the time allows.

    Returns None if the network can't be trained. The strategy then goes on without training.
    """
    study.say("timing a few steps of training")
    try:
        pace = study.pace()
    except PenjingError as error:
        study.note(f"the network can't be tuned, so it isn't pruned: {in_one_line(error)}")
        return None
    if study.schedule.epochs is not None:
        return pace
    files = must_try(study) + 2  # two of a pruned network
    left = study.schedule.left() - files * study.result.baseline.seconds
    allowed = f"{study.schedule.seconds / 60:g} minutes allow"
    epochs = max(0.0, left) / pace.epoch
    if left < pace.least:
        text = f"{allowed} hardly any tuning, since measuring will take most of that time"
    elif epochs > MOST_EPOCHS * len(CUTS):
        text = f"{allowed} {MOST_EPOCHS:g} epochs of tuning for each width, which is enough"
    else:
        text = f"{allowed} at most {epochs:.1f} epochs of tuning in total"
    study.note(text, aloud=True)
    return pace


def best_float_way(study: Study) -> Way:
    """The way in which the original does best."""
    files = {trial.key: way for way in study.ways.every if (trial := study.original(way))}
    trials = [trial for trial in study.result.trials if trial.key in files]
    best, _ = choose(study.result.baseline, trials, study.goal, study.max_drop)
    return files[best.key]


def refined(study: Study, rounding: Rounding) -> Asking:
    """Try fewer bits if a small file is wanted, or slow layers in float if a fast one is."""
    trial = rounding.trial
    if trial is None:
        return
    timing = 2 * study.evaluator.timing_seconds
    if study.goal == "size" and trial.status == Status.KEPT:
        yield from rounding.try_fewer_bits()
    elif study.affords(trial.seconds + timing, FLOAT_SHARE):
        yield from rounding.leave_in_float()
    else:
        study.note(f"too little time to look for layers that {trial.title} slows down")
