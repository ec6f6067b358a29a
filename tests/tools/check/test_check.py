"""Check: every rule holds and breaks as its limit says, and what can't be judged is told first."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from penjing.contract import Artifact, Latency, Placement, Session
from penjing.errors import InputError, MachineError, UnsafeError
from penjing.measure.scores import Scores, judge
from penjing.network import capture
from penjing.passes.rounding.quantize import Quantize
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.runtimes.onnx.session import OnnxSession
from penjing.tasks.metrics import Metric, correct
from penjing.tools.check.budgets import read_budgets
from penjing.tools.check.check import Checked, check
from penjing.tools.check.rules import RULES
from penjing.tools.inputs import as_recorded
from penjing.trials.evaluation.instruments import Instruments
from tests import bad_tasks

TASK = 'task = "tests.bad_tasks:good"\n'


SAME = Latency(1.0, 1.0, 1.0, 1.0, 1.0, 15)


def _record(artifact: Artifact) -> Path:
    """Say beside the file that penjing wrote it, so that no other process has to try it."""
    told = {"file": artifact.path.name, "sha256": artifact.sha256, "runtime": artifact.runtime}
    (artifact.path.parent / "export.json").write_text(json.dumps(told))
    return artifact.path


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files: `float`, `int8` whose sums may overflow, and `other` of another task."""
    folder, task, runtime = tmp_path_factory.mktemp("files"), bad_tasks.good(), OnnxRuntime()
    network = capture(task.model, task.example)
    careless = OnnxRuntime()
    careless.overflows = False  # type: ignore[misc]
    made: dict[str, Callable[[Path], Artifact]] = {
        "float": lambda path: runtime.lower(network, path),
        "int8": lambda path: careless.lower(Quantize(overflow_fix=False)(network, task), path),
        "other": lambda path: runtime.lower(capture(nn.Linear(3, 2), torch.zeros(2, 3)), path),
    }
    for name, make in made.items():
        (folder / name).mkdir()
        _record(make(folder / name / "model.onnx"))
    return folder


@pytest.fixture
def checked(files: Path) -> Callable[..., Checked]:
    """Check what a text says, with a timer and a memory that are told what to say."""

    def check_text(
        text: str,
        ratio: float = 1.0,
        peak: int | None = 50_000_000,
        timer: Callable[..., dict[str, Latency]] | None = None,
    ) -> Checked:
        (files / "penjing.toml").write_text(text)

        def told(
            sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
        ) -> dict[str, Latency]:
            latency = Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 15)
            return {name: SAME if name == baseline else latency for name in sessions}

        instruments = Instruments(timer=timer or told, peak=lambda *_: peak)
        return check(read_budgets(files / "penjing.toml"), instruments)

    return check_text


def _file(name: str, *rules: str, reference: str = "float") -> str:
    lines = [f'path = "{name}/model.onnx"', *rules]
    if reference != name:
        lines.insert(1, f'reference = "{reference}/model.onnx"')
    return "\n".join(["[[file]]", *lines, ""])


LIMITS = {
    "max_kb": ("int8", "20", "0.5"),
    "no_operators_on": ("int8", '["gpu", "npu"]', '["gpu", "cpu"]'),
    "no_saturation": ("float", "true", None),  # that of `int8` breaks it, below
    "max_memory_mb": ("int8", "50", "49.99"),
    "max_time_ratio": ("int8", "0.98", "0.97"),
    "min_score": ("int8", "0.5", "1.1"),
    "max_score": ("int8", None, None),  # the metric is one of which more is better, below
    "min_same_decisions": ("int8", "0.9", None),  # a file of other weights breaks it, below
    "max_drop": ("int8", "10", None),
    "max_drop_to_reference": ("int8", "10", None),
}
"""By rule: a file, a limit that it keeps and a limit that it breaks."""


def test_the_table_has_every_rule() -> None:
    assert LIMITS.keys() == RULES.keys()


