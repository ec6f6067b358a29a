"""Measured times of factors and fused layers, and the passes that take only what is faster."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.errors import InputError
from penjing.measure.latency_table import FUSED, LatencyTable, require_additive
from penjing.network import Network, capture
from penjing.network.graph.layers import Layer, layers_of
from penjing.passes import Factorize, Fuse, PruneChannels, Quantize
from penjing.passes.structure.channels.budget import Budget
from penjing.targets import find_target, this_machine
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tools import alternatives
from penjing.tools.layer_times import Timed
from penjing.trials import recipe as recipes

LAYERS = ("first", "1x1", "head")


def _task() -> tuple[Task, Network]:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("first", nn.Conv2d(8, 16, 3, padding=1))
    model.add_module("relu", nn.ReLU())
    model.add_module("1x1", nn.Conv2d(16, 16, 1))
    model.add_module("pool", nn.AdaptiveAvgPool2d(1))
    model.add_module("flat", nn.Flatten())
    model.add_module("head", nn.Linear(16, 10))
    data = Arrays(torch.randn(16, 8, 6, 6), torch.arange(16) % 10, batch_size=8)
    return Task(model.eval(), data.x[:2], data, data), capture(model.eval(), data.x[:2])


def _table(factors: Sequence[Any], whole: float = 1.0) -> LatencyTable:
    sizes = {"first": (8, 16), "1x1": (16, 16), "head": (16, 10)}
    rows = tuple((layer, *sizes[layer], whole) for layer in LAYERS)
    return LatencyTable("onnxruntime", "by hand", rows, tuple(factors))


def _taken(step: Factorize | Fuse) -> set[str]:
    task, network = _task()
    edits = step.plan(network, task).edits
    names = {node.name: str(node.meta.get("layer")) for node in network.graph.nodes}
    return {names[name] for edit in edits for name in edit["layers"]}


def test_times_lie_between_those_of_the_measured_ranks() -> None:
    table = _table(
        [("first", "channel", (4,), 1.0), ("first", "channel", (8,), 3.0),
         ("first", "channel", (8,), 2.0), ("first", "tucker", (2, 4), 0.5),
         ("head", FUSED, (2,), 7)]
    )  # fmt: skip
    assert table.in_place_of("first", "channel", [4]) == 1.0
    assert table.in_place_of("first", "channel", [8]) == 2.5
    assert table.in_place_of("first", "channel", [6]) == 1.75
    assert table.in_place_of("first", "tucker", [2, 4]) == 0.5
    assert table.in_place_of("first", "tucker", [2]) is None
    assert table.in_place_of("head", FUSED, [2]) == 7
    assert table.in_place_of("head", FUSED, [3]) is None
    assert table.in_place_of("first", "spatial", [4]) is None
    assert table.in_place_of("head", "matrices", [4]) is None
    assert LatencyTable.read(json.loads(json.dumps(asdict(table)))) == table


def test_a_layer_is_taken_only_where_its_factors_are_faster() -> None:
    faster = ("first", "channel", (1,), 0.1), ("first", "channel", (16,), 0.9)
    slower = ("1x1", "matrices", (1,), 1.1), ("1x1", "matrices", (16,), 1.2)
    table = _table([*faster, *slower])
    assert _taken(Factorize(0.5, table=table)) == {"first"}
    task, network = _task()
    plan = Factorize(0.5, table=table).plan(network, task)
    whys = {left.what: left.why for left in plan.left_alone}
    assert (
        whys["1x1"] == whys["head"] == "no factors that keep enough are faster and have fewer MACs"
    )
    assert "3 to 2." in plan.summary
    assert "ms by the latency table" in plan.summary
    macs = Factorize(budget=Budget("macs", 0.9), table=table).plan(network, task)
    whys = {left.what: left.why for left in macs.left_alone}
    assert whys["1x1"] == "no factors have fewer MACs and are faster"
    assert _taken(Factorize(0.5, table=_table([("first", "channel", (8,), 1.5)]))) == set()


def test_a_budget_of_latency_is_kept() -> None:
    task, network = _task()
    layers = {"first": "channel", "1x1": "matrices", "head": "matrices"}
    table = _table(
        [(layer, scheme, (rank,), 0.1 + 0.1 * rank)
         for layer, scheme in layers.items() for rank in (1, 16)]
    )  # fmt: skip
    names = {node.name: str(node.meta.get("layer")) for node in network.graph.nodes}
    for share in (0.9, 0.6, 0.3):
        step = Factorize(budget=Budget("latency", share, table))
        ms = 3.0
        for name, how in step.plan(network, task).edits[0]["layers"].items():
            ms += (table.in_place_of(names[name], how["scheme"], how["ranks"]) or 9) - 1.0
        assert ms <= 3.0 * share + 1e-9
        assert recipes.from_json(json.loads(json.dumps(recipes.to_json([step])))) == (step,)
    with pytest.raises(InputError, match=r"of 10.0% of the latency can't be reached: 20.0%"):
        Factorize(budget=Budget("latency", 0.1, table)).plan(network, task)


def test_a_part_is_fused_only_where_that_is_faster() -> None:
    model = nn.Sequential(nn.Linear(16, 2, bias=False), nn.Linear(2, 16), nn.ReLU())
    data = Arrays(torch.randn(8, 16), torch.arange(8) % 10)
    task, network = Task(model, data.x[:2], data, data), capture(model, data.x[:2])
    rows = (("0", 16, 2, 1.0), ("1", 2, 16, 1.0))
    for ms, count in ((1.9, 1), (1.99, 0), (2.1, 0)):
        table = LatencyTable("onnxruntime", "by hand", rows, (("1", FUSED, (2,), ms),))
        plan = Fuse(table=table).plan(network, task)
        assert len(plan.edits) == count  # it has four times the MACs, whatever the time
        if not count:
            assert plan.left_alone[0].why == f"fused, it would take {ms} of 2 ms"
    plan = Fuse(table=LatencyTable("onnxruntime", "by hand", rows)).plan(network, task)
    assert plan.left_alone[0].why == "the latency table has no time of it as one layer"


def test_options_that_say_it_twice_are_refused() -> None:
    table = _table([("first", "channel", (8,), 0.5)])
    budget = Budget("latency", 0.5, table)
    for options, words in (
        ({"ranks": {"first": 2}, "table": table}, "ranks leave nothing to choose"),
        ({"budget": budget, "table": table}, "the budget has its own"),
        ({"budget": budget, "table": _table([])}, "the budget has its own"),
        ({"table": _table([])}, "has no times of factors; make one with .*alternatives_table"),
        ({"table": _table([("head", FUSED, (2,), 1)])}, "has no times of factors"),
    ):
        with pytest.raises(InputError, match=words):
            Factorize(**options)
    with pytest.raises(InputError, match="names and table both say what to fuse"):
        Fuse(names=("first",), table=table)
    with pytest.raises(InputError, match="zeros move to the front; give front or table"):
        Fuse(front=True, table=table)
    task, network = _task()
    with pytest.raises(InputError, match=r"at one width; for widths, .*latency_table"):
        PruneChannels(budget=budget).plan(network, task)


def test_a_table_for_another_network_is_refused() -> None:
    task, network = _task()
    table = _table([("first", "channel", (8,), 0.5)])
    narrow = PruneChannels(0.5)(network, task)
    factors = Factorize(ranks={"first": 4}, basis="weights")(network, task)
    other = Task(nn.Linear(3, 10), torch.ones(2, 3), task.train, task.test)
    for changed in (narrow, factors, capture(other.model, other.example)):
        for step in (Factorize(table=table), Fuse(table=table)):
            with pytest.raises(InputError, match=r"is for another network: its layer '.*' has"):
                step.plan(changed, task)


@pytest.mark.parametrize("rounded", [False, True])
def test_a_measured_table_has_every_alternative(
    rounded: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All but its figures, which aren't asserted: another load may make them refuse."""
    asked: dict[str, tuple[float, float]] = {}
    monkeypatch.setattr(alternatives, "require_additive", asked.update)
    monkeypatch.setattr(alternatives, "SHARES", (0.25, 0.5))
    monkeypatch.setattr(alternatives, "PAIRS", ((0.5, 0.5),))
    monkeypatch.setattr(alternatives, "HELD_OUT", 1)
    task, network = _task()
    finish = (lambda network: Quantize(samples=8)(network, task)) if rounded else None
    table = alternatives.alternatives_table(
        network, this_machine(), multiple=1, finish=finish, seconds=0.1
    )
    assert LatencyTable.read(json.loads(json.dumps(asdict(table)))) == table
    assert {row[0] for row in table.rows} == set(LAYERS)
    assert {(layer, scheme) for layer, scheme, _, _ in table.alternatives} == {
        ("first", "channel"), ("first", "spatial"), ("first", "tucker"),
        ("1x1", "matrices"), ("head", "matrices"),
    }  # fmt: skip
    assert list(asked) == ["the original network", "network 1 with factors at random"]
    assert all(min(pair) > 0 for pair in asked.values())
    if not rounded:
        skipped = alternatives.alternatives_table(
            network, this_machine(), ("1x1", "head"), seconds=0.1
        )
        assert {layer for layer, _, _, _ in skipped.alternatives} == {"first"}


