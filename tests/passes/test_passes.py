"""One table of promises that every pass keeps."""

from __future__ import annotations

import importlib
import inspect
import json
import pkgutil
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from penjing import passes
from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.network import Network, capture, find_axes
from penjing.passes import (
    PASSES,
    Binarize,
    Compensate,
    CorrectBias,
    Drop,
    Equalize,
    Factorize,
    Fuse,
    Gptq,
    Merge,
    MixedPrecision,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Share,
    Sparsify,
    Ternarize,
    Tune,
)
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.channels.importance import Criterion, importances
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.trials import recipe as recipes
from penjing.tune.options import TuneOptions
from tests.reference_networks import build


@dataclass(frozen=True)
class Row:
    """A pass, and the networks on which it is held to the promises.

    Attributes:
        behind: passes that make of a captured network one on which it has something to do.
        idle: passes behind which it has nothing to do; None if it always has.
        nothing: names of networks that leave it nothing to do all the same.
    """

    step: Pass
    behind: tuple[Pass, ...] = ()
    idle: tuple[Pass, ...] | None = ()
    nothing: tuple[str, ...] = ()


INT4 = (Quantize(weights=4, samples=16),)
CUT = PruneChannels(0.4)
ALL_CUT = (PruneChannels(0.99),)
"""What leaves one index of every axis."""
TERNARY = Ternarize("two", activations=8, samples=16)
BINARY = Binarize(shortcuts=True, learned_sign=True, ends=1)
SPARSE = Sparsify(0.7, criterion="l1", scope="layer")
TABLE: dict[str, Row] = {
    "l1": Row(PruneChannels(0.4, importance="l1"), idle=ALL_CUT),
    "l2 global": Row(PruneChannels(0.4, importance="l2", ranking="global"), idle=ALL_CUT),
    "l1+l2": Row(PruneChannels(0.4, importance="l1+l2", multiple=4), idle=ALL_CUT),
    "taylor": Row(PruneChannels(0.4, importance="taylor", samples=8), idle=ALL_CUT),
    "fisher isomorphic": Row(
        PruneChannels(0.4, importance="fisher", ranking="isomorphic", samples=8), idle=ALL_CUT
    ),
    "budget": Row(PruneChannels(budget=Budget("macs", 0.5), multiple=4), idle=None),
    "what is rounded": Row(CUT, behind=INT4, idle=ALL_CUT),
    "int8": Row(Quantize(samples=16), idle=INT4),
    "mixed": Row(MixedPrecision(uniform=4, samples=16), idle=INT4),
    "compensate": Row(Compensate(samples=8), behind=(CUT,), idle=()),
    "factors": Row(Factorize(0.7, samples=8), idle=None),
    "factors without data": Row(Factorize(0.6, scheme="spatial", basis="weights"), idle=None),
    "principal components": Row(Factorize(0.7, basis="outputs", samples=8), idle=None),
    "factors in a budget": Row(Factorize(budget=Budget("params", 0.6), samples=8), idle=INT4),
    "merge": Row(Merge(0.4), idle=ALL_CUT),
    "drop": Row(Drop(1, replace="linear", samples=8, rows=64), idle=INT4),
    "fuse": Row(Fuse(most=100), idle=INT4, nothing=("plain_cnn", "resnet_a", "vit_by_hand")),
    "sparse": Row(SPARSE, idle=(SPARSE,)),
    "sparse, first order": Row(Sparsify(0.6, "taylor", "layer", samples=8), idle=(SPARSE,)),
    "sparse, surgeon": Row(Sparsify(0.6, "obs", steps=1, samples=8), idle=(SPARSE,)),
    "2:4": Row(
        Sparsify(criterion="l2", pattern="2:4", ends=1), idle=(Sparsify(pattern="2:4", ends=1),)
    ),
    "blocks": Row(Sparsify(0.5, "l1+l2", pattern="2x1"), idle=None),
    "compensate what is sparse": Row(Compensate(samples=8), behind=(SPARSE,), idle=None),
    "shared": Row(Share(8), idle=(Share(8),)),
    "shared by error and rate": Row(
        Share(8, "channel", "rate", samples=8), idle=(Share(8, "channel"),)
    ),
    "ternary": Row(Ternarize(), idle=(Ternarize(),)),
    "ternary, two scales, 8 bit values": Row(TERNARY, idle=(TERNARY,)),
    "binary": Row(Binarize(), idle=(Binarize(),)),
    "binary throughout": Row(BINARY, idle=(BINARY,)),
    "equalize": Row(Equalize(), idle=(Equalize(),), nothing=("vit_by_hand",)),
    "correct bias": Row(CorrectBias(samples=8), behind=INT4, idle=()),
    "gptq": Row(Gptq(samples=8), behind=INT4, idle=()),
    "reconstruct": Row(Reconstruct(samples=8, steps=2, batch=4), behind=INT4, idle=()),
    "tune": Row(Tune(TuneOptions(epochs=1, lr=0.01), recalibration_samples=8), idle=None),
}
"""Every pass; the promises are below."""
NAMES = ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"]
IN_TURN = [(NAMES[(k + step) % 4], key) for k, key in enumerate(TABLE) for step in (0, 2)]
"""Each row on two of the networks."""