@pytest.mark.parametrize("key", LIMITS)
def test_a_rule_holds_within_its_limit_and_breaks_beyond(
    key: str, checked: Callable[..., Checked]
) -> None:
    name, *limits = LIMITS[key]
    for limit, kept in zip(limits, (True, False), strict=True):
        if limit is not None:
            (verdict,) = checked(TASK + _file(name, f"{key} = {limit}")).verdicts
            assert (verdict.file, verdict.rule) == (f"{name}/model.onnx", key)
            assert verdict.kept is kept
            begin = "kept    " if kept else "BROKEN  "
            assert verdict.line.startswith(f"{begin}{name}/model.onnx: {key} = {limit}: ")


def test_the_limit_itself_is_kept(checked: Callable[..., Checked], files: Path) -> None:
    size = (files / "int8/model.onnx").stat().st_size
    assert not checked(_file("int8", f"max_kb = {size / 1000}")).broken
    assert checked(_file("int8", f"max_kb = {(size - 1) / 1000}")).broken


def test_sums_that_may_overflow_break_a_rule_with_their_layers(
    checked: Callable[..., Checked],
) -> None:
    (verdict,) = checked(_file("int8", "no_saturation = true")).broken
    assert verdict.measured
    assert "can overflow 16 bits on x86 processors without VNNI" in verdict.text


def test_operators_that_fell_back_are_told_with_the_reason(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    placed = [Placement("conv", "CONV_2D", "npu"), Placement("head", "SOFTMAX", "cpu", "too wide")]
    monkeypatch.setattr(OnnxRuntime, "placement", lambda *_: placed)
    (verdict,) = checked(_file("float", 'no_operators_on = ["cpu"]')).broken
    assert verdict.text == (
        "has 1 of 2 operators there: 1 operator fell back to the CPU: 1 SOFTMAX in head (too wide)"
    )


@pytest.fixture
def untrained(files: Path) -> str:
    """A file of the same shape that decides by chance."""
    (files / "untrained").mkdir(exist_ok=True)
    torch.manual_seed(1)
    network = capture(bad_tasks.Small().eval(), bad_tasks.samples(2, 0)[0])
    _record(OnnxRuntime().lower(network, files / "untrained/model.onnx"))
    return "untrained"


def test_a_file_that_answers_otherwise_breaks_all_rules_of_answers(
    untrained: str, checked: Callable[..., Checked]
) -> None:
    rules = ("min_score = 0.9", "max_drop = 10", "max_drop_to_reference = 10",
             "min_same_decisions = 0.9")  # fmt: skip
    told = checked(TASK + _file(untrained, *rules))
    assert {verdict.rule for verdict in told.broken} == {rule.split()[0] for rule in rules}
    kept = checked(TASK + _file("int8", *rules, reference=untrained))
    assert not kept.broken
    lost = {verdict.rule: verdict.measured for verdict in kept.verdicts}
    assert lost["max_drop_to_reference"]["drop"] < -10 < lost["max_drop"]["drop"]


def test_what_holds_for_all_rules_reaches_them(
    untrained: str, files: Path, checked: Callable[..., Checked]
) -> None:
    timed: list[float] = []

    def timer(
        sessions: Mapping[str, Session], inputs: Any, baseline: str, seconds: float, seed: int
    ) -> dict[str, Latency]:
        (name,) = sessions.keys() - {baseline}
        for session, path in ((sessions[baseline], "float"), (sessions[name], untrained)):
            with as_recorded(files / path / "model.onnx") as (_, _, wanted):
                assert (session.run(inputs) == wanted.run(inputs)).all()
        timed.append(seconds)
        return {baseline: SAME, name: SAME}

    bounds = {}
    for confidence in (0.8, 0.99):
        text = f"{TASK}seconds = 7\nconfidence = {confidence}\n"
        text += _file(untrained, "max_drop = 99", "max_time_ratio = 1.0")
        _, verdict = checked(text, timer=timer).verdicts
        bounds[confidence] = verdict.measured["bound"]
        assert verdict.measured["drop"] < bounds[confidence]
    assert bounds[0.8] < bounds[0.99]
    assert timed == [7, 7]


def test_it_is_the_bound_that_must_keep_a_budget(
    untrained: str, checked: Callable[..., Checked]
) -> None:
    text = TASK + _file(untrained, "max_drop = 99")
    (verdict,) = checked(text).verdicts
    drop, bound = verdict.measured["drop"], verdict.measured["bound"]
    assert checked(text.replace("99", str((drop + bound) / 2))).broken
    assert not checked(text.replace("99", str(bound))).broken


def test_less_may_be_better(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = Metric("errors", lambda y, t: 1 - correct(y, t), higher=False)
    task = bad_tasks.good(metric=errors)
    monkeypatch.setattr("tests.bad_tasks.good", lambda: task)
    text = TASK + _file("float", "max_score = 0.2")
    (verdict,) = checked(text).verdicts
    assert verdict.kept
    assert checked(text.replace("0.2", str(verdict.measured - 1e-9))).broken
    with pytest.raises(
        InputError, match=r"min_score can't hold for the metric .*; write max_score"
    ):
        checked(text.replace("max_score", "min_score"))


# ---- what is told before anything is measured


def _never(*_: Any) -> dict[str, Latency]:
    raise AssertionError("something was timed")


TIMED = _file("int8", "max_time_ratio = 1.0")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (TASK + TIMED + _file("absent", "max_kb = 1"),
         r"toml, file absent/model\.onnx: path is absent/model\.onnx, but there is no file "),
        (TASK + _file("int8", "max_time_ratio = 1.0", reference="absent"),
         r"toml, file int8/model\.onnx: reference is absent/model\.onnx, but there is no file"),
        (TASK + TIMED + _file("float", 'runtime = "onnxrutnime"', "max_kb = 1"),
         r"file float/model\.onnx: no runtime 'onnxrutnime'; did you mean 'onnxruntime'"),
        (TASK + TIMED + _file("float", 'runtime = "onnxruntime"', "max_score = 1"),
         r"max_score can't hold for the metric accuracy, of which a higher figure is better"),
        (TASK + TIMED + _file("other", "min_score = 0.1"),
         r"file other/model\.onnx: other/model\.onnx fails on test data of shape \[16, 3"),
        (TASK + _file("int8", "max_time_ratio = 1", reference="other"),
         r"inputs differ: other/model\.onnx takes float32 of 1 x 3, int8/model\.onnx takes "),
        (TASK + TIMED + _file("float", "max_drop = 1"),
         r"64 test samples can't certify max_drop = 1 point with 95 % confidence, not even for a "
         r"file that answers exactly alike; give \d+ test samples, or allow a larger max_drop"),
        (TASK + TIMED + _file("float", "max_drop = 0"), r"exactly alike; allow a larger max_drop"),
        (TASK + _file("int8", "max_time_ratio = 1", "max_drop_to_reference = 1"),
         r"can't certify max_drop_to_reference = 1 point"),
        (TASK.replace("good", "absent") + TIMED + _file("float", "min_score = 0"),
         r"tests\.bad_tasks:absent has no 'absent'"),
    ],
)  # fmt: skip
def test_what_cannot_be_judged_is_told_before_any_long_work(
    text: str, line: str, checked: Callable[..., Checked]
) -> None:
    with pytest.raises(InputError, match=line):
        checked(text, timer=_never)