def _counted(
    networks: Iterable[Network], finish: Any, seconds: float, scale: float = 1e-3
) -> list[Timed]:
    """Files in which a node takes as long as its weight has numbers."""
    files = []
    for network in networks:
        nodes = [
            (str(node.meta["layer"]), network.tensor(Layer(node).weight_name).numel() * scale)
            for node in layers_of(network)
        ]
        files.append(Timed(nodes, 1e3 * sum(seconds for _, seconds in nodes)))
    return files


def test_each_time_is_of_the_layer_that_it_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """With made-up times, every figure of the table is known."""
    monkeypatch.setattr(alternatives, "timed", _counted)
    model = nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4, bias=False), nn.Linear(4, 9))
    x = torch.randn(4, 8)
    network = capture(model, x)
    again = Factorize(ranks={"0": 2}, basis="weights")(network, _of(model, x))
    for given, whole in (
        (network, {"0": 48, "2": 24, "3": 36}),
        (again, {"0.reduce": 16, "0": 12, "2": 24, "3": 36}),
    ):
        table = alternatives.alternatives_table(given, this_machine(), multiple=1)
        assert table.whole() == pytest.approx(whole)
        sizes = {layer: row[1:3] for row in table.rows for layer in [row[0]]}
        fused = [row for row in table.alternatives if row[1] == FUSED]
        assert fused[-1][:3] == ("3", FUSED, (2,))
        assert fused[-1][3] == pytest.approx(54)
        assert len(fused) == (1 if given is network else 2)
        for layer, scheme, ranks, ms in table.alternatives:
            if scheme == "matrices":
                assert ms == pytest.approx(ranks[0] * sum(sizes[layer]))
    even = alternatives.alternatives_table(network, this_machine(), multiple=2)
    assert all(ranks[0] % 2 == 0 for _, scheme, ranks, _ in even.alternatives if scheme != FUSED)
    skipped = alternatives.alternatives_table(network, this_machine(), skip=("2",))
    assert {row[:2] for row in skipped.alternatives} == {("0", "matrices"), ("3", "matrices")}


