"""Integer weights alone: tried where values go around, or where rounding them breaks the budget."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import nn

from penjing.contract import Json
from penjing.network import Network, capture
from penjing.search.strategies import Quick
from penjing.trials.contract import Watch
from tests.search.strategies.playing import FakeEvaluator, played
from tests.sequence_networks import STEPS, Reader

ALONE = "int8 weights"


class Recurrent(FakeEvaluator):
    """With a network that has a recurrent layer."""

    def made(self, recipe: Sequence[Json], watch: Watch) -> Network:
        return capture(Reader(nn.GRU).eval(), torch.zeros(2, STEPS, dtype=torch.long))


def _lost(title: str) -> float:
    return 0.0 if title in ("original", ALONE) else 5.0


@pytest.mark.parametrize(
    ("kind", "goal", "tried"),
    [
        (FakeEvaluator, "size", True),
        (FakeEvaluator, "latency", False),
        (Recurrent, "size", True),
        (Recurrent, "latency", True),
    ],
)
def test_where_rounding_values_breaks_the_budget(
    kind: type[FakeEvaluator], goal: str, tried: bool, tmp_path: Path
) -> None:
    evaluator = kind(lambda title: 1.0 if title == "original" else 0.5, _lost)
    with played(tmp_path, Quick(), evaluator, goal) as run:
        assert (ALONE in evaluator.asked) == tried
        if tried:
            assert run.result.chosen == ALONE


def test_of_a_recurrent_network_they_are_tried_though_int8_keeps_the_budget(tmp_path: Path) -> None:
    sizes = {"original": 1.0, "int8": 0.5, ALONE: 0.3}
    evaluator = Recurrent(lambda title: sizes.get(title, 0.9), lambda title: 0.0)
    with played(tmp_path, Quick(), evaluator, "size") as run:
        assert run.result.chosen == ALONE
    plain = FakeEvaluator(lambda title: sizes.get(title, 0.9), lambda title: 0.0)
    (tmp_path / "plain").mkdir()
    with played(tmp_path / "plain", Quick(), plain, "size"):
        assert ALONE not in plain.asked