def test_files_are_looked_at_before_the_task_is_read(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.bad_tasks.good", _never)  # it may train the model
    with pytest.raises(InputError, match="there is no file"):
        checked(TASK + _file("float", "min_score = 0") + _file("absent", "max_kb = 1"))
    monkeypatch.setattr(OnnxRuntime, "placement", lambda *_: [])
    with pytest.raises(InputError, match="can't be judged"):
        checked(TASK + _file("float", "min_score = 0", 'no_operators_on = ["cpu"]'))


def test_a_runtime_that_cannot_tell_is_no_pass(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxRuntime, "placement", lambda *_: [])
    with pytest.raises(InputError, match=r"no_operators_on can't be judged, because onnxruntime"):
        checked(_file("float", 'no_operators_on = ["cpu"]'))
    with pytest.raises(MachineError, match=r"max_memory_mb can't be judged here"):
        checked(_file("float", "max_memory_mb = 1"), peak=None)
    monkeypatch.setattr(OnnxRuntime, "name", "elsewhere")
    with pytest.raises(InputError, match=r"max_memory_mb can't be judged in elsewhere; its"):
        checked(_file("float", "max_memory_mb = 1"))
    monkeypatch.setattr(OnnxRuntime, "stand_in", True)
    with pytest.raises(InputError, match=r"max_time_ratio can't be judged, because elsewhere only"):
        checked(TIMED)


class Twice(nn.Module):
    """A model that gives its outputs two times."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y = self.model(x)
        return y, 2 * y


def test_decisions_need_the_outputs_of_the_model(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = TASK + _file("float", "min_same_decisions = 0.9")
    task = bad_tasks.good(Twice(bad_tasks.model()))
    monkeypatch.setattr("tests.bad_tasks.good", lambda: task)
    with pytest.raises(InputError, match=r"of shape \[16, 4\], \[16, 4\]; found \[16, 4\]"):
        checked(text)


def test_a_changed_file_is_refused(files: Path, checked: Callable[..., Checked]) -> None:
    text = _file("changed", "max_kb = 100")
    (files / "changed").mkdir()
    for name in ("model.onnx", "export.json"):
        (files / "changed" / name).write_bytes((files / "float" / name).read_bytes())
    assert not checked(text).broken
    (files / "changed/model.onnx").write_bytes(b"something else")
    with pytest.raises(UnsafeError, match=r"file changed/model\.onnx: .* has changed: sha256 "):
        checked(text)


def test_a_batch_that_a_file_does_not_take_is_told_wherever_it_comes(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = bad_tasks.samples(64, 2)
    batches = [(x[:48], y[:48]), (x[48:], y[48:])]
    task = bad_tasks.good(test=batches)
    monkeypatch.setattr("tests.bad_tasks.good", lambda: task)
    real = OnnxSession.run

    def only_48(session: OnnxSession, inputs: Any) -> Any:
        if len(inputs) != 48:
            raise RuntimeError("Got: 16 Expected: 48")
        return real(session, inputs)

    monkeypatch.setattr(OnnxSession, "run", only_48)
    with pytest.raises(InputError, match=r"shape \[16, 3, 8, 8\]: Got: 16 Expected: 48; name"):
        checked(TASK + _file("float", "min_score = 0"))


def test_a_bug_is_no_bad_input_and_no_broken_rule(checked: Callable[..., Checked]) -> None:
    def broken(*_: Any) -> dict[str, Latency]:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        checked(TIMED, timer=broken)


# ---- what is given back


def test_verdicts_come_in_the_order_of_files_as_plain_data(
    checked: Callable[..., Checked],
) -> None:
    text = TASK + _file("int8", "min_score = 2", "max_kb = 20") + _file("float", "max_kb = 20")
    told = checked(text)
    rows = [(verdict.file, verdict.rule) for verdict in told.verdicts]
    assert rows == [("int8/model.onnx", "max_kb"), ("int8/model.onnx", "min_score"),
                    ("float/model.onnx", "max_kb")]  # fmt: skip
    plain = json.loads(json.dumps(told.to_json()))
    assert plain["kept"] is False
    assert [row["kept"] for row in plain["rules"]] == [True, False, True]
    assert plain["rules"][1]["limit"] == 2
    assert plain["judged_on"]["threads"] == 1


def test_a_file_is_loaded_and_run_once(
    checked: Callable[..., Checked], monkeypatch: pytest.MonkeyPatch
) -> None:
    judged: list[Any] = []

    def counting(session: Session, *data: Any) -> Scores:
        judged.append(session)
        return judge(session, *data)

    monkeypatch.setattr("penjing.tools.check.subject.judge", counting)
    rules = ("min_score = 0", "max_drop = 10", "max_drop_to_reference = 10")
    checked(TASK + _file("int8", *rules) + _file("float", *rules[:2]))
    assert len(judged) == 3  # the two files and the original


def test_a_disturbed_time_is_told(checked: Callable[..., Checked]) -> None:
    def noisy(sessions: Mapping[str, Session], *_: Any) -> dict[str, Latency]:
        return dict.fromkeys(sessions, Latency(1.0, 1.0, 1.0, 0.5, 2.0, 15, disturbed=True))

    (verdict,) = checked(TIMED, timer=noisy).verdicts
    assert verdict.kept
    assert verdict.text.endswith(
        "; measured 3 times; the timing is unreliable, because other programs were running"
    )
