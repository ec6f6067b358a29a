"""The layers of the original and of the answer: sizes by hand, times that add up, no fit lost."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.errors import InputError
from penjing.measure.latency import compare
from penjing.network import capture
from penjing.passes import PruneChannels, Quantize, Tune
from penjing.passes.contract import Pass
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import all_targets
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Watch
from penjing.trials.evaluation.by_layer import beside, shaping
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.evaluation.instruments import Instruments, layer_seconds
from penjing.trials.layers import Layer, LayerFigures, Layers
from penjing.trials.recipe import to_json
from penjing.trials.trial import Proposal, Trial

PRUNE, ROUND = PruneChannels(0.5, multiple=1), Quantize(samples=8)


def _briefly(sessions: Any, inputs: Any, baseline: str, seconds: float, seed: int) -> Any:
    return compare(sessions, inputs, baseline, 0.1, seed)


def _evaluator(folder: Path, profile: Callable[..., Any] = layer_seconds) -> FileEvaluator:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    task = Task(model.eval(), batches[0][0][:2], batches, batches, validation=batches)
    network, runtime = capture(task.model, task.example), OnnxRuntime()
    instruments = Instruments(timer=_briefly, peak=lambda *_: None, profile=profile)
    target = all_targets()["x86-server"]
    return FileEvaluator(task, network, target, folder, 0.95, 0, runtime, instruments=instruments)


def _both(evaluator: FileEvaluator, *passes: Pass) -> tuple[Trial, Trial]:
    original = evaluator.baseline(Watch())
    candidate = Candidate.of(passes, evaluator.runtime.name)
    return evaluator.evaluate(Proposal(candidate, "small"), Watch()), original


def test_sizes_are_those_by_hand_and_times_add_up_to_the_files(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    small, original = _both(evaluator, PRUNE, ROUND)
    layers = evaluator.layers(small, original)
    assert layers.notes == ()
    conv, linear = layers.rows[:2]
    assert (conv.name, conv.operator, linear.name, linear.operator) == (
        "0",
        "conv2d",
        "4",
        "linear",
    )
    without = [
        replace(side, latency_ms=None)
        for row in (conv, linear)
        for side in (row.before, row.after)
        if side is not None
    ]
    assert without == [
        LayerFigures(8, 8 * 27 + 8, 8 * 27 * 36),
        LayerFigures(4, 4 * 27 + 4, 4 * 27 * 36),
        LayerFigures(4, 4 * 288 + 4, 4 * 288),
        LayerFigures(4, 4 * 144 + 4, 4 * 144),
    ]
    assert conv.is_narrower
    assert not linear.is_narrower
    for trial, side in ((original, "before"), (small, "after")):
        figures = [getattr(row, side) for row in layers.rows]
        times = [each.latency_ms or 0.0 for each in figures if each is not None]
        assert trial.latency is not None
        assert sum(times) == pytest.approx(trial.latency.latency_ms)
    assert Layers.from_json(layers.to_json()) == layers


def test_the_original_as_the_answer_is_profiled_once(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path)
    original = evaluator.baseline(Watch())
    layers = evaluator.layers(original, original)
    assert layers.rows
    assert all(row.before == row.after for row in layers.rows)


def test_without_a_profiler_there_are_sizes_and_a_note(tmp_path: Path) -> None:
    evaluator = _evaluator(tmp_path, lambda *_: None)
    layers = evaluator.layers(*_both(evaluator, PRUNE))
    assert layers.notes == ("onnxruntime doesn't report the time of each layer",)
    assert [row.name for row in layers.rows] == ["0", "4"]
    assert all(row.after and row.after.latency_ms is None for row in layers.rows)


def test_a_refusal_is_a_note_and_a_bug_is_not_hidden(tmp_path: Path) -> None:
    def refuses(*_: Any) -> None:
        raise InputError("no file for that")

    def breaks(*_: Any) -> None:
        raise KeyError("a bug")

    evaluator = _evaluator(tmp_path, refuses)
    both = _both(evaluator, PRUNE)
    assert evaluator.layers(*both) == Layers(
        notes=("the layers couldn't be looked at: no file for that",)
    )
    evaluator.instruments = replace(evaluator.instruments, profile=breaks)
    with pytest.raises(KeyError, match="a bug"):
        evaluator.layers(*both)


def test_only_what_comes_behind_the_last_cut_or_training_is_left_out() -> None:
    for recipe, kept in (
        ((), 0), ((ROUND,), 0), ((PRUNE, ROUND), 1), ((PRUNE, Tune(), ROUND), 2),
        ((PRUNE, ROUND, Tune()), 3),
    ):  # fmt: skip
        assert shaping(to_json(recipe)) == to_json(recipe)[:kept]


def test_layers_meet_by_their_names() -> None:
    figures = LayerFigures(4, 16, 16)
    before = {"a": ("conv2d", figures), "b": ("conv2d", figures)}
    after = {"b": ("conv2d", figures), "c": ("linear", figures)}
    rows = beside(before, after, {"a": 1.0, "Add": 2.0}, None)
    timed = replace(figures, latency_ms=1.0)
    assert rows == (
        Layer("a", "conv2d", timed, None),
        Layer("b", "conv2d", figures, figures),
        Layer("c", "linear", None, figures),
        Layer("Add", "", LayerFigures(latency_ms=2.0), None),
    )
    assert [row.is_gone for row in rows] == [True, False, False, False]
