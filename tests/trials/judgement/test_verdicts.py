"""Verdicts: every method is held against what it was made from; and the quantization schemes."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.contract import Drop, Latency, Measurement, as_arrays
from penjing.measure.latency import compare
from penjing.network import capture
from penjing.network.graph.qparams import weight_qparams
from penjing.passes import Pass, PruneChannels, Quantize, Tune
from penjing.report.markdown import page
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.search.schedule import Schedule
from penjing.search.strategies.rounding import Rounding
from penjing.search.strategies.schemes import INT8, in_float
from penjing.search.study import Study
from penjing.search.ways import Way, Ways
from penjing.targets import all_targets
from penjing.tasks.task import Task
from penjing.trials.candidate import Candidate
from penjing.trials.contract import Sitting, Watch
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.evaluation.float_layers import _profiles, clearly_slower
from penjing.trials.evaluation.instruments import Instruments
from penjing.trials.judgement.verdicts import verdicts
from penjing.trials.ledger import Ledger
from penjing.trials.recipe import to_json
from penjing.trials.result import Result
from penjing.trials.trial import ORIGINAL, Proposal, Status, Trial
from penjing.tune.options import TuneOptions
from tests import fits

CUT = (PruneChannels(0.5), Tune())


def _figures(ratio: float, drop: float, kb: int) -> Measurement:
    times = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20)
    lost = Drop(drop, drop + 0.2, 0.95, 1000)
    return Measurement(file_bytes=1000 * kb, latency=times, drop=lost)


def _trial(
    title: str,
    passes: Sequence[Pass],
    figures: Measurement,
    status: str = "kept",
    runtime: str = "onnxruntime",
) -> Trial:
    return Trial(Candidate.of(passes, runtime), title, Status(status), measurement=figures)


BASELINE = _trial(
    ORIGINAL,
    (),
    Measurement(
        file_bytes=1_000_000,
        latency=Latency(1.0, 1.0, 1.0, 1.0, 1.0, 20),
        drop=Drop(0.0, 0.0, 0.95, 1000),
    ),
    "baseline",
)
INTEGERS = _trial("int8", (Quantize(),), _figures(0.5, 0.3, 300))
PRUNED = _trial("prune", CUT, _figures(0.8, 0.5, 500))


def _result(*trials: Trial) -> Result:
    return Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, BASELINE, trials)


def test_one_method_is_held_against_the_original() -> None:
    (line,) = verdicts(_result(INTEGERS))
    assert line == (
        "int8, compared with the original: takes 0.50 of the time (0.49 to 0.51), is 3.3 times "
        "smaller and loses 0.30 points of accuracy (at most 0.50). Worth it: it is faster and "
        "keeps the budget."
    )


def test_two_methods_are_held_against_each_alone() -> None:
    both = _trial("prune + int8", (*CUT, Quantize()), _figures(0.45, 0.9, 160))
    lines = verdicts(_result(INTEGERS, PRUNED, both))
    assert [line.split(":")[0] for line in lines] == [
        "int8, compared with the original",
        "prune, compared with the original",
        "prune + int8, compared with int8",
        "prune + int8, compared with prune",
    ]
    assert (
        "takes 0.90 of the time (0.86 to 0.94), is 46.7 % smaller and loses 0.60 points of accuracy"
        ". Worth it: " in lines[2]
    )
    assert "takes 0.56 of the time (0.54 to 0.59)" in lines[3]
    longer = _trial("longer + int8", (*CUT, Tune(), Quantize()), _figures(0.45, 0.9, 160))
    assert "longer + int8, compared with prune + int8" in verdicts(_result(both, longer))[1]


def test_what_adds_to_a_failure_is_not_blamed_for_it() -> None:
    worse = replace(PRUNED, status=Status.OVER_BUDGET)
    both = _trial("prune + int8", (*CUT, Quantize()), _figures(0.45, 2.0, 160), "over budget")
    lines = verdicts(_result(INTEGERS, worse, both))
    assert lines[2].endswith("of accuracy. Not worth it: it is over the budget.")
    assert lines[3].endswith("It is faster, but prune is over the budget already.")


@pytest.mark.parametrize(
    ("ratio", "kb", "status", "end"),
    [
        (0.5, 300, "over budget", "Not worth it: it is over the budget."),
        (1.0, 300, "kept", "It is smaller but not clearly faster."),
        (1.2, 300, "kept", "It is smaller but slower."),
        (1.0, 1000, "kept", "Not worth it: it is not clearly faster and no smaller."),
    ],
)
def test_what_does_not_pay_is_said(ratio: float, kb: int, status: str, end: str) -> None:
    int8 = _trial("int8", (Quantize(),), _figures(ratio, 0.3, kb), status)
    (line,) = verdicts(_result(int8))
    assert line.endswith(end)


def test_the_best_integer_file_is_held_against_the_best_float_file_of_any_runtime() -> None:
    """int8 takes 0.72 of the original's time, but LiteRT runs the original nearly as fast."""
    litert = _trial("original in litert", (), _figures(0.77, 0.0, 990), runtime="litert")
    int8 = _trial("int8 in litert", (Quantize(),), _figures(0.72, 0.3, 300), runtime="litert")
    slow = _trial("int8", (Quantize(),), _figures(0.78, 0.3, 300))
    lines = verdicts(_result(litert, int8, slow))
    assert lines[-1] == (
        "Integers gain little here: int8 in litert, the fastest integer file that keeps the "
        "budget, takes 0.94 of the time (0.90 to 0.97), compared with original in litert, the "
        "fastest float file."
    )
    broken = replace(int8, status=Status.OVER_BUDGET)
    assert "here: int8, the fastest integer file" in verdicts(_result(litert, broken, slow))[-1]
    assert "Integers are worth it" in verdicts(_result(int8, slow))[-1]
    assert len(verdicts(_result(slow))) == 1  # it is held against the original already