def _task(name: str, behind: tuple[Pass, ...] = ()) -> tuple[Task, Network]:
    model, x = build(name)
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=8)
    task = Task(model, x[:2], data, data)  # with validation data Tune might keep what it began with
    network = capture(model, x[:2])
    for step in behind:
        network = step(network, task)
    return task, network


def _is_empty(plan: Plan) -> bool:
    """Of edits and of parts; what trains has neither, and always something to do."""
    return not (plan.edits or plan.parts or plan.method == "Tune")


def _same(one: Network, other: Network) -> bool:
    mine, its = one.state_dict(), other.state_dict()
    return mine.keys() == its.keys() and all(
        mine[key].shape == its[key].shape and torch.equal(mine[key], its[key]) for key in mine
    )


def _kinds(kind: type[object]) -> set[type[object]]:
    """All passes that are written in the package, whether anything names them or not."""
    found = set().union(*map(_kinds, kind.__subclasses__()))
    own = kind.__module__.startswith("penjing.passes.") and not inspect.isabstract(kind)
    return found | {kind} if own else found


def test_every_pass_is_in_the_table() -> None:
    for module in pkgutil.walk_packages(passes.__path__, "penjing.passes."):
        importlib.import_module(module.name)
    assert set(PASSES.values()) == _kinds(Pass)
    assert list(PASSES) == [kind.__name__ for kind in PASSES.values()]
    assert {type(row.step) for row in TABLE.values()} == set(PASSES.values())


@pytest.mark.parametrize(("name", "key"), IN_TURN)
def test_every_pass_keeps_the_promises(name: str, key: str) -> None:
    row = TABLE[key]
    task, network = _task(name, row.behind)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    plan = row.step.plan(network, task)
    assert _is_empty(plan) == (name in row.nothing)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    result = row.step(network, task)
    for k, v in network.state_dict().items():
        assert torch.equal(v, before[k]), k
    assert _same(result, network) == (name in row.nothing)
    assert result.history == (*network.history, plan)
    assert isinstance(task.test, Arrays)
    x = task.test.x
    assert result(x).shape == (16, 10)
    assert torch.isfinite(result(x)).all()
    assert not result.training
    again = row.step(network, task)
    assert torch.equal(result(x), again(x))
    torch.export.export(result, (x,))


@pytest.mark.parametrize("key", [key for key, row in TABLE.items() if row.idle is not None])
def test_nothing_to_do_is_an_empty_plan_that_says_why(key: str) -> None:
    row = TABLE[key]
    task, network = _task("plain_cnn", row.idle or ())
    plan = row.step.plan(network, task)
    assert _is_empty(plan)
    assert str(plan).startswith(f"{type(row.step).__name__}: nothing to do")
    assert plan.left_alone
    assert all(one.why for one in plan.left_alone)
    assert _same(row.step.apply(network, plan, task), network)


def test_recipes_survive_json() -> None:
    recipe = tuple(row.step for row in TABLE.values())
    assert recipes.from_json(json.loads(json.dumps(recipes.to_json(recipe)))) == recipe


def test_a_recipe_holds_no_seconds_and_those_of_an_earlier_penjing_are_read() -> None:
    (step,) = recipes.to_json((Tune(TuneOptions(epochs=3.0)),))
    assert "seconds" not in json.dumps(step)
    step["options"]["seconds"] = 12.5
    assert recipes.from_json([step]) == (Tune(TuneOptions(epochs=3.0)),)


def test_pruning_removes_what_matters_least() -> None:
    task, network = _task("plain_cnn")
    with torch.no_grad():
        network.get_parameter("conv1.weight")[[1, 4, 7]] = 0
        network.get_parameter("conv2.weight")[:, [1, 4, 7]] = 0
        network.get_parameter("conv1.bias")[[1, 4, 7]] = 0
    plan = PruneChannels(3 / 16, skip=("conv2", "fc1")).plan(network, task)
    kept = plan.edits[0]["axes"]["conv1"]
    assert sorted(set(range(16)) - set(kept)) == [1, 4, 7]
    pruned = PruneChannels(3 / 16, skip=("conv2", "fc1"))(network, task)
    assert isinstance(task.test, Arrays)
    x = task.test.x
    torch.testing.assert_close(pruned(x), network(x), rtol=1e-5, atol=1e-5)


