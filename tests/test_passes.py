"""One table of promises that every pass keeps."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from penjing.contract import Plan
from penjing.data import Arrays
from penjing.errors import InputError
from penjing.network import Network, capture, find_axes
from penjing.passes import (
    Binarize,
    Compensate,
    CorrectBias,
    Equalize,
    Gptq,
    Merge,
    MixedPrecision,
    Pass,
    PruneChannels,
    Quantize,
    Reconstruct,
    Ternarize,
    Tune,
)
from penjing.passes.budget import Budget
from penjing.passes.importance import Criterion, importances
from penjing.search import recipes
from penjing.task import Task
from penjing.tune.options import TuneOptions
from tests.reference_networks import build

PASSES: dict[str, Pass] = {
    "l1": PruneChannels(0.4, importance="l1"),
    "l2 global": PruneChannels(0.4, importance="l2", ranking="global"),
    "l1+l2": PruneChannels(0.4, importance="l1+l2", multiple=4),
    "taylor": PruneChannels(0.4, importance="taylor", samples=8),
    "fisher isomorphic": PruneChannels(0.4, importance="fisher", ranking="isomorphic", samples=8),
    "budget": PruneChannels(budget=Budget("macs", 0.5), multiple=4),
    "int8": Quantize(samples=16),
    "mixed": MixedPrecision(uniform=4, samples=16),
    "compensate": Compensate(samples=8),
    "merge": Merge(0.4),
    "ternary": Ternarize(),
    "ternary, two scales, 8 bit values": Ternarize("two", activations=8, samples=16),
    "binary": Binarize(),
    "binary throughout": Binarize(shortcuts=True, learned_sign=True, ends=1),
    "equalize": Equalize(),
    "correct bias": CorrectBias(samples=8),
    "gptq": Gptq(samples=8),
    "reconstruct": Reconstruct(samples=8, steps=2, batch=4),
    "tune": Tune(TuneOptions(epochs=1, lr=0.01), recalibration_samples=8),
}
NAMES = ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"]


def _task(name: str) -> tuple[Task, Network]:
    model, x = build(name)
    data = Arrays(x.repeat(4, 1, 1, 1), torch.arange(16) % 10, batch_size=8)
    task = Task(model, x[:2], data, data, data)
    return task, capture(model, x[:2])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("key", PASSES)
def test_every_pass_keeps_the_promises(name: str, key: str) -> None:
    task, network = _task(name)
    one = PASSES[key]
    before = {k: v.clone() for k, v in network.state_dict().items()}
    plan = one.plan(network, task)
    assert Plan.from_json(json.loads(json.dumps(plan.to_json()))) == plan
    result = one(network, task)
    for k, v in network.state_dict().items():
        assert torch.equal(v, before[k]), k
    x = task.test.x  # type: ignore[union-attr]
    assert result(x).shape == (16, 10)
    assert torch.isfinite(result(x)).all()
    assert not result.training
    again = one(network, task)
    assert torch.equal(result(x), again(x))
    torch.export.export(result, (x,))


@pytest.mark.parametrize("name", NAMES)
def test_recipes_survive_json(name: str) -> None:
    recipe = tuple(PASSES.values())
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
    x = task.test.x  # type: ignore[union-attr]
    torch.testing.assert_close(pruned(x), network(x), rtol=1e-5, atol=1e-5)


def test_nothing_to_do_is_an_empty_plan() -> None:
    task, network = _task("plain_cnn")
    assert PruneChannels(0.0).plan(network, task).edits == ()
    int8 = Quantize(samples=16)
    assert int8.plan(int8(network, task), task).edits == ()
    assert Equalize().plan(Equalize()(network, task), task).edits == ()
    assert CorrectBias().plan(network, task).edits == ()


def test_widths_respect_multiple_and_keep() -> None:
    task, network = _task("resnet_a")
    pruned = PruneChannels(0.6, multiple=8)(network, task)
    sizes = [group.size for group in find_axes(pruned).free.values()]
    assert all(size % 8 == 0 for size in sizes)
    assert (
        min(g.size for g in find_axes(PruneChannels(0.9, keep=5)(network, task)).free.values()) == 5
    )


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
    with pytest.raises(InputError, match=r"skip names 'conv9', which is no layer.*conv1"):
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
