"""The promise: who certifies follows from sizes alone, and test certifies step by step."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from penjing.contract import Array, Drop, Latency, Measurement
from penjing.measure.scores import Means, Scores, drop
from penjing.network import capture
from penjing.report.answer import answer, certified
from penjing.report.markdown import page
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.targets import all_targets
from penjing.tasks.task import Task
from penjing.trials.evaluation.evaluator import FileEvaluator
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.certify import prove, way_to_chosen
from penjing.trials.judgement.choice import choose
from penjing.trials.judgement.promise import (
    MOST_CANDIDATES,
    MOST_TEST_EVALUATIONS,
    TEST,
    VALIDATION,
    Promise,
    promise_of,
)
from penjing.trials.ledger import Ledger
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial
from tests import fits


def _trial(title: str, ratio: float, bound: float, kb: float = 100) -> Trial:
    times = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20)
    lost = Drop(bound - 0.2, bound, 0.95, 1000)
    status = "baseline" if title == "original" else "kept"
    figures = Measurement(file_bytes=int(kb * 1000), latency=times, drop=lost)
    return fits.trial(title, (), status, "", figures)


ORIGINAL = _trial("original", 1.0, 0.0, kb=1000)
SAFE = _trial("safe", 0.8, 0.3, kb=50)
MIDDLE = _trial("middle", 0.6, 0.5)
FAST = _trial("fast", 0.4, 0.9)


def _chosen(*trials: Trial, goal: str = "latency") -> Result:
    best, why = choose(ORIGINAL, trials, Aim(goal))
    return Result("t", "cpu", "m", goal, 1.0, 0.95, 0, {}, ORIGINAL, trials, best.key, why)


def _way(result: Result) -> list[str]:
    return [trial.title for trial in way_to_chosen(result)]


ACCURATE = Means(np.ones(2)).least
"""How many samples certify where one can lose 1 at most, as by accuracy."""


def _right(wrong: int, samples: int = 1000) -> Array:
    return np.repeat([0.0, 1.0], [wrong, samples - wrong])


def _proven(result: Result, wrong: dict[str, int], samples: int = 1000) -> tuple[Result, list[str]]:
    """What becomes of candidates that get so many test samples wrong; and who was asked."""
    asked: list[str] = []

    def score(trial: Trial) -> Scores:
        asked.append(trial.title)
        return Means(_right(wrong.get(trial.title, 0), samples))

    return prove(result, score), asked


@pytest.mark.parametrize(
    ("validation", "test", "certified_by", "by_bound", "said"),
    [
        (450, 450, TEST, True, ""),
        (300, 10_000, TEST, True, ""),
        (10_000, 300, TEST, True, ""),
        (10_000, 299, VALIDATION, True, "299 test samples can't certify"),
        (700, 100, TEST, True, "neither 100 test samples nor 700 validation samples can certify"),
        (100, 100, TEST, False, "give 300 test samples, or a larger budget"),
        (100, 3000, TEST, False, "100 validation samples are too few to bound"),
    ],
)
def test_who_certifies_follows_from_the_sizes(
    validation: int, test: int, certified_by: str, by_bound: bool, said: str
) -> None:
    made = promise_of(1.0, 0.95, validation, test, ACCURATE)
    assert (made.certified_by, made.by_bound) == (certified_by, by_bound)
    assert said in made.note
    assert bool(said) == bool(made.note)
    corrected = 1 - 0.05 / MOST_CANDIDATES
    assert made.confidence == (corrected if certified_by == VALIDATION else 0.95)


def test_a_smaller_loss_at_most_needs_fewer_samples_and_no_budget_cant_be_certified() -> None:
    assert promise_of(1.0, 0.95, 450, 150, Means(np.full(2, 0.5)).least).note == ""
    assert (
        "no number of samples can certify a budget of 0 points"
        in promise_of(0, 0.9, 99, 99, ACCURATE).note
    )
    assert promise_of(100.0, 0.95, 1, 1, ACCURATE).note == ""


def _evaluator(original_scores: Array) -> FileEvaluator:
    """Of 130 test samples, and an original that is scored already."""
    batches = [(torch.zeros(100, 3), torch.zeros(100)), (torch.zeros(30, 3), torch.zeros(30))]
    model = torch.nn.Linear(3, 1)
    task = Task(model, torch.zeros(2, 3), train=batches, test=batches)
    network, target = capture(model, torch.zeros(2, 3)), all_targets()["cpu"]
    return FileEvaluator(
        task,
        network,
        target,
        Path(),
        0.95,
        0,
        OnnxRuntime(),
        _original_scores=Means(original_scores),
    )


def test_the_evaluator_bounds_as_the_promise_wants_once_the_original_is_measured() -> None:
    evaluator = _evaluator(np.ones(5000))
    assert evaluator.settle(1.0).certified_by == VALIDATION
    assert evaluator.confidence == 1 - 0.05 / MOST_CANDIDATES
    evaluator = _evaluator(np.full(5000, 0.4))
    assert evaluator.settle(1.0).certified_by == TEST  # 119 samples of which none loses over 0.4
    assert evaluator.confidence == 0.95
    assert evaluator.promise == promise_of(1.0, 0.95, 5000, 130, Means(np.full(2, 0.4)).least)
    resumed = _evaluator(np.full(5000, 0.4))
    resumed.hold_to(promise_of(1.0, 0.95, 10_000, 200, ACCURATE))
    assert resumed.promise.certified_by == VALIDATION
    assert resumed.confidence == 1 - 0.05 / MOST_CANDIDATES


def test_the_ledger_says_what_certifies_and_what_to_know_of_it(tmp_path: Path) -> None:
    ledger, made = Ledger.begin(tmp_path, _chosen()), promise_of(1.0, 0.95, 10_000, 200, ACCURATE)
    ledger.record(ORIGINAL)
    ledger.promise(made)
    ledger.publish()
    kept = Result.load(tmp_path)
    assert kept.certified_by == VALIDATION
    assert kept.notes[-1].startswith("200 test samples can't certify a budget of 1 point with 95 %")
    ledger.close()
    resumed = Ledger.resumed(tmp_path)
    assert resumed is not None
    assert resumed.promised == made
    resumed.close()


def test_validation_judges_by_the_bound_and_where_it_is_too_small_by_the_drop() -> None:
    lost = Drop(0.4, 1.3, 0.95, 200)
    assert Promise(1.0).judge(lost) == (
        "over budget",
        "may lose 1.30 points, with 95 % confidence, and the budget is 1",
    )
    assert Promise(1.0, by_bound=False).judge(lost) == ("kept", "")
    over = ("over budget", "loses 1.40 points, and the budget is 1")
    assert Promise(1.0, by_bound=False).judge(replace(lost, drop=1.4)) == over


def test_the_way_leads_from_the_safest_to_the_chosen_one() -> None:
    worse = _trial("slower, and less safe than safe", 0.9, 0.4)
    assert _way(_chosen(FAST, worse, SAFE, MIDDLE)) == ["safe", "middle", "fast"]
    assert _way(_chosen(FAST, SAFE, MIDDLE, goal="size")) == ["safe"]
    assert _way(_chosen()) == []
    no_gain = _trial("safer than any, but no faster", 0.99, 0.1)
    assert _way(_chosen(FAST, no_gain)) == ["fast"]
    many = [_trial(str(n), 0.9 - 0.08 * n, 0.2 + 0.09 * n) for n in range(9)]
    assert _way(_chosen(*many)) == ["0", "5", "8"]  # by the ratio of times
    assert MOST_TEST_EVALUATIONS == 4


def test_a_milder_cut_is_a_way_back_though_it_looks_no_safer() -> None:
    """What an hour found isn't given up for integers alone because of the luck of a few samples."""
    whole, mild = _trial("int8", 0.31, 0.29), _trial("mild", 0.21, 0.66)
    far, farther = _trial("far", 0.14, 0.65), _trial("farther", 0.13, 0.75)
    assert _way(_chosen(whole, mild, far, farther)) == ["int8", "mild", "farther"]
    result, _ = _proven(_chosen(whole, mild, far, farther), {"int8": 0, "mild": 2, "farther": 9})
    assert result.chosen == "mild"