def test_a_share_of_nothing_is_an_empty_plan() -> None:
    task, network = _task("plain_cnn")
    assert PruneChannels(0.0).plan(network, task).edits == ()


def test_a_plan_of_an_earlier_penjing_or_of_another_network_is_refused() -> None:
    task, network = _task("plain_cnn", INT4)
    plan = Gptq(samples=8).plan(network, task)
    assert plan.parts == (("conv2d",), ("conv2d_1",), ("linear",), ("linear_1",))
    older = plan.to_json()
    del older["parts"]
    with pytest.raises(
        InputError, match=r"plan of Gptq was made by an older penjing.*call Gptq.plan"
    ):
        Gptq(samples=8).apply(network, Plan.from_json(older), task)
    _, plain = _task("plain_cnn")
    with pytest.raises(InputError, match="the plan of Gptq names conv2d, which Gptq can't work on"):
        Gptq(samples=8).apply(plain, plan, task)
    _, deeper = _task("resnet_a", INT4)
    with pytest.raises(UnsafeError, match=r"plan Gptq doesn't fit .*no layer 'linear_1'"):
        Gptq(samples=8).apply(deeper, plan, task)


def test_widths_respect_multiple_and_keep() -> None:
    task, network = _task("resnet_a")
    pruned = PruneChannels(0.6, multiple=8)(network, task)
    sizes = [group.size for group in find_axes(pruned).free.values()]
    assert all(size % 8 == 0 for size in sizes)
    assert (
        min(g.size for g in find_axes(PruneChannels(0.9, keep=5)(network, task)).free.values()) == 5
    )


@pytest.mark.parametrize("name", NAMES)
def test_named_axes_get_the_widths_that_they_are_given(name: str) -> None:
    task, network = _task(name)
    axes = find_axes(network).free
    wanted = {axis: max(1, group.size // 2) for axis, group in list(axes.items())[:2]}
    plan = PruneChannels(widths=wanted).plan(network, task)
    assert {axis: len(keep) for axis, keep in plan.edits[0]["axes"].items()} == wanted
    alike = PruneChannels(0.5).plan(network, task).edits[0]["axes"]
    assert all(alike[axis] == keep for axis, keep in plan.edits[0]["axes"].items())


def test_widths_that_cannot_be_are_refused() -> None:
    task, network = _task("plain_cnn")
    for given in ({"ratio": 0.4}, {"keep": 2}, {"budget": Budget("macs", 0.5)}):
        with pytest.raises(InputError, match="beside widths, give none of the others"):
            PruneChannels(widths={"conv1": 4}, **given)
    for widths, line in {
        ("conv9", 4): r"widths names 'conv9', but the network has no such axis; it has conv1",
        ("conv1", 17): r"widths\['conv1'\] must be from 1 to 16; found 17",
        ("conv1", 0): r"widths\['conv1'\] must be from 1 to 16; found 0",
        ("fc2", 4): r"widths names 'fc2', which can't shrink on its own",
    }.items():
        with pytest.raises(InputError, match=line):
            PruneChannels(widths=dict([widths])).plan(network, task)


def test_bad_options_are_refused() -> None:
    task, network = _task("plain_cnn")
    with pytest.raises(InputError, match=r"ratio must be in \[0, 1\).*found 1.5"):
        PruneChannels(1.5)
    with pytest.raises(InputError, match=r"importance must be one of l1, l2.*'l7'"):
        PruneChannels(importance="l7")  # type: ignore[arg-type]
    with pytest.raises(InputError, match="keep and multiple must be 1 or more; found 0"):
        PruneChannels(keep=0)
    with pytest.raises(InputError, match=r"skip names 'conv9'.*conv1"):
        PruneChannels(skip=("conv9",)).plan(network, task)
    with pytest.raises(InputError, match="samples must be 2 or more"):
        Quantize(samples=1)
    with pytest.raises(
        InputError, match=r"skip names 'conv9', but .* has no such layer; it has conv1"
    ):
        Quantize(skip=("conv9",)).plan(network, task)
    with pytest.raises(InputError, match="no pass 'Prune'"):
        recipes.from_json([{"method": "Prune"}])


@pytest.mark.parametrize("criterion", ["l2", "l1+l2"])
def test_single_weights_are_ranked_alike_by_all_norms(criterion: Criterion) -> None:
    """Where an index owns one weight, any increasing function of |w| leaves the same mask."""

    class Scales(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(40))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.sum(1, keepdim=True).expand(-1, 40) * self.scale).sum(1, keepdim=True)

    torch.manual_seed(0)
    network = capture(Scales(), torch.zeros(2, 3))
    groups = find_axes(network).free
    (name,) = groups
    one, other = (importances(network, groups, which)[name] for which in ("l1", criterion))
    for count in range(1, 40):
        assert set(one.topk(count).indices.tolist()) == set(other.topk(count).indices.tolist())
