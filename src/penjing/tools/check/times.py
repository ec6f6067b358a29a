"""Times: whether a file takes more of a reference's time than it may, on a machine that is shared.

Both files are timed in the same windows, so other load slows both. A rule is broken only if the
whole interval of the ratio is above the limit, and if further measurements confirm it. So chance
and other programs don't raise an alarm.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from penjing.contract import Latency

MOST = 3
"""How often time is measured at most."""
ENOUGH = 2
"""With so many undisturbed measurements, disturbed ones don't count."""


@dataclass(frozen=True)
class Times:
    """Measurements of what a file takes of the reference's time.

    Attributes:
        limit: the largest ratio that is allowed.
        measured: in order.
    """

    limit: float
    measured: tuple[Latency, ...]

    @property
    def counted(self) -> Sequence[Latency]:
        """The measurements that decide: the undisturbed ones, or all if there are too few."""
        quiet = [latency for latency in self.measured if not latency.disturbed]
        return quiet if len(quiet) >= ENOUGH else self.measured

    @property
    def broken(self) -> bool:
        """Whether each of them is above the limit with its whole interval."""
        return all(latency.ratio_low > self.limit for latency in self.counted)

    @property
    def shown(self) -> Latency:
        """The measurement to print: the first one that keeps the limit, or the last one."""
        kept = [latency for latency in self.counted if latency.ratio_low <= self.limit]
        return (kept or [self.counted[-1]])[0]


def timed(measure: Callable[[int], Latency], limit: float) -> Times:
    """Measure until an undisturbed measurement keeps the limit, but at most three times.

    Args:
        measure: a measurement; it is given the seed of its order.
        limit: the largest ratio that is allowed.

    >>> timed(lambda seed: Latency(1.0, 1.0, 1.0, 0.98, 1.02, 20), 1.0).broken
    False
    >>> slower = timed(lambda seed: Latency(2.0, 2.0, 2.0, 1.9, 2.1, 20), 1.0)
    >>> slower.broken, len(slower.measured)
    (True, 3)
    """
    measured: list[Latency] = []
    for seed in range(MOST):
        latency = measure(seed)
        measured.append(latency)
        if latency.ratio_low <= limit and not latency.disturbed:
            break
    return Times(limit, tuple(measured))
