"""Save and restore keep what the network became."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.network import capture, carry_out, restore, save
from tests.reference_networks import build


def test_replaying_the_plans_gives_the_network_back_bit_for_bit(tmp_path: Path) -> None:
    model, x = build("mobilenet_v2")
    keep = {"features.0.0": [0, 2, 5, 7], "classifier.1.in": list(range(0, 64, 3))}
    network = capture(model, x, source="somewhere.py")
    names = [name for name in keep if name in __import__("penjing").network.find_axes(network)]
    keep = {name: keep[name] for name in names}
    plan = Plan("PruneChannels", {}, ({"edit": "shrink", "axes": keep},))
    pruned = carry_out(network, plan)
    save(pruned, tmp_path)
    again = restore(tmp_path, model, x)
    assert torch.equal(again(x), pruned(x))
    assert again.history == pruned.history
    assert again.source == "somewhere.py"
    assert not any(b"pickle" in file.read_bytes() for file in tmp_path.iterdir())


def test_damaged_and_missing_files_are_refused(tmp_path: Path) -> None:
    model, x = build("plain_cnn")
    with pytest.raises(InputError, match=r"no saved network.*network\.json is missing"):
        restore(tmp_path, model, x)
    save(capture(model, x), tmp_path)
    weights = tmp_path / "weights.safetensors"
    weights.write_bytes(weights.read_bytes()[:-5])
    with pytest.raises(UnsafeError, match="is damaged"):
        restore(tmp_path, model, x)
