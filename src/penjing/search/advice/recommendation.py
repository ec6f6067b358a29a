"""Recommendation: the command that comes next, and how long to give it."""

from __future__ import annotations

import math
from collections.abc import Sequence

from penjing.search.advice.outlook import Outlook, Recommended
from penjing.search.advice.verdict import EPOCHS, MAY_PAY, NOT_TRIED, PAYS
from penjing.targets import Target
from penjing.trials.judgement.wording import duration

TRAINED = ("blocks removed", "channels removed", "low rank")
"""Families that a fit searches together."""
FITTING = 5.0
"""Minutes of a fit that trains nothing long."""
TRAINING = 0.6
"""The share of a fit that is training, about."""
LONGEST = 24 * 60.0
"""Minutes beyond which nobody waits."""


def recommended(
    outlooks: Sequence[Outlook],
    target: Target,
    epoch: float | None,
    took: float,
    knows_nothing: bool = False,
) -> Recommended:
    """What follows from all outlooks.

    Args:
        outlooks: of all methods.
        target: the device.
        epoch: seconds of training; None if the network can't be trained.
        took: seconds of the advice, which tell how long a fit takes beside its training.
        knows_nothing: whether the model is no better than chance.
    """
    options = {"target": "ssh://user@host" if target.reach == "ssh" else target.name}
    if knows_nothing:
        why = (
            "the model is no better than chance, so nothing can be said of what methods lose, and "
            "a fit would be refused; check the labels, the preprocessing and the checkpoint first"
        )
        return Recommended("fit", options, why)
    paying = [o for o in outlooks if o.verdict in (PAYS, MAY_PAY)]
    cuts = [o for o in paying if o.family in TRAINED]
    if not cuts or epoch is None:
        why = "integers and formats need no long training"
        if cuts:
            why = "the network can't be trained here, so only what needs no training is left"
        elif any(o.verdict == NOT_TRIED and o.family in TRAINED for o in outlooks):
            why = "there was no time to try what needs training; give the advice more minutes"
        elif epoch is not None:
            why = (
                "no blocks, channels or ranks were found that save time, so long training would be "
                "wasted"
            )
        return Recommended("fit", {**options, "minutes": f"{FITTING:g}"}, why)
    minutes = _rounded((EPOCHS * epoch / TRAINING + 2 * took) / 60)
    gain = "it is faster" if target.local else "by the estimates it may be faster"
    training = f"about {EPOCHS:g} epochs of training, {duration(epoch)} each,"
    figures = cuts[0].figures
    why = f"with {cuts[0].title} {gain}"
    if figures is not None and figures.lost > 0:
        why += f", and {training} make up for most of what that loses"
    else:
        why += f" and loses nothing untrained; a fit has time for {training} and may cut more"
    if minutes > LONGEST:
        why += "; that is more than a day here, so train on a machine with a GPU"
    return Recommended("fit", options | {"minutes": f"{minutes:g}"}, why)


def _rounded(minutes: float) -> float:
    """Up to five minutes that one can say.

    >>> _rounded(1.2), _rounded(23.1), _rounded(141)
    (5.0, 25.0, 150.0)
    """
    step = 5.0 if minutes < 100 else 30.0
    return step * max(1, math.ceil(minutes / step))
