"""Beginning: what every strategy tries first, and how much training the time allows."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import replace

from penjing.errors import PenjingError, in_one_line
from penjing.passes.conditions import Condition
from penjing.search.strategies.cutting import CUTS
from penjing.search.strategies.rounding import Asking, Rounding
from penjing.search.study import MOST_EPOCHS, Study
from penjing.search.ways import Way
from penjing.trials.contract import Pace
from penjing.trials.judgement.choice import choose
from penjing.trials.trial import ORIGINAL, Proposal, Trial


def begun(
    study: Study, rounds: int
) -> Generator[Sequence[Proposal], Sequence[Trial], tuple[Pace | None, Rounding]]:
    """Try what isn't pruned: the original and int8 in every runtime and precision, and other
    quantization schemes, or sensitive layers in float, where int8 loses too much accuracy. Where
    values are best left in float, as in recurrent layers, integer weights alone. int8 in the usual
    runtime is tried however little time there is.

    Args:
        study: the fit.
        rounds: how many times the strategy will propose after that, about.

    Returns:
        How fast the network trains, None if it can't; and the chosen quantization.
    """
    study.expect(_files(study) + rounds, must=1)
    pace, rounding = _look_ahead(study), Rounding(study)
    for way in study.ways.plain:
        if study.affords(0.0):
            yield [study.proposal(ORIGINAL, way=way)]
        else:
            study.note(f"no time was left to try {study.ways.title(ORIGINAL, way)}")
    yield from rounding.try_everywhere()
    yield from rounding.try_schemes()
    yield from rounding.round_sensitive_less()
    yield from rounding.try_weights_alone()
    yield from _own(study, rounding)
    return pace, rounding


def _own(study: Study, rounding: Rounding) -> Asking:
    """Try the user's recipes, in the best way for integers or for floats."""
    for name, passes in study.recipes.items():
        is_rounded = any(Condition.ROUNDED in step.provides for step in passes)
        way = rounding.way if is_rounded else best_float_way(study)
        yield [study.proposal(f"recipe {name}", *passes, way=way)]


def _files(study: Study) -> int:
    """How many files `begun` asks for where all goes well."""
    return len(study.ways.plain) + len(study.ways.integer)


def _look_ahead(study: Study) -> Pace | None:
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
    files = _files(study) + 2  # two of a pruned network
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
    aim = replace(study.result.aim, max_ms=None, max_kb=None)  # which cut networks are to keep
    best, _ = choose(study.result.baseline, trials, aim)
    return files[best.key]