def test_layers_that_share_a_name_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = nn.Linear(8, 8)
            self.pair = nn.ParameterDict({name: torch.randn(8, 8) for name in "ab"})
            self.w = nn.Parameter(torch.randn(10, 8))

        def forward(self, x: Tensor) -> Tensor:
            x = torch.relu(functional.linear(torch.relu(self.own(x)), self.pair["a"]))
            return functional.linear(torch.relu(functional.linear(x, self.pair["b"])), self.w)

    monkeypatch.setattr(alternatives, "timed", _counted)
    model, x = Two(), torch.randn(4, 8)
    network = capture(model, x)
    table = alternatives.alternatives_table(network, this_machine(), multiple=1)
    assert "own" in {row[0] for row in table.alternatives}
    assert "pair" not in {row[0] for row in table.alternatives}
    whole = sum(table.whole().values())
    step = Factorize(budget=Budget("latency", 0.95, table), basis="weights")
    plan = step.plan(network, _of(model, x))
    after = sum(weight.numel() for weight in _weights(step(network, _of(model, x))))
    assert after <= 0.95 * whole + 1e-6, plan


def _of(model: nn.Module, x: Tensor) -> Task:
    data = Arrays(x, torch.arange(len(x)) % 4)
    return Task(model, x[:2], data, data)


def _weights(network: Network) -> list[Tensor]:
    return [network.tensor(Layer(node).weight_name) for node in layers_of(network)]


def test_what_can_not_be_measured_is_refused() -> None:
    _, network = _task()
    with pytest.raises(InputError, match=r"'heda', but the network has no such layer; .* first"):
        alternatives.alternatives_table(network, this_machine(), ("heda",))
    with pytest.raises(InputError, match=r"is measured on this machine.*target raspberry-pi-4"):
        alternatives.alternatives_table(network, find_target("raspberry-pi-4"))
    with pytest.raises(InputError, match="no layer of the network can be factorized or fused"):
        alternatives.alternatives_table(network, this_machine(), skip=LAYERS)
    with pytest.raises(InputError, match="for network 1 with factors at random, but"):
        require_additive({"network 1 with factors at random": (2.0, 1.0)})
