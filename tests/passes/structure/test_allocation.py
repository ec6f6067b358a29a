"""Allocation: a cost model gives what is counted after the cut, and budgets are kept, tightly."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Mapping

import pytest
import torch
from torch import nn

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.measure.cost_model import CostModel, cost_in_macs, cost_in_params
from penjing.measure.costs import costs
from penjing.measure.latency_table import LatencyTable, interpolated, require_additive
from penjing.network import Network, capture, carry_out, find_axes
from penjing.passes import PruneChannels
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.channels.widths import Widths
from penjing.targets import find_target, this_machine
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools import latency_table as search
from penjing.trials import recipe as recipes
from tests.reference_networks import NETWORKS, build


def _task(name: str) -> tuple[Task, Network]:
    model, x = build(name)
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=8)
    return Task(model, x[:2], data, data, data), capture(model, x[:2])


def _counted(network: Network) -> tuple[int, int]:
    found = costs(network)
    return sum(one.macs for one in found), sum(one.params for one in found)


def _small() -> Network:
    """Two hidden axes of four indices, named "0" and "2"."""
    torch.manual_seed(0)
    layers = nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)
    return capture(nn.Sequential(*layers), torch.zeros(2, 4))


def _by_hand(first: Mapping[int, float]) -> LatencyTable:
    """`first` gives the time of layer 0 at each width; 1 ms an output in layer 2; 1 ms in 4."""
    rows = [("0", 4, width, time) for width, time in first.items()]
    rows += [("2", i, o, float(o)) for i in range(1, 5) for o in range(1, 5)]
    rows += [("4", i, 2, 1.0) for i in range(1, 5)]
    return LatencyTable("by hand", "none", tuple(rows))


@pytest.mark.parametrize("name", NETWORKS)
def test_a_cost_model_gives_what_is_counted_after_the_cut(name: str) -> None:
    model, x = build(name)
    network = capture(model, x[:2])
    axes = find_axes(network)
    macs, params = cost_in_macs(axes), cost_in_params(axes)
    assert (macs.total({}), params.total({})) == _counted(network)
    draw = random.Random(name)
    for _ in range(3):
        counts = {key: draw.randint(1, one.size) for key, one in axes.free.items()}
        keep = {key: sorted(draw.sample(range(axes[key].size), n)) for key, n in counts.items()}
        cut = carry_out(network, Plan("cut", {}, ({"edit": "shrink", "axes": keep},)))
        assert (macs.total(counts), params.total(counts)) == _counted(cut)
        for key, count in counts.items():
            less = macs.total({}) - macs.total({key: count})
            assert macs.saved(macs.sizes, key, count) == less


@pytest.mark.parametrize("what", ["macs", "params"])
@pytest.mark.parametrize(
    ("name", "multiple"), [("plain_cnn", 1), ("resnet_a", 4), ("densenet", 1), ("vit_fused", 8)]
)
def test_budgets_are_kept_and_tight(name: str, multiple: int, what: str) -> None:
    task, network = _task(name)
    prune = PruneChannels(budget=Budget(what, 0.6), multiple=multiple)  # type: ignore[arg-type]
    plan = prune.plan(network, task)
    cut = prune.apply(network, plan, task)
    which = 0 if what == "macs" else 1
    assert _counted(cut)[which] <= 0.6 * _counted(network)[which]
    axes = find_axes(network)
    cost_model: CostModel = (cost_in_macs if what == "macs" else cost_in_params)(axes)
    counts = {**cost_model.sizes, **{key: len(one) for key, one in plan.edits[0]["axes"].items()}}
    assert cost_model.total(counts) == _counted(cut)[which]
    widths = Widths(0.0, multiple=multiple)
    for key, one in axes.free.items():
        choices = widths.choices(one.size, math.ceil(one.size / 10))
        assert counts[key] in choices
        if counts[key] < one.size:
            larger = choices[choices.index(counts[key]) - 1]
            assert cost_model.total({**counts, key: larger}) > 0.6 * cost_model.total({})


def test_ratios_differ_where_importance_does() -> None:
    task, network = _task("plain_cnn")
    with torch.no_grad():
        network.get_parameter("fc1.weight")[8:] *= 1e-3
        network.get_parameter("fc1.bias")[8:] *= 1e-3
        network.get_parameter("fc2.weight")[:, 8:] *= 1e-3
    plan = PruneChannels(budget=Budget("params", 0.2)).plan(network, task)
    kept = plan.edits[0]["axes"]
    assert kept["fc1"][:8] == list(range(8))
    assert len(kept["fc1"]) / 128 < 0.2 < 0.5 < len(kept.get("conv1", range(16))) / 16


def test_greedy_steps_come_near_the_best_choice() -> None:
    """Against all choices of a network small enough to try them."""
    network = _small()
    axes = find_axes(network)
    torch.manual_seed(1)
    scores = {name: torch.rand(4) for name in ("0", "2")}
    cost_model = cost_in_macs(axes)

    def lost(counts: Mapping[str, int]) -> float:
        shares = {k: one.sort(descending=True).values.cumsum(0) for k, one in scores.items()}
        return -sum(math.log(one[counts[k] - 1] / one[-1]) for k, one in shares.items())

    for share in (0.3, 0.5, 0.7, 0.9):
        pairs = [{"0": a, "2": b} for a in range(1, 5) for b in range(1, 5)]
        fit = [one for one in pairs if cost_model.total(one) <= share * cost_model.total({})]
        found = Budget("macs", share).counts(axes, scores, Widths(0.0))
        assert lost(found) <= 1.2 * min(lost(one) for one in fit)


def test_a_plan_is_the_same_again_and_survives_json() -> None:
    task, network = _task("resnet_a")
    table = LatencyTable("by hand", "none", (("layers.0.conv1", 16, 16, 1.0),))
    for budget in (Budget("macs", 0.5), Budget("latency", 1.0, table)):
        prune = PruneChannels(budget=budget, importance="fisher", samples=8)
        plan = prune.plan(network, task)
        assert plan == prune.plan(network, task)
        assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
        assert recipes.from_json(json.loads(json.dumps(recipes.to_json([prune])))) == (prune,)
        assert recipes.from_plans([plan]) == (prune,)
    as_mapping = PruneChannels(budget={"what": "macs", "share": 0.5})  # type: ignore[arg-type]
    assert as_mapping.budget == Budget("macs", 0.5)


def test_skip_is_respected_and_a_whole_budget_is_an_empty_plan() -> None:
    task, network = _task("plain_cnn")
    plan = PruneChannels(budget=Budget("macs", 0.6), skip=("conv2",)).plan(network, task)
    assert "conv2" not in plan.edits[0]["axes"]
    assert PruneChannels(budget=Budget("macs", 1.0)).plan(network, task).edits == ()


def test_axes_go_below_a_tenth_only_if_they_must() -> None:
    task, network = _task("plain_cnn")
    sizes = {key: one.size for key, one in find_axes(network).free.items()}
    for share, must in ((0.1, False), (0.005, True)):
        plan = PruneChannels(budget=Budget("params", share)).plan(network, task)
        counts = {key: len(one) for key, one in plan.edits[0]["axes"].items()}
        assert any(count < sizes[key] / 10 for key, count in counts.items()) == must


def test_what_cannot_be_reached_is_refused() -> None:
    task, network = _task("plain_cnn")
    prune = PruneChannels(budget=Budget("macs", 0.05), multiple=16, skip=("conv1",))
    with pytest.raises(
        InputError, match=r"5.0% of the macs can't .*: \d.*% remain with all 2 axes"
    ):
        prune.plan(network, task)
    with pytest.raises(InputError, match=r"100.0% remain with all 3 axes that may shrink"):
        PruneChannels(budget=Budget("macs", 0.5), multiple=128).plan(network, task)


def test_bad_options_are_refused() -> None:
    with pytest.raises(InputError, match=r"share must be in \(0, 1\].*found 1.5"):
        Budget("macs", 1.5)
    with pytest.raises(InputError, match=r"share must be in \(0, 1\].*found 0"):
        Budget("macs", 0)
    with pytest.raises(InputError, match=r"must limit one of macs, params, latency; found 'time'"):
        Budget("time", 0.5)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"needs a table.*latency_table"):
        Budget("latency", 0.5)
    with pytest.raises(InputError, match=r"ratio=0.3 and budget both say how much to remove"):
        PruneChannels(0.3, budget=Budget("macs", 0.5))
    with pytest.raises(InputError, match=r"ranking='global' and budget both"):
        PruneChannels(ranking="global", budget=Budget("macs", 0.5))
    with pytest.raises(InputError, match=r"must be a Budget or .*'share': 0.5}; found {'macs'"):
        PruneChannels(budget={"macs": 0.5})  # type: ignore[arg-type]


def test_a_table_by_hand_gives_the_best_choice_by_hand() -> None:
    """13 ms whole. Layer 0 saves nothing at 3, so that it has to be looked beyond.

    8 ms: only layer 0 can save 5 ms; at 2 it costs 2. 6 ms: layer 0 at 2 and layer 2 at 3 lose
    4 log 2 + 4 log 4/3 = 3.9; layer 0 at 1 alone would lose 4 log 4 = 5.5.
    """
    axes = find_axes(_small())
    table = _by_hand({4: 8.0, 3: 8.0, 2: 2.0, 1: 1.0})
    equal = {"0": torch.ones(4), "2": torch.ones(4)}
    for most, best in ((13, (4, 4)), (8, (2, 4)), (6, (2, 3))):
        found = Budget("latency", most / 13, table).counts(axes, equal, Widths(0.0))
        assert (found["0"], found["2"]) == best


def test_times_are_interpolated_between_measured_widths() -> None:
    points = torch.tensor([[i, o, i * o / 16.0] for i in (8, 16) for o in (8, 16)]).double().numpy()
    assert interpolated(points, 8, 16) == 8.0
    assert interpolated(points, 12, 12) == pytest.approx(9.0, rel=1e-3)
    assert interpolated(points, 8, 12) == pytest.approx(6.0, rel=1e-2)
    assert interpolated(points[:1], 3, 3) == 4.0


def test_a_table_that_does_not_add_up_is_refused() -> None:
    require_additive({"it": (1.09, 1.0), "that": (0.91, 1.0)})
    line = r"add up to 1\.2000 ms for that, but 1\.0000 ms were measured \(20% off, at most 10% is"
    with pytest.raises(InputError, match=line):
        require_additive({"it": (1.0, 1.0), "that": (1.2, 1.0)})
    model, x = build("plain_cnn")
    other = find_axes(capture(model, x[:2]))
    with pytest.raises(InputError, match=r"for another network: it has a layer '0'"):
        _by_hand({4: 1.0}).cost_model(other)
    wrong = LatencyTable("by hand", "none", (("0", 4, 4, 1.0), ("0", 4, 1, 1e3)))
    network = _small()
    keep = {"edit": "shrink", "axes": {"0": [0]}}
    cut = carry_out(network, Plan("cut", {}, (keep,)))
    with pytest.raises(InputError, match=r"layers add up to .* ms for the cut, but"):
        search.require_predicted(wrong, network, cut, seconds=0.05)


def test_a_measured_table_has_every_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    """All but its figures, which aren't asserted: another load may make them refuse."""
    asked: dict[str, tuple[float, float]] = {}
    monkeypatch.setattr(search, "require_additive", asked.update)
    monkeypatch.setattr(search, "LEVELS", {1: (1.0, 0.5), 2: (1.0, 0.5)})
    monkeypatch.setattr(search, "HELD_OUT", 1)
    network = _small()
    table = search.latency_table(network, this_machine(), multiple=1, seconds=0.1)
    assert LatencyTable(**json.loads(json.dumps(vars(table)))) == table
    assert {row[0] for row in table.rows} == {"0", "2", "4"}
    assert {row[1:3] for row in table.rows if row[0] == "2"} == {(4, 4), (4, 2), (2, 4), (2, 2)}
    assert list(asked) == ["the original network", "network 1 cut at random"]
    assert all(min(pair) > 0 for pair in asked.values())
    with pytest.raises(InputError, match=r"is measured on this machine.*target raspberry-pi-4"):
        search.latency_table(network, find_target("raspberry-pi-4"))
