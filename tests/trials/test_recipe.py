"""Recipes: a tuple of passes that can be called, and refuses what can't work."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from penjing.errors import InputError, UnsafeError
from penjing.network import capture
from penjing.passes import Gptq, Merge, PruneChannels, Quantize, Tune
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


def test_a_recipe_is_read_from_a_file(tmp_path: Path) -> None:
    recipe = Recipe([PruneChannels(0.5), Tune(), Quantize()])
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(recipe.to_json()))
    assert Recipe.read(path) == recipe


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('[{"method": "Shrink"}]', "mine.json: no pass 'Shrink'; there are "),
        ('[{"method": "Quantize", "bits": 4}]', "mine.json: pass Quantize: .*bits"),
        ('{"method": "Quantize"}', "mine.json: wanted a list of passes, .*; found dict"),
        ('["Quantize"]', "mine.json: wanted a list of passes"),
        ('[{"method": "Gptq"}, {"method": "Quantize"}]', "mine.json: "),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "mine.json"
    path.write_text(text)
    with pytest.raises(InputError, match=line):
        Recipe.read(path)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no such file"):
        Recipe.read(tmp_path / "mine.json")


def test_a_recipe_that_is_not_json(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    path.write_text("Quantize()")
    with pytest.raises(UnsafeError, match=r"mine\.json"):
        Recipe.read(path)
