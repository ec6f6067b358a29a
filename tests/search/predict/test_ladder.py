"""The ladder: each step is what its recipe makes, as fast as was predicted, and nothing is cut that
has gone."""

from __future__ import annotations

import itertools

import pytest
import torch

from penjing.contract import Plan
from penjing.network import Network, capture, carry_out, find_axes
from penjing.passes import Compensate
from penjing.passes.structure.cut_losses import CutLosses
from penjing.search.predict import ladder
from penjing.search.predict.additive import Additive
from penjing.search.predict.cost import Cost
from penjing.search.predict.ladder import Ladder, Step
from penjing.search.predict.learning import at_random
from penjing.search.predict.operators import features
from penjing.search.predict.parts import EVERY, Change, Parts, counts_of
from penjing.search.predict.recovery import Recovery, Tuned
from penjing.search.predict.shape import Shape, rank_axis
from penjing.tasks.data import first
from penjing.tasks.task import Task
from penjing.trials.recipe import Recipe
from tests.reference_networks import self_taught

COST = Cost("latency", {"latency": Additive({}, (0.1, 1e-5, 1e-4))})
NAMES = [
    "plain_cnn", "vgg", "resnet_a", "resnet_b", "mobilenet_v1", "mobilenet_v2", "densenet",
    "vit_by_hand",
]  # fmt: skip


FACTORED = ["plain_cnn", "vgg"]


@pytest.fixture(
    scope="module",
    params=[*((name, EVERY) for name in NAMES), *((name, ("ranks",)) for name in FACTORED)],
    ids=lambda param: f"{param[0]}-{'all' if param[1] == EVERY else 'ranks'}",
)
def begun(request: pytest.FixtureRequest) -> tuple[Task, Network, list[Step]]:
    name, cuts = request.param
    task = self_taught(name)
    network = capture(task.model, task.example)
    found = Ladder(network, task, COST, Parts(network, 4, cuts), 32)
    steps = [step for step, _ in zip(found.steps(lambda *_: None), range(3), strict=False)]
    return task, network, steps


def test_a_step_is_what_its_recipe_makes(begun: tuple[Task, Network, list[Step]]) -> None:
    task, network, steps = begun
    assert steps
    for step in steps:
        made = Recipe(step.shape.passes)(network, task)
        assert COST.of(made) == pytest.approx(step.share, rel=1e-6)
        axes = find_axes(made)
        for name, width in step.shape.widths.items():
            assert name not in axes or axes[name].size == width  # it may be called otherwise now
        for name, rank in step.shape.ranks.items():
            assert axes[rank_axis(name)].size == rank
        solved = Compensate(samples=32)(made, task)
        assert torch.isfinite(solved(task.example)).all()


def test_a_step_can_be_cut_from_the_one_before(begun: tuple[Task, Network, list[Step]]) -> None:
    task, network, steps = begun
    made = network
    for before, after in itertools.pairwise([Shape(), *(step.shape for step in steps)]):
        made = Recipe(after.passes_after(before))(made, task)
        at_once = Recipe(after.passes)(network, task)
        assert {name: values.tolist() for name, values in features(made).items()} == {
            name: values.tolist() for name, values in features(at_once).items()
        }


