"""Blocks that are cut out, and what takes their place."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.measure.costs import costs
from penjing.measure.latency_table import LatencyTable
from penjing.network import Network, capture, carry_out, find_axes, restore, save
from penjing.network.analysis.blocks import find_blocks
from penjing.network.graph.layers import layers_of
from penjing.passes import Compensate, Drop, PruneChannels, Quantize, Tune
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.cut_losses import CutLosses
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions
from tests.reference_networks import build

NAMES = ["resnet_a", "resnet_b", "mobilenet_v1", "mobilenet_v2", "vit_by_hand", "vit_fused"]


def _task(name: str) -> tuple[Network, Task]:
    model, x = build(name)
    torch.manual_seed(0)
    inputs = torch.randn(48, *x.shape[1:])
    with torch.no_grad():
        data = Arrays(inputs, model(inputs).argmax(1), batch_size=16)
    task = Task(model, x[:2], data, data)
    return capture(model, task.example), task


def _error(left: Network, network: Network, x: torch.Tensor) -> float:
    with torch.no_grad():
        return float((left(x) - network(x)).square().mean())


def _x(task: Task) -> torch.Tensor:
    assert isinstance(task.train, Arrays)
    return task.train.x[:8]


def _macs(network: Network) -> int:
    return sum(cost.macs for cost in costs(network))


def _silence(network: Network, block: str) -> None:
    """Set the last scale of a residual block to zero."""
    last = [name for name in network.state_dict() if name.startswith(f"{block}.")]
    with torch.no_grad():
        for name in last:
            if name.rsplit(".", 2)[-2] in ("bn2", "proj", "2") and "running" not in name:
                network.tensor(name).zero_()


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("resnet_a", "layers.1"),
        ("resnet_b", "layers.3"),
        ("vit_by_hand", "blocks.0.attention"),
        ("vit_fused", "blocks.1.mlp"),
    ],
)
def test_dropping_a_block_whose_last_scale_is_zero_changes_nothing(name: str, block: str) -> None:
    network, task = _task(name)
    _silence(network, block)
    x = _x(task)
    dropped = Drop(names=(block,))(network, task)
    torch.testing.assert_close(dropped(x), network(x), rtol=1e-5, atol=1e-5)
    assert _macs(dropped) < _macs(network)


def test_the_silent_block_is_the_one_that_goes_first() -> None:
    network, task = _task("resnet_a")
    _silence(network, "layers.3")
    plan = Drop(1, importance="cosine", samples=32).plan(network, task)
    assert plan.summary == "removes 1 of 6 blocks: layers.3"
    assert plan.notes[0].startswith("layers.3: 1 - cos 0.000; saves ")
    blocks = [block for block in find_blocks(network) if block.alike]
    losses = CutLosses(network, task, blocks, samples=32, rows=1000)
    silent = next(block for block in blocks if block.name == "layers.3")
    assert abs(losses.added(silent, by_map=False)) < 1e-3
    assert [block.name for block in blocks if (losses.unlikeness(block) or 0) < 0.01] == [
        "layers.3"
    ]


@pytest.mark.parametrize("name", ["resnet_b", "mobilenet_v2", "vit_fused"])
def test_a_block_of_each_kind_can_go_alone_and_what_is_left_runs(name: str, tmp_path: Path) -> None:
    network, task = _task(name)
    x = _x(task)
    for block in {(block.kind, block.alike): block for block in find_blocks(network)}.values():
        drop = Drop(names=(block.name,), replace="nothing" if block.alike else "linear", samples=8)
        plan = drop.plan(network, task)
        left = drop.apply(network, plan, task)
        assert left(x).shape == network(x).shape
        assert torch.isfinite(left(x)).all()
    torch.export.export(left, (x,))
    save(left, tmp_path / "saved")
    again = restore(tmp_path / "saved", task.model, task.example)
    assert torch.equal(again(x), left(x))


@pytest.mark.parametrize("name", NAMES)
def test_the_plan_says_how_many_macs_and_parameters_are_left(name: str) -> None:
    network, task = _task(name)
    (first, *_) = [block for block in find_blocks(network) if block.kind != "stage"] or find_blocks(
        network
    )
    drop = Drop(names=(first.name,), replace="nothing" if first.alike else "linear", samples=8)
    plan = drop.plan(network, task)
    if plan.edits and not any(edit.get("maps") for edit in plan.edits):
        left = drop.apply(network, plan, task)
        share = _macs(left) / _macs(network)
        params = [sum(p.numel() for p in part.parameters()) for part in (left, network)]
        assert plan.notes[-1].startswith(f"{share:.1%} of the MACs")
        assert f"{params[0] / params[1]:.1%} of the parameters" in plan.notes[-1]


def test_blocks_go_until_the_budget_is_reached() -> None:
    network, task = _task("resnet_a")
    dropped = Drop(budget=Budget("macs", 0.6), samples=32)(network, task)
    assert _macs(dropped) <= 0.6 * _macs(network)
    rows = tuple((str(node.meta["layer"]), 0, 0, 1.0) for node in layers_of(network))
    table = LatencyTable("onnxruntime", "a table made by hand", rows)
    drop = Drop(budget=Budget("latency", 0.8, table), samples=32, importance="cosine")
    assert len(layers_of(drop(network, task))) <= 0.8 * len(layers_of(network))
    with pytest.raises(
        InputError, match=r"a budget of 5.0% of the macs can't be reached: .* remain"
    ):
        Drop(budget=Budget("macs", 0.05), samples=16, importance="cosine").plan(network, task)


def test_the_cosine_needs_no_labels_and_no_loss() -> None:
    model, x = build("resnet_a")
    unlabelled = [(x, torch.zeros(4)), (x, torch.zeros(4))]

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        raise AssertionError("the loss isn't needed")

    task = Task(model, x[:2], unlabelled, unlabelled, loss=loss)
    plan = Drop(1, importance="cosine", samples=8).plan(capture(model, x[:2]), task)
    assert plan.summary.startswith("removes 1 of 6 blocks")


def test_blocks_that_go_with_others_are_not_counted_twice() -> None:
    network, task = _task("resnet_b")
    with pytest.raises(InputError, match=r"7 blocks can't go: once \d have gone.*went with them"):
        Drop(7, importance="cosine", samples=8).plan(network, task)


def test_a_linear_map_is_solved_for_the_outputs_of_the_block() -> None:
    network, task = _task("resnet_a")
    x = _x(task)
    plain = Drop(names=("layers.1",))(network, task)
    mapped = Drop(names=("layers.1",), replace="linear", samples=48)(network, task)
    assert _error(mapped, network, x) < 0.5 * _error(plain, network, x)
    assert any(name.endswith("_map_weight") for name, _ in mapped.named_parameters())


def test_least_squares_brings_the_outputs_back_after_a_cut() -> None:
    network, task = _task("resnet_a")
    x = _x(task)
    cut = Drop(names=("layers.1", "layers.3"))(network, task)
    solved = Compensate(samples=48)(cut, task)
    assert _error(solved, network, x) < 0.3 * _error(cut, network, x)


@pytest.mark.parametrize("name", ["resnet_b", "vit_fused"])
def test_what_is_left_joins_with_the_other_passes(name: str) -> None:
    network, task = _task(name)
    x = _x(task)
    options = TuneOptions(epochs=1, lr=0.01, device="cpu")
    for drop in (Drop(1, samples=16), Drop(1, samples=16, replace="linear")):
        recipe = [
            drop, PruneChannels(0.25), Compensate(samples=16), Tune(options), Quantize(samples=16),
        ]  # fmt: skip
        left = network
        for step in recipe:
            left = step(left, task)
        assert len(find_axes(left).free) > 0
        assert torch.isfinite(left(x)).all()


def test_a_relu_behind_a_relu_is_left_out() -> None:
    network, task = _task("resnet_a")
    dropped = Drop(names=("layers.0", "layers.1"))(network, task)
    relus = [node for node in dropped.calls() if "relu" in str(node.target)]
    assert not any(
        "relu" in str(source.target) for node in relus for source in node.all_input_nodes
    )


def test_bad_options_are_refused() -> None:
    network, task = _task("resnet_a")
    with pytest.raises(InputError, match="blocks must be 1 or more; found 0"):
        Drop(0)
    with pytest.raises(InputError, match="importance must be loss or cosine; found 'size'"):
        Drop(importance="size")
    with pytest.raises(InputError, match="replace must be nothing or linear; found 'zero'"):
        Drop(replace="zero")
    with pytest.raises(InputError, match="blocks, budget and names all say how much to remove"):
        Drop(2, names=("layers.0",))
    with pytest.raises(InputError, match=r"names has 'layers.9', but .* it has layers.0, layers.1"):
        Drop(names=("layers.9",)).plan(network, task)
    with pytest.raises(InputError, match=r"6 blocks can't go: 6 could .*at least one must stay"):
        Drop(6).plan(network, task)
    with pytest.raises(InputError, match=r"6 blocks can't go: .*at least one must stay"):
        Drop(names=("layers",)).plan(network, task)


def test_a_network_without_such_a_value_is_left_alone_with_the_reason() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh())
    data = Arrays(torch.randn(8, 4), torch.arange(8) % 4)
    task = Task(model, data.x[:2], data, data)
    plan = Drop(1).plan(capture(model, task.example), task)
    assert str(plan.left_alone[0].why) == "no value could stand for a later one"


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        ({"values": {"add": "nowhere"}, "maps": []}, "no value 'nowhere'"),
        ({"values": {"relu": "add"}, "maps": []}, "'relu' isn't computed after 'add'"),
        ({"values": {"add_2": "relu_4"}, "maps": []}, "differ in shape"),
        ({"values": {"linear": "relu_4"}, "maps": ["linear"]}, "no 1x1 convolution"),
        ({"values": {}, "maps": ["add"]}, "isn't cut"),
        ({"values": {"x": "x"}, "maps": []}, "isn't computed after"),
    ],
)
def test_a_plan_that_does_not_fit_is_refused(edit: dict[str, object], words: str) -> None:
    network, _ = _task("resnet_a")
    with pytest.raises(UnsafeError, match=words):
        carry_out(network, Plan("Drop", {}, ({"edit": "bypass", **edit},)))


def test_a_part_that_went_with_an_earlier_one_is_refused() -> None:
    network, _ = _task("resnet_b")
    edit = {"edit": "bypass", "values": {"add_2": "batch_norm_7", "batch_norm_6": "batch_norm_5"}}
    with pytest.raises((InputError, UnsafeError)):
        carry_out(network, Plan("Drop", {}, ({**edit, "maps": []},)))


def test_a_block_that_reads_one_that_has_gone_reads_what_is_in_front_of_it() -> None:
    network, task = _task("vit_by_hand")
    blocks = [block for block in find_blocks(network) if block.alike]
    pairs = [(one, two) for one in blocks for two in blocks if two.start == one.end]
    assert pairs
    for pair in pairs:
        losses = CutLosses(network, task, blocks, 16, 2000)
        for block in pair:
            losses.added(block, by_map=False)
            losses.accept(block, by_map=False)
        values = {block.end: block.start for block in pair}
        plan = Plan("Drop", {}, ({"edit": "bypass", "values": values, "maps": []},))
        assert len(layers_of(losses.student)) == len(layers_of(carry_out(network, plan)))
