"""Layers whose rounding loses most: float where the runtime has it, or else 16 bits."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest

from penjing.passes import Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.strategies import Quick
from penjing.search.ways import Way, Ways
from penjing.trials.recipe import from_json
from penjing.trials.trial import Trial
from tests.search.strategies.playing import FakeEvaluator, played


class OfIntegers(OnnxRuntime):
    """A runtime that computes on integers only."""

    floats: ClassVar[tuple[str, ...]] = ()


class OfInt16(OfIntegers):
    """One that has 16 bits too."""

    @property
    def int16(self) -> bool:
        return True


class Beside(OfInt16):
    """Another one for the same device."""

    name: ClassVar[str] = "onnxruntime-beside"


class OfBoth(OnnxRuntime):
    """One that has float and 16 bits."""

    @property
    def int16(self) -> bool:
        return True


class Sensitive(FakeEvaluator):
    """Its head is to blame."""

    def sensitive_layers(self, trial: Trial) -> list[str]:
        return ["head"]


@pytest.mark.parametrize(
    ("runtime", "how", "options"),
    [
        (OnnxRuntime(), "float", {"layers": {"head": 0}}),
        (OfBoth(), "float", {"layers": {"head": 0}}),
        (OfIntegers(), "float", {"layers": {"head": 0}}),
        (OfInt16(), "16 bits", {"int16": ("head",)}),
    ],
)
def test_sensitive_layers_are_rounded_less(
    runtime: OnnxRuntime, how: str, options: dict[str, object], tmp_path: Path
) -> None:
    evaluator = Sensitive(lambda _: 0.5, lambda name: 0.5 if "sensitive" in name else 5.0)
    ways = Ways(Way(runtime))
    with played(tmp_path, Quick(), evaluator, ways=ways) as run:
        trials = run.result.trials
    (tried,) = (trial for trial in trials if trial.title.endswith(f"with 1 sensitive in {how}"))
    assert tried.drop is not None
    (quantize,) = from_json(tried.candidate.recipe)
    assert isinstance(quantize, Quantize)
    assert {name: getattr(quantize, name) for name in options} == options
    assert "whose rounding loses most in int8: head" in tried.reason


def test_another_runtime_of_the_device_that_has_16_bits_is_taken(tmp_path: Path) -> None:
    lost = {"original": 0.0, "int8 in onnxruntime": 4.9}
    evaluator = Sensitive(lambda _: 0.5, lambda name: lost.get(name, 5.0))
    ways = Ways(Way(OfIntegers()), (Way(Beside()),))
    with played(tmp_path, Quick(), evaluator, ways=ways) as run:
        titles = [trial.title for trial in run.result.trials]
    assert [title for title in titles if "1 sensitive" in title and "prune" not in title] == [
        "int8 with 1 sensitive in 16 bits in onnxruntime-beside"
    ]