def test_what_was_not_measured_has_no_verdict_and_says_why() -> None:
    waiting = fits.trial("prune", tuple(to_json(CUT)), "not tuned", "no faster than int8")
    lines = verdicts(_result(INTEGERS, waiting))
    assert len(lines) == 3
    assert lines[1] == (
        "Nothing can be said about PruneChannels: prune was only timed (no faster than int8)."
    )


def test_a_ledger_keeps_verdicts_and_the_report_shows_them(tmp_path: Path) -> None:
    ledger = Ledger.begin(tmp_path, _result())
    ledger.record(BASELINE, INTEGERS)
    ledger.publish()
    again = Result.load(tmp_path)
    assert again.verdicts == verdicts(_result(INTEGERS))
    assert again == ledger.result
    assert again.verdicts[0] in page(again)
    old = {key: value for key, value in again.to_json().items() if key != "verdicts"}
    assert Result.from_json(old).verdicts == ()


@dataclass
class _Told:
    """An evaluator that says what it is told to: what each file loses, or None if it fails.

    Attributes:
        drops: of the candidates, in the order in which they are tried; emptied on the way.
        ratio: what a file takes of another one's time.
        slow: the layers that every rounded file computes slower than float ones.
        rivals: beside which files others were compared.
    """

    drops: list[float | None]
    ratio: float = 1.0
    slow: list[str] | None = field(default_factory=list)
    rivals: list[str] = field(default_factory=list)

    def evaluate(self, proposal: Proposal, watch: Watch) -> Trial:
        drop = self.drops.pop(0)
        if drop is None:
            return Trial(proposal.candidate, proposal.title, Status.FAILED, "told to")
        status = Status.KEPT if drop < 1 else Status.OVER_BUDGET
        figures = _figures(0.5, drop, 300)
        return Trial(proposal.candidate, proposal.title, status, measurement=figures)

    def time(self, trials: Sequence[Trial], seconds: float) -> Sitting:
        raise AssertionError("no figure is disturbed, so none is taken again")

    def compare(self, trial: Trial, rival: Trial) -> Latency:
        self.rivals.append(rival.title)
        return Latency(1, 1, self.ratio, self.ratio, self.ratio, 20)

    def slower_layers(self, trial: Trial, rival: Trial) -> list[str] | None:
        assert rival.key == BASELINE.key
        return self.slow

    def profiler(self, trial: Trial) -> str:
        return trial.runtime


