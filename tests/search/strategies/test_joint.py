"""The joint search, played on real small networks whose files are never made."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from penjing.contract import Json
from penjing.measure.costs import totals
from penjing.network import Network, capture
from penjing.passes import PruneChannels, Quantize
from penjing.search.predict.additive import Features
from penjing.search.predict.known import Known
from penjing.search.predict.ladder import Step
from penjing.search.predict.learning import LEAST_FILES
from penjing.search.predict.operators import features
from penjing.search.predict.parts import Cuts
from penjing.search.predict.shape import Shape
from penjing.search.schedule import Schedule
from penjing.search.strategies import Joint, find_strategy
from penjing.search.strategies.descent import Descent
from penjing.search.strategies.survey import Survey
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Pace, Probed, Watch
from penjing.trials.recipe import Recipe, from_json
from penjing.trials.result import Result
from tests.reference_networks import self_taught
from tests.search.strategies.playing import FakeEvaluator, played

JOINT = find_strategy("joint")


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ladders that end at half of the time, by losses on few samples."""
    monkeypatch.setattr("penjing.search.predict.ladder.LEAST", 0.5)
    monkeypatch.setattr("penjing.search.strategies.survey.SAMPLES", 64)


LEARNT: list[str] = []


@pytest.fixture
def learnt_before(monkeypatch: pytest.MonkeyPatch) -> None:
    """What parts of `Parted`'s network cost and lose, which is the same in all tests that use this,
    is learnt in the first one only."""
    learn = Survey._learnt

    def once(self: Survey) -> dict[str, Json]:
        if not LEARNT:
            LEARNT.append(json.dumps(learn(self)))
        known: dict[str, Json] = json.loads(LEARNT[0])
        return known

    monkeypatch.setattr(Survey, "_learnt", once)


def _sum(network: Features) -> float:
    return sum(float(v[0] + 1e-4 * v[1] + 1e-3 * v[2]) for v in network.values()) / 1e3


@dataclass
class Parted(FakeEvaluator):
    """Its times are a sum over the operators of the network that a recipe really makes."""

    task: Task = field(default_factory=lambda: self_taught("resnet_a"))
    time_of: Callable[[Features], float] = _sum
    probed: int = 0

    def __post_init__(self) -> None:
        self.network = capture(self.task.model, self.task.example)

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        self.probed += len(candidates)
        whole, params = self.time_of(features(self.network)), totals(self.network)[1]
        files = []
        for candidate in candidates:
            network = self.made(_shape(candidate.recipe), watch)
            ternary = any(step["method"] == "Ternarize" for step in candidate.recipe)
            shares = {"size": (2.0 if ternary else 0.25) * totals(network)[1] / params}
            if timed:
                shares["latency"] = 0.5 * self.time_of(features(network)) / whole
            files.append(Probed(shares))
        return files

    def made(self, recipe: Sequence[Json], watch: Watch) -> Network:
        return Recipe(from_json(list(recipe)))(self.network, self.task)

    @property
    def blind(self) -> Task:
        return self.task


def _shape(recipe: Sequence[Json]) -> list[Json]:
    """The part of a recipe that comes before rounding."""
    return [
        step
        for step in recipe
        if step["method"] not in ("Quantize", "MixedPrecision", "Gptq", "Ternarize")
    ]


def _share(title: str) -> float:
    """What a file takes of the original's time, by what it is called."""
    if title.startswith("cut to"):
        return float(title.split()[2]) / 100
    return 0.5 if title.startswith("int8") else 1.0


@pytest.mark.parametrize("name", ["resnet_a", "mobilenet_v2", "vit_by_hand", "plain_cnn"])
def test_it_ends_with_the_fastest_that_keeps_the_budget(tmp_path: Path, name: str) -> None:
    evaluator = Parted(
        _share, lambda title: 2.0 if _share(title) < 0.3 else 0.1, task=self_taught(name)
    )
    with played(tmp_path, JOINT, evaluator) as run:
        cut = [title for title in evaluator.asked if title.startswith("cut to")]
        kept = [title for title in cut if _share(title) >= 0.3]
        assert cut
        assert run.result.finished
        assert run.result.chosen == (min(kept, key=_share) if kept else "int8")
        said = [note for note in run.result.notes if "was expected to lose" in note]
        assert len(said) == len([title for title in cut if "with its rounding" not in title])
        predicted = [run.result.trial(made.key) for made in run.result.predictions]
        assert [trial.title for trial in predicted if trial] == [
            title for title in cut if "with its rounding" not in title
        ]