def test_what_loses_nothing_has_no_milder_way_back() -> None:
    """A slower cut that changes answers isn't tested before integers that change none."""
    same = _trial("int8", 0.31, 0.2)
    assert same.drop is not None
    assert same.drop.drop == 0.0
    slower, fast = _trial("slower", 0.8, 0.25), _trial("fast", 0.14, 0.65)
    assert _way(_chosen(same, slower, fast)) == ["int8", "fast"]
    assert _way(_chosen(same, slower)) == ["int8"]
    cut = _trial("cut", 0.2, 0.2)
    assert _way(_chosen(same, slower, cut)) == ["int8", "cut"], "if both lose nothing, it is milder"


def test_all_that_pass_on_the_way_make_the_chosen_one_the_answer() -> None:
    result, asked = _proven(_chosen(FAST, SAFE, MIDDLE), {"safe": 1, "middle": 2, "fast": 3})
    assert asked == ["original", "safe", "middle", "fast"]
    assert (result.chosen, result.test_evaluations, result.notes) == ("fast", 3, ())
    assert result.reason == "it is the fastest of 3 candidates that keep the budget"
    assert result.test_drop == drop(_right(0), _right(3), 0.95)
    assert (result.test_baseline, result.test_score) == (1.0, 0.997)
    assert "On 1000 test samples its accuracy is 99.70 %, and the original's is 100.00 %." in page(
        result
    )