@dataclass
class _Fit:
    """A fit's rounding in one runtime, whose time stands still, by what an evaluator is told."""

    folder: Path
    evaluator: _Told
    goal: str = "latency"
    seconds: float = 600.0

    def __post_init__(self) -> None:
        self.ledger = Ledger.begin(self.folder, replace(_result(), goal=self.goal))
        self.ledger.record(BASELINE)
        schedule = Schedule(lambda: 0.0, self.seconds)
        self.study = Study(
            all_targets()["x86-server"], Ways(Way(OnnxRuntime())), schedule, TuneOptions(),
            self.ledger, self.evaluator,  # type: ignore[arg-type]  # no more is asked of it
        )  # fmt: skip
        self.rounding = Rounding(self.study)

    def carry_out(self, asking: Generator[Sequence[Proposal], Sequence[Trial], None]) -> None:
        """Try all that is asked for, as `Run` does."""
        try:
            wanted = next(asking)
            while True:
                trials = [self.evaluator.evaluate(proposal, Watch()) for proposal in wanted]
                self.ledger.record(*trials)
                wanted = asking.send(trials)
        except StopIteration:
            return


@pytest.mark.parametrize(
    ("drops", "chosen"),
    [([0.3], "int8"), ([1.5, 0.4], "int8 by percentile"), ([2.0, 1.5, 0.4], "int8 equalized"),
     ([2.0, 1.5, 1.6], "int8 by percentile"), ([1.5, 2.0, 2.0], "int8"), ([None], "int8")],
)  # fmt: skip
def test_schemes_are_tried_until_one_keeps_the_budget(
    drops: list[float | None], chosen: str, tmp_path: Path
) -> None:
    told = _Told(list(drops))
    fit = _Fit(tmp_path, told)
    fit.carry_out(fit.rounding.try_everywhere())
    fit.carry_out(fit.rounding.try_schemes())
    assert not told.drops
    assert fit.rounding.chosen == chosen
    titles = ["int8", "int8 by percentile", "int8 equalized"][: len(drops)]
    assert [trial.title for trial in fit.ledger.result.trials] == titles


def test_no_scheme_is_tried_that_there_is_no_time_for(tmp_path: Path) -> None:
    fit = _Fit(tmp_path, _Told([1.5]), "size", seconds=0.0)
    fit.carry_out(fit.rounding.try_everywhere())
    fit.carry_out(fit.rounding.try_schemes())
    fit.carry_out(fit.rounding.try_fewer_bits())
    assert fit.rounding.chosen == INT8
    assert fit.ledger.result.notes == (
        "too little time to try int8 by percentile",
        "too little time to try int8 equalized",
        "too little time to try int4 weights",
    )


@pytest.mark.parametrize(
    ("ratio", "drops", "chosen"),
    [
        (0.9, [0.2, 0.2], "int8 with 1 in float"),
        (1.0, [0.2, 0.2], "int8"),
        (1.5, [1.2, 0.2], "int8 with 1 in float"),
        (0.9, [0.2, 1.2], "int8"),
        (1.5, [1.3, 1.2], "int8 with 1 in float"),
        (0.9, [1.2, 1.3], "int8"),
    ],
)
def test_layers_in_float_go_on_if_that_keeps_the_budget_or_both_do_and_it_is_faster(
    ratio: float, drops: list[float], chosen: str, tmp_path: Path
) -> None:
    told = _Told(list(drops), ratio, ["conv1"])
    fit = _Fit(tmp_path, told)
    fit.carry_out(fit.rounding.try_everywhere())
    fit.carry_out(fit.rounding.leave_in_float())
    assert fit.rounding.chosen == chosen
    assert told.rivals == [INT8]
    mixed = fit.ledger.result.find("int8 with 1 in float")
    assert mixed.status == ("kept" if drops[1] < 1 else "over budget")
    assert mixed.candidate.recipe[0]["layers"] == {"conv1": 0}
    assert "slower in int8 than in float: conv1" in mixed.reason
    assert f"{ratio:.3f} of its time" in mixed.reason


