"""Networks: what recipes make of the original, each from the longest part that was made before."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from penjing.contract import Json
from penjing.errors import InputError, UnsafeError
from penjing.network import Network, restore, save
from penjing.passes import Tune
from penjing.tasks.task import Task
from penjing.trials.candidate import hash_of
from penjing.trials.contract import Pace, Say
from penjing.trials.evaluation.instruments import Clock
from penjing.trials.recipe import from_json
from penjing.tune.options import TuneOptions
from penjing.tune.train import step_seconds, steps_of_an_epoch

NETWORKS = "networks"
MOST_IN_MEMORY = 4

Note = Callable[[str], None]
"""Called with a line for people."""


@dataclass(frozen=True)
class Part:
    """The progress of one of several passes, as a share of all.

    Attributes:
        number: how many passes came before.
        of: how many there are.
    """

    say: Say
    number: int
    of: int

    def __call__(self, line: str, share: float) -> None:
        """Show what the pass does; `share` is how much of it is done."""
        self.say(line, (self.number + share) / self.of)


@dataclass
class Networks:
    """The networks of one fit, by the hash of the recipe that made them.

    Passes see no validation data, because candidates are judged on it: a pass would choose the
    epoch that was lucky there. Trained networks are saved, so that no other run trains them again;
    the last few networks are held in memory.

    Attributes:
        folder: where `networks/` lies.
        clock: by which a training's time is counted.
        damaged: called with a line if a saved network is damaged, and so is made again.
    """

    task: Task
    original: Network
    folder: Path
    clock: Clock = time.monotonic
    damaged: Note = lambda _: None
    recent: OrderedDict[str, Network] = field(default_factory=OrderedDict)

    @property
    def blind(self) -> Task:
        """The task without the data on which candidates are judged."""
        return replace(self.task, validation=None)

    def place(self, recipe: Sequence[Json]) -> Path:
        """The folder of the network that the recipe makes, if it is one that is saved."""
        return self.folder / NETWORKS / hash_of(list(recipe))

    def is_saved(self, recipe: Sequence[Json]) -> bool:
        """Whether the network that the recipe makes seems to lie on disk."""
        return (self.place(recipe) / "network.json").exists()

    def made(
        self, recipe: Sequence[Json], say: Say = lambda *_: None, limit: float | None = None
    ) -> Network:
        """The network that the recipe makes; only the passes behind the longest part that was made
        before are applied.

        Args:
            say: called with what the current pass does, and how much of all passes is done.
            limit: seconds after which a training ends, should its steps become slower on the way.

        Raises:
            PenjingError: a pass can't be applied.
        """
        steps = list(recipe)
        known, network = self._longest(steps)
        for count, step in enumerate(from_json(steps[known:]), start=known + 1):
            part = Part(say, count - known - 1, len(steps) - known)
            if isinstance(step, Tune):
                network = self._trained(step, network, part, limit)
                save(network, self.place(steps[:count]))
            else:
                network = step(network, self.blind, part)
            self._hold(steps[:count], network)
        return network

    def changes(self, recipe: Sequence[Json], say: Say = lambda *_: None) -> bool:
        """Whether the recipe's last pass has anything to do."""
        *before, last = recipe
        (step,) = from_json([last])
        return bool(step.plan(self.made(before, say), self.blind).edits)

    def epochs_trained(self, recipe: Sequence[Json], say: Say = lambda *_: None) -> float:
        """For how many epochs the recipe's last pass trained, see `Tune.apply`."""
        options: dict[str, Json] = self.made(recipe, say).history[-1].options["options"]
        return float(options["epochs"])

    def pace(
        self, recipe: Sequence[Json], training: TuneOptions, say: Say = lambda *_: None
    ) -> Pace:
        """How fast the network that the recipe makes trains, measured on a few real steps.

        Raises:
            PenjingError: it can't be trained.
        """
        network, task = self.made(recipe, say), self.blind
        seconds = step_seconds(network, task, training, self.clock)
        return Pace(seconds, steps_of_an_epoch(task, training))

    def _trained(self, step: Tune, network: Network, part: Part, limit: float | None) -> Network:
        plan = step.plan(network, self.blind)
        return step.apply(network, plan, self.blind, part, self.clock, limit)

    def _longest(self, steps: list[Json]) -> tuple[int, Network]:
        for count in range(len(steps), 0, -1):
            network = self.recent.get(hash_of(steps[:count])) or self._restored(steps[:count])
            if network is not None:
                self._hold(steps[:count], network)
                return count, network
        return 0, self.original

    def _restored(self, steps: list[Json]) -> Network | None:
        if not self.is_saved(steps):
            return None
        try:
            return restore(self.place(steps), self.task.model, self.task.example)
        except (InputError, UnsafeError) as error:
            self.damaged(
                "a network is trained again, because the one that an earlier run saved is damaged: "
                f"{error}"
            )
            return None

    def _hold(self, steps: list[Json], network: Network) -> None:
        self.recent[hash_of(steps)] = network
        self.recent.move_to_end(hash_of(steps))
        while len(self.recent) > MOST_IN_MEMORY:
            self.recent.popitem(last=False)
