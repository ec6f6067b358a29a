"""A saved network that somebody tampered with is refused in one line, and never runs code."""

from __future__ import annotations

import copy
import inspect
import json
from pathlib import Path
from unittest.mock import patch

import pytest
import torch
from torch import nn

from penjing.errors import InputError
from penjing.network import capture
from penjing.network.edits.table import EDITS
from penjing.network.save import OLDEST, restore, save
from penjing.strict_json import parse
from tests.crafted_folders import HONEST, UNSAFE, said
from tests.fuzz_plans import CODE, Seed, fuzz, seeds


@pytest.fixture(scope="module")
def seed() -> Seed:
    return seeds()[0]


@pytest.mark.parametrize("what", [*UNSAFE, *HONEST])
def test_a_crafted_folder_is_refused_in_one_line(what: str, seed: Seed, tmp_path: Path) -> None:
    error = said(tmp_path / "saved", seed, (UNSAFE | HONEST)[what])
    assert error is not None
    assert error.exit_code == (3 if what in UNSAFE else 2)
    assert "\n" not in str(error)
    assert "saved" in str(error)


def test_a_folder_of_an_earlier_penjing_is_restored_and_saved_again(
    seed: Seed, tmp_path: Path
) -> None:
    """Its plans told no parts, which isn't the same as having none."""

    def older(folder: Path, seed: Seed) -> None:
        record = seed.record() | {"format": OLDEST}
        for plan in record["plans"]:
            del plan["parts"]
        (folder / "network.json").write_text(json.dumps(record))

    assert said(tmp_path / "saved", seed, older) is None
    folder = tmp_path / "saved"
    with patch("penjing.network.save.capture", lambda *_, **__: copy.deepcopy(seed.original)):
        network = restore(folder, nn.Identity(), seed.original.example)
        assert {plan.parts for plan in network.history} == {None}
        save(network, tmp_path / "again")
        again = restore(tmp_path / "again", nn.Identity(), seed.original.example)
    assert again.history == network.history
    assert torch.equal(again(seed.original.example), network(seed.original.example))


def test_tampered_plans_are_refused_or_sound() -> None:
    counts = fuzz(runs=300)
    assert counts["restored"] > 10
    assert counts["UnsafeError"] > 100


@pytest.mark.parametrize("code", [one for one in CODE if '"' in one])
def test_no_name_becomes_code(code: str) -> None:
    """The wall behind the check of plans: what compiles a graph takes no such name."""
    network = copy.deepcopy(capture(nn.Linear(3, 2), torch.zeros(2, 3)))
    node = next(one for one in network.graph.nodes if one.op == "get_attr")
    network._parameters[code] = network._parameters[str(node.target)]
    node.target = code
    with pytest.raises(InputError, match="isn't allowed in a graph; rename the layer"):
        network.compile_graph()


def test_a_users_odd_names_stay(tmp_path: Path) -> None:
    """A name needn't be an identifier; it needn't be anything but one line without quotes."""
    odd = nn.ModuleDict({"block-1": nn.Linear(3, 3), "of 2 (or 3)": nn.Linear(3, 3)})
    model = nn.Sequential(*odd.values())
    model._modules = odd._modules
    x = torch.randn(4, 3)
    save(capture(model, x), tmp_path)
    assert torch.equal(restore(tmp_path, model, x)(x), model(x))


def test_json_is_read_as_penjing_writes_it() -> None:
    value = {"a": [1, -2.5, True, None, "\u00e4\u001b"], "b": {"c": 10**20}}
    assert parse(json.dumps(value), "it") == value
    assert parse(json.dumps(value, ensure_ascii=False).encode(), "it") == value


@pytest.mark.parametrize("name", EDITS)
def test_every_edit_has_a_check_for_all_that_it_takes(name: str) -> None:
    edit = EDITS[name]
    assert list(edit.checks) == list(inspect.signature(edit.make).parameters)[1:]
    if edit.misfit is not None:
        assert list(edit.checks) == list(inspect.signature(edit.misfit).parameters)[2:]