@pytest.mark.parametrize(
    ("slow", "notes"),
    [([], ()), (None, ("onnxruntime doesn't report the time of each layer, so penjing couldn't "
                       "look for layers that int8 slows down",))],
)  # fmt: skip
def test_where_no_layer_is_slower_or_none_can_be_told_nothing_is_left_in_float(
    slow: list[str] | None, notes: tuple[str, ...], tmp_path: Path
) -> None:
    fit = _Fit(tmp_path, _Told([0.2], slow=slow))
    fit.carry_out(fit.rounding.try_everywhere())
    fit.carry_out(fit.rounding.leave_in_float())
    assert fit.rounding.chosen == INT8
    assert fit.ledger.result.notes == notes


def test_a_layer_is_slower_if_it_always_is_and_by_what_matters() -> None:
    theirs = {"a": [1.0, 1.1], "b": [1.0, 1.1], "c": [1.0, 1.1], "whole": [90.0, 90.0]}
    mine = {"a": [3.0, 3.1], "b": [0.9, 3.0], "c": [1.12, 1.12], "whole": [40.0, 40.0]}
    assert clearly_slower(mine, theirs, ["a", "b", "c", "d"]) == ["a"]
    assert clearly_slower(mine | {"whole": [400.0]}, theirs, ["a", "b", "c", "d"]) == []


def _task() -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4))
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    return Task(model.eval(), batches[0][0][:2], batches, batches, validation=batches)


def _briefly(sessions: Any, inputs: Any, baseline: str, seconds: float, seed: int) -> Any:
    return compare(sessions, inputs, baseline, 0.1, seed)


def test_profiles_of_both_files_name_the_same_layers(tmp_path: Path) -> None:
    task, target, rounding = _task(), all_targets()["x86-server"], Quantize(samples=8)
    network, runtime = capture(task.model, task.example), OnnxRuntime()
    instruments = Instruments(timer=_briefly, peak=lambda *_: None)
    evaluator = FileEvaluator(
        task, network, target, tmp_path, 0.95, 0, runtime, instruments=instruments
    )
    original = evaluator.baseline(Watch())
    proposal = Proposal(Candidate.of([rounding], runtime.name), INT8)
    rounded = evaluator.evaluate(proposal, Watch())
    slower = evaluator.slower_layers(rounded, original)
    assert slower is not None
    assert set(slower) <= {"0", "3"}
    paths = [tmp_path / str(trial.artifact) for trial in (rounded, original)]
    files = [(runtime, runtime.artifact(path)) for path in paths]
    profiles = _profiles(files, as_arrays(task.example[:1]), 8, instruments)
    assert profiles is not None
    assert all({"0", "3"} <= set(profile) for profile in profiles)
    (recipe,) = in_float((rounding,), ["3"])
    assert isinstance(recipe, Quantize)
    kept = recipe(network, task)
    assert [str(layer.meta["layer"]) for layer in weight_qparams(kept)] == ["0"]


def test_a_target_without_int8_is_a_problem_of_quantized_networks() -> None:
    target, task = all_targets()["x86-server"], _task()
    network = Quantize(samples=8)(capture(task.model, task.example), task)
    assert OnnxRuntime().problems(network, target) == []
    target = replace(target, precisions=("float32",))
    (line,) = OnnxRuntime().problems(network, target)
    assert line == "the network is quantized, and x86-server has no int8; it has float32"
    assert OnnxRuntime().problems(capture(nn.Linear(3, 2), torch.randn(2, 3)), target) == []
