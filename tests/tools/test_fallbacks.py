"""Fallbacks are told by kind, with counts, and by layer where the file keeps names."""

from __future__ import annotations

import random
import re

import pytest

from penjing.contract import Placement
from penjing.tools.fallbacks import fallbacks


@pytest.mark.parametrize("seed", range(20))
def test_every_operator_that_fell_back_is_counted_once(seed: int) -> None:
    draw = random.Random(seed)
    placed = [
        Placement(
            draw.choice(["", f"layer{at}"]), draw.choice(["aten::mean", "SOFTMAX", "RELU"]),
            draw.choice(["cpu", "gpu"]), draw.choice(["", "it is too large", "XNNPACK has none"]),
        )
        for at in range(draw.randrange(60))
    ]  # fmt: skip
    fallen = [place for place in placed if place.why]
    lines = fallbacks(placed)
    assert len(lines) == len({(place.unit, place.why) for place in fallen})
    counts = [
        int(number)
        for line in lines
        for number in re.findall(r"(?:: |; )(\d+) (?:aten::mean|SOFTMAX|RELU)", line)
    ]
    assert sum(counts) == len(fallen)
    assert sum(int(line.split()[0]) for line in lines) == len(fallen)


def test_kinds_without_names_stand_alone() -> None:
    places = [Placement("", "aten::permute_copy.out", "cpu", "why")] * 40
    places += [Placement(f"head.{at}", "aten::mean.out", "cpu", "why") for at in range(24)]
    assert fallbacks(places) == [
        "64 operators fell back to the CPU: 40 aten::permute_copy.out; 24 aten::mean.out in "
        "head.0, head.1, … and 22 more (why)"
    ]
    assert fallbacks([Placement("a", "b", "npu")]) == []