def test_what_was_learnt_and_tuned_is_not_repeated(tmp_path: Path) -> None:
    first, second = (Parted(_share) for _ in range(2))
    with played(tmp_path, JOINT, first) as run:
        rows = [trial.key for trial in run.result.trials]
        predicted = run.result.predictions
        assert predicted
        assert len({made.key for made in predicted}) == len(predicted)
    with played(tmp_path, JOINT, second) as again:
        assert [trial.key for trial in again.result.trials] == rows
        assert again.result.predictions == predicted
        assert Result.load(tmp_path).predictions == predicted
    assert first.probed
    assert not second.probed
    assert not second.asked


@pytest.mark.parametrize(
    ("kind", "method"), [("blocks", "Drop"), ("widths", "PruneChannels"), ("ranks", "Factorize")]
)
def test_one_kind_of_cut_alone_can_be_searched(tmp_path: Path, kind: Cuts, method: str) -> None:
    evaluator = Parted(_share, task=self_taught("vgg" if kind == "ranks" else "resnet_a"))
    with played(tmp_path, Joint((kind,)), evaluator) as run:
        cut = [trial for trial in run.result.trials if trial.title.startswith("cut to")]
        first = {step["method"] for trial in cut[:1] for step in trial.candidate.recipe}
    assert first & {"Drop", "PruneChannels", "Factorize"} == {method}


def test_what_operators_cost_is_known_to_the_next_fit(tmp_path: Path) -> None:
    """A second fit of such a network only checks it, and finds the same networks."""
    cache = tmp_path / "cache"
    first, second, other = (Parted(_share, task=self_taught("plain_cnn")) for _ in range(3))
    for name, evaluator, goal in [("1", first, "latency"), ("2", second, "latency"),
                                  ("3", other, "latency=2,size=1")]:  # fmt: skip
        (tmp_path / name).mkdir()
        with played(tmp_path / name, JOINT, evaluator, goal, known=Known(cache)) as run:
            notes = [note for note in run.result.notes if "an earlier fit" in note]
            assert bool(notes) == (name == "2")
    assert second.asked == first.asked
    assert first.probed - second.probed == LEAST_FILES
    assert other.probed > second.probed


