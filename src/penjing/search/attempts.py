"""Attempts: each candidate made, measured, judged and recorded, whatever it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from penjing.contract import Measurement
from penjing.errors import InputError, ends_the_run, in_one_line
from penjing.network import Network
from penjing.search import recipes
from penjing.search.elsewhere import Elsewhere, Way
from penjing.search.ledger import Ledger
from penjing.search.recipes import Recipe
from penjing.search.result import Candidate, Result
from penjing.search.schedule import NoTimeError, Schedule
from penjing.search.workshop import UNTUNED, Workshop
from penjing.targets import Target

NOT_TRIED = "not tried"
TOO_LATE = "the time was over before it was measured"


@dataclass
class Attempts:
    """All candidates of a fit, by name.

    Attributes:
        say: called with each stage; it raises KeyboardInterrupt once the run should end.
        ways, made_by, networks: how each candidate is made into a file, by which passes, and of
            which network.
    """

    ledger: Ledger
    workshop: Workshop
    target: Target
    elsewhere: Elsewhere
    schedule: Schedule
    say: Callable[[str], None]
    ways: dict[str, Way] = field(default_factory=dict)
    made_by: dict[str, Recipe] = field(default_factory=dict)
    networks: dict[str, Network] = field(default_factory=dict)

    @property
    def result(self) -> Result:
        """What the ledger holds."""
        return self.ledger.result

    def enter(self, base: str, way: Way, recipe: Recipe) -> str:
        """The name of a candidate that will be made in that way by these passes."""
        name = self.elsewhere.named(base, way)
        self.ways[name], self.made_by[name] = way, recipe
        return name

    def attempt(self, name: str, make: Callable[[], Network], must: bool = False) -> Candidate:
        """Make and measure a candidate that was entered; a failure is recorded, and the run goes
        on.

        Args:
            must: it is measured even if the end of the time is past.
        """
        begin = self.schedule.spent()
        self.say(name)
        self.workshop.check = self.schedule.require_time if not must else lambda: None
        try:
            network = make()
            self._lower(name, network)
            self.say(name)
            measured = self.workshop.measure(name, network)
            self.say(name)
            assert measured.drop is not None
            candidate = self.candidate(name, *self.workshop.promise.judge(measured.drop))
            candidate = self.measured(candidate, measured, self.schedule.spent() - begin)
            self.networks[name] = network
        except NoTimeError:
            candidate = self.candidate(name, NOT_TRIED, TOO_LATE)
        except Exception as error:
            if ends_the_run(error):
                raise
            candidate = self.candidate(name, "failed", in_one_line(error))
        self.ledger.record(candidate)
        return candidate

    def untuned(self, name: str, network: Network) -> Measurement:
        """What the file of a cut is before it has run: one that tuning doesn't replace."""
        way = self.ways[name]
        self.workshop.make(name, network, way.runtime, way.floats, UNTUNED)
        return self.workshop.sizes(name, network)

    def _lower(self, name: str, network: Network) -> None:
        way = self.ways[name]
        for problem in way.runtime.problems(network, self.target, way.floats):
            raise InputError(problem)
        self.workshop.make(name, network, way.runtime, way.floats)

    def candidate(self, name: str, status: str, reason: str = "") -> Candidate:
        """One that was entered, without figures."""
        way, steps = self.ways[name], recipes.to_json(self.made_by[name])
        runtime = way.runtime.name
        return Candidate(name, tuple(steps), status, reason, runtime=runtime, floats=way.floats)

    def measured(self, one: Candidate, figures: Measurement, seconds: float = 0.0) -> Candidate:
        """The candidate with the figures of its file."""
        path, sha256 = self.workshop.proof(one.name)
        return replace(one, measurement=figures, artifact=path, sha256=sha256, seconds=seconds)