def test_the_bound_on_test_decides_and_what_lies_behind_is_not_tested() -> None:
    result, asked = _proven(_chosen(FAST, SAFE, MIDDLE), {"safe": 1, "middle": 6, "fast": 0})
    assert asked == ["original", "safe", "middle"]
    bound = drop(_right(0), _right(6)).bound
    figures = (
        f"keeps the budget: on 1000 test samples it loses 0.60 points, and with 95 % confidence at "
        f"most {bound:.2f}, and the budget is 1"
    )
    assert (result.chosen, result.test_evaluations, result.test_score) == ("safe", 2, 0.999)
    assert result.test_drop == drop(_right(0), _right(1), 0.95)
    assert result.reason == (
        "it is the best candidate that the test data confirms; the test data can't confirm that "
        f"middle {figures}"
    )
    assert result.find("middle").status == Status.OVER_ON_TEST
    assert result.find("middle").reason == (
        f"is not confirmed: the test data can't show that it {figures}"
    )
    assert result.find("fast").status == "kept"
    untested = "was not tested, because middle, which is safer, failed on the test data"
    assert result.find("fast").reason == untested
    assert result.notes == ("2 candidates were evaluated on the test data, the safest first",)


@pytest.mark.parametrize(
    ("trials", "wrong", "why"),
    [
        ([], 0, "no candidate was finished"),
        ([FAST], 23, "the test data confirms no candidate; fast was selected on validation, but "
         "loses 2.30 points on the test data"),
        ([SAFE, FAST], 6,
         "the test data confirms no candidate; the test data can't confirm that safe keeps"),
    ],
)  # fmt: skip
def test_where_the_safest_fails_on_test_the_original_is_the_answer(
    trials: list[Trial], wrong: int, why: str
) -> None:
    result, asked = _proven(_chosen(*trials), {trial.title: wrong for trial in trials})
    assert len(asked) == 1 + bool(trials)
    assert (result.chosen, result.test_score, result.test_drop) == ("original", 1.0, None)
    assert result.reason.startswith(why)
    assert certified(result) == "On the test data the original's accuracy is 100.00 %."
    assert answer(replace(result, finished=True)).startswith(f"The original is the answer: {why}")


def _over(trial: Trial) -> Trial:
    """The trial with a bound on validation that is over the budget, and a drop that isn't."""
    assert trial.drop is not None
    lost = Drop(0.5, trial.drop.bound + 1, 0.95, 1000)
    figures = replace(trial.measurement, drop=lost)
    return replace(trial, status=Status.OVER_BUDGET, reason="may lose more", measurement=figures)


