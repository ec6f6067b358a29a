"""The choice of changes is the best one, by trying all."""

from __future__ import annotations

import itertools
import random

import pytest

from penjing.search.predict.program import least_lost


@pytest.mark.parametrize("seed", range(20))
def test_no_other_choice_loses_less(seed: int) -> None:
    draw = random.Random(seed)
    count = draw.randint(1, 8)
    saved = [draw.uniform(0, 1) for _ in range(count)]
    lost = [draw.uniform(-0.2, 1) for _ in range(count)]
    apart = [draw.sample(range(count), 2) for _ in range(3)] if count > 1 else []
    wanted = draw.uniform(0, 0.6) * sum(saved)

    def is_able(choice: tuple[int, ...]) -> bool:
        alone = all(len(set(choice) & set(members)) < 2 for members in apart)
        return alone and sum(saved[place] for place in choice) >= wanted

    every = itertools.chain(*(itertools.combinations(range(count), k) for k in range(count + 1)))
    able = [choice for choice in every if is_able(choice)]
    found = least_lost(saved, lost, apart, wanted)
    if not able:
        assert found is None
        return
    assert found is not None
    assert is_able(tuple(found))
    best = min(sum(lost[place] for place in choice) for choice in able)
    assert sum(lost[place] for place in found) == pytest.approx(best, abs=1e-6)
