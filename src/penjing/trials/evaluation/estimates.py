"""Estimates: what stands for the time of a file on a device that isn't here."""

from __future__ import annotations

from dataclasses import dataclass, replace

from penjing.contract import Artifact, Estimate
from penjing.errors import InputError
from penjing.measure.costs import totals
from penjing.measure.footprint import footprint
from penjing.measure.work import work
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import find_runtime, installed
from penjing.targets import Target

COUNTED = "counted by penjing"
MILLION = 1e6


@dataclass(frozen=True)
class Estimating:
    """Estimates the cost of files on a target that isn't here.

    Its compiler's estimate is taken where there is one. For what runs on the processor beside an
    NPU, a cycle of the NPU's clock is assumed for each MAC of float32. A file that doesn't use the
    NPU, such as the original's, takes one for each byte of weights too. Where nobody estimates, the
    MACs are the cost.

    Attributes:
        target: where the files will run.
        original: the network that all others are compared with.
        clock: cycles in a second, by the vendor's estimator; None where nobody estimates.
    """

    target: Target
    original: Network
    clock: float | None = None

    @classmethod
    def on(cls, target: Target, original: Network) -> Estimating:
        """What estimates for the target, of all that is installed here."""
        names = set(installed()).intersection(target.runtimes)
        clocks = [find_runtime(name).on(target).clock_hz for name in sorted(names)]
        return cls(target, original, next((clock for clock in clocks if clock), None))

    @property
    def unit(self) -> str:
        """Of the estimates, for people."""
        return "million MACs" if self.clock is None else "ms"

    @property
    def basis(self) -> str:
        """Where the figures are from, for people."""
        if self.clock is None:
            return (
                f"{self.target.name} isn't here: nothing is timed; MACs stand for the time, in "
                "millions, and one of 8-bit integers counts as a quarter"
            )
        return (
            f"{self.target.name} isn't here: times are its compiler's estimates; for layers that "
            "don't run on the NPU, a cycle for each MAC is assumed, and for the original in float "
            "one for each byte of weights too"
        )

    def require_time(self, max_ms: float | None) -> None:
        """Raise InputError if a time is limited that nobody estimates."""
        if max_ms is not None and self.clock is None:
            raise InputError(
                f"`max_ms` can't be kept on target {self.target.name}, since nobody estimates "
                "times there; leave it out, or measure on the device with its address, "
                "`target='ssh://user@host'`"
            )

    def of(self, runtime: Runtime, artifact: Artifact, network: Network, floats: str) -> Estimate:
        """The estimate of a file.

        Args:
            runtime: that made it.
            artifact: the file.
            network: that it was made from, with its rounding.
            floats: how it holds real numbers.
        """
        told, halves = runtime.estimate(artifact), floats == "float16"
        if told is not None and told.latency_ms and self.clock:
            units = runtime.placement(artifact)  # LiteRT's names end in the operator's kind
            beside = {p.name.rsplit("/", 1)[0] for p in units if p.unit == "cpu"}
            left = work(network, halves, beside) if beside else 0.0
            return replace(told, latency_ms=told.latency_ms + 1e3 * left / self.clock)
        counted = work(network, halves)
        if not counted > 0:
            raise InputError(
                "its MACs can't be counted, so nothing stands for its time on a device that isn't "
                "here; try `target='cpu'`"
            )
        macs, _ = totals(network)
        if self.clock is None:
            return Estimate(COUNTED, self.target.name, counted / MILLION, macs=macs)
        cycles = counted + footprint(network, halves).weight_bytes
        return Estimate(COUNTED, self.target.name, 1e3 * cycles / self.clock, macs=macs)
