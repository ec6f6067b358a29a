"""The advice: every method is tried or says why not, and no estimate passes for a measurement."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from typer.testing import CliRunner

import penjing
from penjing.cli.advise import spelled
from penjing.cli.app import app
from penjing.errors import InputError
from penjing.passes import Compensate
from penjing.report.advice import advice_lines
from penjing.search.advice.advise import AdviceOptions, advise
from penjing.search.advice.outlook import MACS, TIME, Advice
from penjing.search.advice.verdict import (
    CANT,
    FIRST,
    MAY_PAY,
    NO,
    NOT_TRIED,
    PAYS,
    SMALLER,
    TOO_MUCH,
    UNCLEAR,
)
from penjing.tasks.task import Task
from tests.instruments import Another, Direct, Told, only, small_task
from tests.reference_networks import self_taught

VERDICTS = {CANT, FIRST, MAY_PAY, NO, NOT_TRIED, PAYS, SMALLER, TOO_MUCH, UNCLEAR}
FAMILIES = {
    "float", "8-bit integers", "blocks removed", "channels removed", "low rank", "sparse weights",
    "shared weights", "fewer bits",
}  # fmt: skip


def faster_and_faster() -> Told:
    """Each file takes 0.9 of the time of the one before."""
    told = Told(lambda name: 0.9 ** len(told.sittings) if name == "file" else 1.0)
    return told


def advised(
    monkeypatch: pytest.MonkeyPatch, task: Task, told: Told | None = None, minutes: float = 2.0
) -> Advice:
    """The advice for runtimes that take no time."""
    target = only(monkeypatch, Direct, Another)
    monkeypatch.setattr("penjing.search.advice.advise.find_target", lambda _: target)
    told = told or faster_and_faster()
    return advise(task, "cpu", minutes, AdviceOptions(instruments=told.instruments()))


@pytest.mark.parametrize("name", ["plain_cnn", "resnet_a", "mobilenet_v2", "vit_by_hand"])
def test_each_family_is_tried_or_says_why_not(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    advice = advised(monkeypatch, self_taught(name))
    assert {outlook.family for outlook in advice.outlooks} == FAMILIES
    assert advice.speed == TIME
    assert not advice.is_estimate
    assert advice.first == advice.outlooks[0].title
    for outlook in advice.outlooks:
        assert outlook.verdict in VERDICTS
        assert outlook.why
        assert (outlook.figures is None) == (outlook.verdict in (CANT, NOT_TRIED))
    assert json.loads(json.dumps(advice.to_json()))["estimate"] is False


def test_what_is_said_can_be_read_in_narrow_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, self_taught("resnet_a"))
    lines = [
        line if isinstance(line, str) else line[0]
        for line in advice_lines(advice, "penjing fit TASK", 80)
    ]
    assert all(len(line) <= 80 for line in lines)
    for outlook in advice.outlooks:
        assert outlook.title in " ".join(" ".join(lines).split())


def test_the_recommended_command_is_understood(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, self_taught("vit_by_hand"))
    name, command, *arguments = shlex.split(spelled(advice.recommended, "a task.py"))
    assert name == "penjing"
    assert "epochs of training" in advice.recommended.why
    help_page = CliRunner().invoke(app, [command, "--help"]).stdout
    assert all(word in help_page for word in arguments if word.startswith("--"))


def test_nothing_that_saves_no_time_is_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, self_taught("resnet_a"), Told(lambda _: 1.0))
    assert not any(o.verdict == PAYS for o in advice.outlooks)
    assert "epochs of training" not in advice.recommended.why


def test_without_time_only_what_must_be_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, self_taught("resnet_a"), minutes=1e-6)
    tried = {o.family for o in advice.outlooks if o.verdict != NOT_TRIED}
    assert tried == {"float", "8-bit integers"}


def test_a_device_that_is_not_here_is_judged_by_estimates() -> None:
    advice = advise(self_taught("plain_cnn"), "raspberry-pi-5")
    assert advice.speed == MACS
    assert advice.is_estimate
    by_family = {o.family: o for o in advice.outlooks}
    assert by_family["8-bit integers"].verdict == MAY_PAY  # since four fit where one float does
    assert by_family["channels removed"].verdict == MAY_PAY
    assert advice.recommended.options["target"].startswith("ssh://")


def test_a_network_without_blocks_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, self_taught("plain_cnn"))
    (blocks,) = [o for o in advice.outlooks if o.family == "blocks removed"]
    assert blocks.verdict == CANT
    assert "no two blocks" in blocks.why


def test_a_network_that_cannot_be_trained_gets_no_long_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(*_: object) -> float:
        raise InputError("no weight can be trained")

    monkeypatch.setattr("penjing.trials.evaluation.networks.step_seconds", refuses)
    advice = advised(monkeypatch, self_taught("resnet_a"))
    assert "the network can't be trained: no weight can be trained" in advice.notes
    assert all(outlook.expected is None for outlook in advice.outlooks)
    assert "epochs of training" not in advice.recommended.why


def test_a_model_that_has_learnt_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    task = small_task()
    with torch.no_grad():
        task.model[3].weight.zero_()  # type: ignore[index]
    advice = advised(monkeypatch, task)
    assert any("no better than chance" in note for note in advice.notes)
    assert advice.recommended.why.startswith("the model is no better than chance")


def test_few_training_samples_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    advice = advised(monkeypatch, small_task())
    assert any("120 training samples" in note for note in advice.notes)


def test_what_other_programs_disturbed_pays_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    told = faster_and_faster()
    told.disturbed = ("file",)
    advice = advised(monkeypatch, self_taught("resnet_a"), told)
    timed = [o for o in advice.outlooks if o.figures and o.title != advice.first]
    assert all(o.verdict in (UNCLEAR, TOO_MUCH) for o in timed)


def test_integers_that_lose_too_much_are_not_cut_further(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penjing.search.advice.verdict.MOST_LOST", -1.0)  # so all lose too much
    advice = advised(monkeypatch, small_task())
    by_title = {o.title: o for o in advice.outlooks}
    assert by_title["int8 in direct"].verdict == TOO_MUCH
    assert "Quantize" not in str(by_title["25 % of the channels gone"].recipe)


def test_a_bug_in_a_pass_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(Compensate, "begin", fails)
    with pytest.raises(ZeroDivisionError):
        advised(monkeypatch, self_taught("resnet_a"))


@pytest.mark.parametrize("minutes", [0.0, -1.0, float("nan"), float("inf")])
def test_minutes_that_are_none(minutes: float) -> None:
    with pytest.raises(InputError, match="`minutes` must be a positive number"):
        advise("digits", minutes=minutes)


def test_a_target_that_is_an_address_is_refused() -> None:
    with pytest.raises(InputError, match="ssh://pi@there"):
        advise("digits", "ssh://pi@there")


def test_it_is_part_of_the_face() -> None:
    assert penjing.advise is advise