def test_what_no_bound_on_validation_decides_the_test_data_does() -> None:
    lost = _trial("lost", 0.2, 2.0)
    lost = replace(lost, status=Status.OVER_BUDGET, reason="drop 1.80")
    some = (_over(FAST), lost, _over(SAFE))
    result, asked = _proven(_chosen(*some), {"safe": 1, "fast": 2, "lost": 0})
    assert asked == ["original", "safe", "fast"]
    assert result.chosen == "fast"
    assert "judged on validation by the measured loss alone; the test data" in result.reason
    assert result.find("fast").status == "kept"
    assert result.find("fast").reason == (
        "was selected by its measured loss alone, because it may lose more"
    )
    assert result.find("lost") == lost

    result, asked = _proven(_chosen(*some), {"safe": 6, "fast": 0})
    assert asked == ["original", "safe"]
    assert result.chosen == "original"
    assert result.reason.startswith(
        "no candidate that betters the original keeps the budget by its bound; the test data "
        "confirms no candidate; the test data can't confirm that safe keeps the budget: on 1000"
    )
    assert [trial.status for trial in result.trials] == ["over budget"] * 2 + [Status.OVER_ON_TEST]

    result, asked = _proven(_chosen(*some, MIDDLE), {"middle": 9})
    assert asked == ["original", "middle"]
    certain = replace(_chosen(*some), certified_by=VALIDATION)
    assert _proven(certain, {})[1] == ["original"]


def test_what_validation_almost_lets_in_is_tested_behind_the_chosen_one() -> None:
    """A drop within the budget whose bound isn't: other samples may show that it keeps it."""
    nearly = _over(FAST)
    result, asked = _proven(_chosen(SAFE, MIDDLE, nearly), {"safe": 0, "middle": 1, "fast": 2})
    assert asked == ["original", "safe", "middle", "fast"]
    assert (result.chosen, result.find("fast").status) == ("fast", Status.KEPT)
    assert "by the measured loss alone" in result.reason

    result, asked = _proven(_chosen(SAFE, MIDDLE, nearly), {"fast": 6})
    assert asked == ["original", "safe", "middle", "fast"]
    assert (result.chosen, result.find("fast").status) == ("middle", Status.OVER_ON_TEST)
    assert "the test data can't confirm that fast keeps the budget" in result.reason

    for none in (_over(SAFE), replace(nearly, status=Status.FAILED)):
        result, asked = _proven(_chosen(MIDDLE, none), {})
        assert asked == ["original", "middle"]
        assert result.reason == _chosen(MIDDLE, none).reason


def test_where_validation_certifies_test_only_reports() -> None:
    chosen = replace(_chosen(FAST, SAFE), certified_by=VALIDATION)
    result, asked = _proven(chosen, {"fast": 7}, samples=100)
    assert asked == ["original", "fast"]
    assert (result.chosen, result.reason) == ("fast", chosen.reason)
    assert result.test_drop == drop(_right(0, 100), _right(7, 100), 0.95)
    said = certified(result)
    assert said.startswith("The validation data certifies it: on 1000 samples with 95 % confidence")
    assert "On 100 test samples its accuracy is 93.00 %, and the original's is 100.00 %." in said
    alone, asked = _proven(replace(_chosen(), certified_by=VALIDATION), {})
    assert (alone.chosen, asked, alone.test_drop) == ("original", ["original"], None)


def test_the_result_remembers_what_certified() -> None:
    result = replace(_chosen(FAST), certified_by=VALIDATION)
    data = result.to_json()
    assert Result.from_json(data) == result
    del data["certified_by"]  # of an earlier version
    assert Result.from_json(data).certified_by == TEST


def test_what_changes_no_answer_is_safer_than_what_gained_by_chance() -> None:
    """Half a percent won and as much lost elsewhere is a wide bound around a lucky figure."""

    def of(title: str, ratio: float, lost: float, bound: float) -> Trial:
        plain = _trial(title, ratio, bound)
        figures = replace(plain.measurement, drop=Drop(lost, bound, 0.95, 450))
        return replace(plain, measurement=figures)

    still, lucky = of("still", 0.7, 0.0, 0.67), of("lucky", 0.8, -0.67, 0.21)
    fast = of("fast", 0.3, -0.45, 0.37)
    assert _way(_chosen(still, lucky, fast)) == ["still", "fast"]
