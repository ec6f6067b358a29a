"""Training: what a fit's passes make of its networks, blind to the data that will judge them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from penjing.batches import number_of_batches
from penjing.network import Network, save
from penjing.passes import Pass, Tune
from penjing.search import recipes
from penjing.search.preflight import distillable
from penjing.search.schedule import Schedule
from penjing.search.workshop import Workshop
from penjing.task import Task
from penjing.tune.train import step_seconds

LEAST_EPOCHS, LEAST_STEPS = 0.5, 100  # the shorter of both; less isn't worth a cut


@dataclass(frozen=True)
class Pace:
    """How fast a network trains here: seconds a step, and steps an epoch."""

    step: float
    steps: int

    @property
    def epoch(self) -> float:
        """Seconds; never quite nothing, so that it divides."""
        return max(self.step * self.steps, 1e-9)

    @property
    def least(self) -> float:
        """Seconds of the shortest training that is worth its cut."""
        return self.step * min(LEAST_EPOCHS * self.steps, LEAST_STEPS)


@dataclass
class Training:
    """Applies passes, and tunes for as long as the schedule allows.

    Attributes:
        say: called with a line for people, often; it raises KeyboardInterrupt to end the run.
    """

    workshop: Workshop
    schedule: Schedule
    original: Network
    seed: int
    say: Callable[[str], None]

    @property
    def blind(self) -> Task:
        """The task without the data by which candidates are judged, or the epoch that was lucky
        there would be chosen."""
        return replace(self.workshop.task, validation=None)

    def applied(self, step: Pass, network: Network, name: str) -> Network:
        """What a pass makes of a network, for the candidate `name`."""
        return step(network, self.blind, lambda line, _: self.say(f"{name}: {line}"))

    def pace(self, network: Network) -> Pace:
        """How fast the network trains, by a few real steps."""
        clock = self.workshop.instruments.clock
        options = self._tuning(1.0).options
        batches = max(1, number_of_batches(self.blind.train))
        return Pace(step_seconds(network, self.blind, options, clock), batches)

    def tuned(self, name: str, network: Network, seconds: float) -> tuple[Network, Tune]:
        """The network trained for as many epochs as fit into so many seconds by its own measured
        pace, at most `recipes.MOST_EPOCHS`, or for the schedule's epochs; and how. It is saved.

        Should its steps become slower on the way, the clock ends it all the same.
        """
        clock = self.workshop.instruments.clock
        limit = None
        if self.schedule.epochs is not None:
            tune = self._tuning(self.schedule.epochs)
        else:
            begin = clock()
            pace = self.pace(network)
            limit = max(seconds - (clock() - begin), pace.step)
            epochs = min(recipes.MOST_EPOCHS, max(limit / pace.epoch, 1 / pace.steps))
            tune = self._tuning(round(epochs, 2) or epochs)
        plan = tune.plan(network, self.blind)
        made = tune.apply(
            network, plan, self.blind, lambda line, _: self.say(f"{name}: {line}"), clock, limit
        )
        save(made, self.workshop.folder(name) / "network")
        return made, tune

    def _tuning(self, epochs: float) -> Tune:
        distill = distillable(self.workshop.task, self.original)
        return recipes.tuning(epochs, distill, self.seed)

    def is_saved(self, name: str) -> bool:
        """Whether an interrupted run had tuned it, to all appearances."""
        return (self.workshop.folder(name) / "network" / "network.json").exists()
