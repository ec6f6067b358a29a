"""Recipes: a tuple of passes that can be called, and refuses what can't work."""

from __future__ import annotations

import pytest
import torch

from penjing.errors import InputError
from penjing.network import capture
from penjing.passes import Gptq, Merge, PruneChannels, Quantize
from penjing.trials.recipe import Recipe
from tests.reference_networks import self_taught


def test_a_recipe_does_what_its_passes_do_one_after_the_other() -> None:
    task = self_taught()
    network = capture(task.model, task.example)
    passes = (PruneChannels(0.5), Quantize(samples=32))
    shares: list[float] = []
    made = Recipe(passes)(network, task, lambda _, share: shares.append(share))
    apart = passes[1](passes[0](network, task), task)
    assert [plan.method for plan in made.history] == ["PruneChannels", "Quantize"]
    assert torch.equal(made(task.example), apart(task.example))
    assert not network.history
    assert shares == sorted(shares)


def test_a_recipe_is_a_tuple_that_goes_to_json_and_back() -> None:
    recipe = Recipe([Merge(), Quantize(weights=4), Gptq()])
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert tuple(recipe) == (Merge(), Quantize(weights=4), Gptq())
    assert repr(recipe).startswith("Recipe([Merge(")


def test_what_can_not_work_is_refused_when_it_is_written_down() -> None:
    with pytest.raises(InputError, match=r"pass 2 of the recipe is .*; write Quantize\(\)"):
        Recipe([Merge(), Quantize])  # type: ignore[list-item]
    with pytest.raises(InputError, match="Quantize first"):
        Recipe([Gptq(), Quantize()])
    with pytest.raises(InputError, match="no runtime"):
        Recipe([Quantize()]).for_runtime("litrt")