def test_times_that_are_no_sum_leave_it_to_the_usual_widths(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    evaluator = Parted(_share, time_of=lambda _: float(draw.uniform(1, 10)))
    with played(tmp_path, JOINT, evaluator) as run:
        titles = [trial.title for trial in run.result.trials]
        assert any("times of whole files don't add up" in note for note in run.result.notes)
    assert any(title.startswith("prune") for title in titles)


@pytest.mark.parametrize("goal", ["size", "latency=2,size=1"])
def test_other_goals_are_searched_together_too(tmp_path: Path, goal: str) -> None:
    evaluator = Parted(_share)
    with played(tmp_path, JOINT, evaluator, goal) as run:
        aim, baseline = run.result.aim, run.result.baseline
        cut = [trial for trial in run.result.trials if trial.title.startswith("cut to")]
        assert cut
        assert evaluator.probed
        best = aim.share(run.result.answer, baseline)
        assert best == min(aim.share(trial, baseline) for trial in run.result.trials)
        assert any("predicted with an error" in note for note in run.result.notes)


@dataclass
class Slow(Parted):
    """It takes its time for each file, by a clock of its own."""

    seconds: float = 10.0
    now: float = 0.0

    def probe(
        self, candidates: Sequence[Candidate], watch: Watch, timed: bool = True
    ) -> list[Probed]:
        files: list[Probed] = []
        for number, candidate in enumerate(candidates):
            watch.say("a file", number / len(candidates))
            self.now += self.seconds
            files += super().probe([candidate], watch, timed)
        return files


@pytest.mark.parametrize(("minutes", "cut"), [(5, False), (500, True)])
def test_it_sees_early_that_there_is_too_little_time(
    tmp_path: Path, minutes: int, cut: bool
) -> None:
    evaluator = Slow(_share)
    schedule = Schedule(lambda: evaluator.now, 60.0 * minutes)
    with played(tmp_path, JOINT, evaluator, schedule=schedule) as run:
        late = [note for note in run.result.notes if "because there is too little time" in note]
        began = "cut to" if cut else "prune"
        assert any(title.startswith(began) for title in evaluator.asked)
        assert cut != bool(late)
        if not cut:
            assert evaluator.now <= 0.1 * schedule.seconds


def test_memory_is_left_to_the_usual_widths(tmp_path: Path) -> None:
    evaluator = Parted(_share)
    with played(tmp_path, JOINT, evaluator, "memory") as run:
        assert any("because memory is no sum" in note for note in run.result.notes)
    assert not evaluator.probed


@pytest.mark.usefixtures("learnt_before")
@pytest.mark.parametrize("floor", [0.1, 0.5])
def test_training_with_the_rounding_is_for_where_that_costs_much(
    tmp_path: Path, floor: float
) -> None:
    evaluator = Parted(_share, lambda title: 1.5 if title.startswith("cut") else floor)
    with played(tmp_path, JOINT, evaluator):
        rounded = [title for title in evaluator.asked if "trained with its rounding" in title]
        assert bool(rounded) == (floor > 0.25)


@pytest.mark.usefixtures("learnt_before")
def test_each_network_is_cut_from_the_one_that_was_tuned_before(tmp_path: Path) -> None:
    with played(tmp_path, JOINT, Parted(_share)) as run:
        cut = [trial for trial in run.result.trials if trial.title.startswith("cut to")]
        ratios = [trial.latency.ratio for trial in cut if trial.latency]
        assert len(cut) > 1
        assert ratios == sorted(ratios, reverse=True)
        for before, after in itertools.pairwise(cut):
            assert (
                after.candidate.recipe[: len(before.candidate.recipe) - 1]
                == (before.candidate.recipe[:-1])
            )


@pytest.mark.usefixtures("learnt_before")
def test_what_fails_twice_makes_room_for_a_milder_cut(tmp_path: Path) -> None:
    """Training the same network again and again wins nothing back."""
    kept: list[float] = []

    def lost(title: str) -> float:
        """Only the first network that is tuned keeps the budget."""
        if not title.startswith("cut to"):
            return 0.0
        kept.append(_share(title))
        return 0.1 if _share(title) == kept[0] else 1.02

    evaluator = Parted(_share, lost)
    schedule = Schedule(lambda: 0.0, 60_000.0)
    with played(tmp_path, JOINT, evaluator, schedule=schedule) as run:
        cut = [_share(title) for title in evaluator.asked if title.startswith("cut to")]
        failed = [share for share in cut if share != cut[0]]
        assert len(cut) == 4
        assert failed[0] == failed[1] < failed[2] < cut[0]
        assert _share(run.result.chosen) == cut[0]


def test_no_two_networks_are_called_the_same() -> None:
    """Files are told apart by their titles where they are timed side by side."""

    class Alike(Survey):
        def share_of(self, step: Step) -> float:
            return 0.01234

    shapes = [Shape(), Shape(("a",)), Shape(("a", "b"), {"c": 4})]
    steps = [Step(shape, 0.1, 0.1, 0.1, 0.1, 1.0) for shape in shapes]
    descent = Descent(None, Alike(None, None, steps=steps), Pace(0.1, 10))  # type: ignore[arg-type]
    titles = [descent._title(step) for step in (*steps, *steps)]
    assert titles[0] == "cut to 1.23 %"
    assert len(set(titles)) == len(steps)
    assert titles[:3] == titles[3:]


@pytest.mark.usefixtures("learnt_before")
@pytest.mark.parametrize("strategy", ["quick", "joint"])
def test_recipes_of_ones_own_are_tried_before_anything_is_cut(
    tmp_path: Path, strategy: str
) -> None:
    evaluator = Parted(_share)
    recipes = {
        "mine": (PruneChannels(0.5), Quantize(ranges="percentile")),
        "float": (PruneChannels(0.25),),
    }
    with played(tmp_path, find_strategy(strategy), evaluator, recipes=recipes) as run:
        asked = evaluator.asked
        cut = [title for title in asked if title.startswith(("cut", "prune"))]
        own = [title for title in asked if title.startswith("recipe ")]
        assert own == ["recipe mine", "recipe float"]
        assert cut
        assert asked.index("recipe float") < asked.index(cut[0])
        assert run.result.finished