def test_each_step_costs_less(begun: tuple[Task, Network, list[Step]]) -> None:
    _, network, steps = begun
    times = [COST.of(network), *(step.share for step in steps)]
    for before, after in itertools.pairwise(times):
        assert (
            after <= ladder.SHARE * before * 1.05
        )  # changes that share a layer save less together
    assert [Step.from_json(step.to_json()) for step in steps] == steps


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_changed_that_has_gone(name: str) -> None:
    task = self_taught(name)
    parts = Parts(capture(task.model, task.example), 4)
    shape = Shape()
    while changes := parts.changes(shape):
        change = changes[len(changes) // 2]
        shape = parts.after(shape, change)
        gone = {layer for block in shape.gone for layer in parts.blocks[block].layers}
        factors = {parts.factorable[layer].node for layer in shape.ranks}
        for other in parts.changes(shape):
            if other.kind == "widths":
                assert other.left < shape.widths.get(other.name, other.left + 1)
                assert not parts.layers[other.name] <= gone
                assert not parts.layers[other.name] & factors
            elif other.kind == "ranks":
                assert other.left < shape.ranks.get(other.name, other.left + 1)
                node = parts.factorable[other.name].node
                assert node not in gone
                assert all(node not in parts.layers[axis] for axis in shape.widths)
            else:
                assert not gone & set(parts.blocks[other.name].layers)


@pytest.mark.parametrize("name", NAMES)
def test_every_shape_that_is_drawn_can_be_made(name: str) -> None:
    task = self_taught(name)
    network = capture(task.model, task.example)
    shapes = at_random(Parts(network, 4), 12)
    assert shapes
    for shape in shapes:
        quickly, made = (
            features(Recipe(passes)(network, task))
            for passes in (shape.passes_without_data, shape.passes)
        )
        assert {kind: values.tolist() for kind, values in quickly.items()} == {
            kind: values.tolist() for kind, values in made.items()
        }


def test_changes_of_which_one_can_be_made_are_apart() -> None:
    task = self_taught("resnet_a")
    parts = Parts(capture(task.model, task.example), 4)
    changes = parts.changes(Shape())
    sets = [{changes[place] for place in places} for places in parts.apart(changes)]
    by_part = {(c.kind, c.name): {o for o in changes if (o.kind, o.name) == (c.kind, c.name)}
               for c in changes}  # fmt: skip
    assert all(levels in sets for levels in by_part.values() if len(levels) > 1)
    for change in changes:
        inside = [name for name in parts.keep if change.kind == "blocks"
                  and parts.layers[name] <= set(parts.blocks[change.name].layers)]  # fmt: skip
        for name in inside:
            narrow = Change("widths", name, min(parts.keep[name]))
            assert any(change in members and narrow in members
                       for members in sets)  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_a_narrower_axis_loses_what_its_recipe_loses(name: str) -> None:
    """The loss that is measured in place is that of a network that was cut and solved."""
    task = self_taught(name)
    network = capture(task.model, task.example)
    parts = Parts(network, 4)
    change = next(change for change in parts.changes(Shape()) if change.kind == "widths")
    losses = CutLosses(network, task, [], 32, 10_000)
    added, student = losses.tried(parts.cut(change, Shape()))
    shape = Shape(widths={change.name: change.left})
    cut = Recipe(shape.passes)(network, task)
    assert [p.shape for p in student.parameters()] == [p.shape for p in cut.parameters()]
    whole, plainly = (_loss(task, one) for one in (network, cut))
    solved = _loss(task, carry_out(student, Plan("cut", {}, ())))
    assert added == pytest.approx(solved - whole, abs=1e-4)
    assert solved <= plainly + 0.02


def _loss(task: Task, network: Network) -> float:
    total, count = 0.0, 0
    for inputs, targets in first(task.train, 32):
        with torch.no_grad():
            total += float(task.loss(network(inputs), targets)) * len(targets)
        count += len(targets)
    return total / count


def test_widths_are_multiples() -> None:
    assert counts_of(64, 16) == [48, 32, 16]
    assert counts_of(10, 1) == [8, 5, 3]


def test_a_longer_training_and_a_smaller_loss_lose_less() -> None:
    known = Recovery(25.0, 0.03, 0.1, [Tuned(0.5, 0.2, 1.0, 2.0), Tuned(0.4, 0.4, 2.0, 3.0)])
    losses = [known.predicted(0.6, loss, 2.0) for loss in (0.0, 0.1, 0.2, 0.4)]
    lengths = [known.predicted(0.6, 0.2, epochs) for epochs in (8.0, 4.0, 2.0, 0.0)]
    assert losses == sorted(losses)
    assert lengths == sorted(lengths)
    assert losses[0] == pytest.approx(0.1, abs=0.02)


def test_what_was_measured_is_expected_again() -> None:
    one = Recovery(25.0, seen=[Tuned(0.5, 0.2, 1.0, 2.0)])
    assert one.predicted(0.5, 0.2, 1.0) == pytest.approx(2.0)
    assert one.predicted(0.4, 0.0, 1.0) == pytest.approx(2.0), "it costs less, so it is no better"
    assert one.predicted(0.6, 0.1, 1.0) < 2.0


@pytest.mark.parametrize("unit", [1e-3, 1.0, 40.0])
@pytest.mark.parametrize("scale", [1e-3, 1.0, 40.0])
def test_expectations_follow_the_units_of_loss_and_metric(unit: float, scale: float) -> None:
    """Whoever counts in metres instead of millimetres expects the same of each training."""

    def expected(unit: float, scale: float) -> list[float]:
        """`unit` multiplies the metric, and `scale` the loss."""
        losses, drops = [0.1, 0.2, 0.6], [2.0, 6.0, 14.0]
        known = Recovery.of_untuned(
            [scale * loss for loss in losses], [unit * drop for drop in drops], unit, 0.1 * unit
        )
        first = known.predicted(0.5, scale * 0.3, 2.0)
        known.seen.append(Tuned(0.6, scale * 0.2, 2.0, 1.5 * unit))
        return [first / unit, known.predicted(0.5, scale * 0.3, 2.0) / unit]

    assert expected(unit, scale) == pytest.approx(expected(1.0, 1.0))


def test_a_metric_that_no_cut_lowers_isn_t_expected_to_fall() -> None:
    known = Recovery.of_untuned([0.1, 0.2], [0.0, 0.0], 1.0, floor=0.1)
    assert known.predicted(0.5, 0.2, 0.0) == pytest.approx(0.1)
    known.seen.append(Tuned(0.6, 0.2, 0.0, 2.1))
    assert known.predicted(0.5, 0.4, 0.0) == pytest.approx(2.1)
