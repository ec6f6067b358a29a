"""Reports: every candidate has its row, each cell is its trial's figure, and none is made up; and
whatever is printed fits the terminal."""

from __future__ import annotations

import io
import random
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from penjing.contract import Drop, Latency, Measurement
from penjing.report.answer import answer, certified
from penjing.report.markdown import page
from penjing.report.plot import Labels, plot
from penjing.report.screen import Screen
from penjing.report.table import GROUPS, candidates_table, headings, reasons, rows, that_matter
from penjing.report.write import write_report
from penjing.trials.judgement.aim import Aim
from penjing.trials.judgement.choice import choose, with_pareto
from penjing.trials.judgement.verdicts import verdicts
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial
from tests.fits import trial

RUNTIMES = ("onnxruntime", "openvino", "litert", "executorch")


def _measurement(draw: random.Random) -> Measurement:
    """Figures of which each may be missing."""
    ms, ratio = draw.uniform(0.1, 9), draw.uniform(0.2, 3)
    latency = Latency(
        ms, 1.2 * ms, ratio, 0.9 * ratio, 1.1 * ratio, 9, disturbed=draw.random() < 0.3
    )
    drop = Drop(draw.uniform(-1, 3), draw.uniform(3, 5), 0.95, 500)
    return Measurement(
        score=draw.choice([None, draw.random()]),
        metric="top-1",
        drop=draw.choice([None, drop]),
        latency=draw.choice([None, latency]),
        file_bytes=draw.choice([None, draw.randrange(10**6)]),
    )


def _result(seed: int) -> Result:
    draw = random.Random(seed)
    original = trial("original", (), "baseline", measurement=_measurement(draw))
    statuses = [status for status in Status if status != Status.BASELINE]
    trials = tuple(
        trial(f"way {k}", (), draw.choice(statuses), f"reason {k}", _measurement(draw))
        for k in range(draw.randrange(8))
    )
    best = draw.choice([original, *trials])
    return Result(
        "task", "cpu", "machine", "latency", 1.0, 0.95, 0, {"torch": "2.11"}, original, trials,
        best=best.key, reason="it is the best", notes=("a note",), verdicts=("A verdict.",),
    )  # fmt: skip


def _of_many(seed: int, name: str = "") -> Result:
    """A finished fit of 16 candidates in four runtimes, chosen and judged as a real one is."""
    draw = random.Random(seed)

    def measured(ratio: float, lost: float) -> Measurement:
        low, high = (ratio, ratio) if ratio == 1 else (0.97 * ratio, 1.03 * ratio)
        times = Latency(4 * ratio, 5 * ratio, ratio, low, high, 20, draw.random() < 0.1)
        drop = Drop(lost, lost + draw.uniform(0.1, 0.9), 0.95, 1000)
        return Measurement(
            score=0.98 - lost / 100, latency=times, drop=drop, file_bytes=draw.randrange(10**6)
        )

    original = trial("original", (), "baseline", measurement=measured(1.0, 0.0))
    trials = []
    for k in range(16):
        figures = measured(draw.choice([0.3, 0.31, 0.5, 1.1]), draw.choice([0.0, 0.1, 1.5, 60.0]))
        assert figures.drop is not None
        status = "kept" if figures.drop.bound <= 1 else "over budget"
        title = f"prune {k} % + int8 {name}in {RUNTIMES[k % 4]}"
        recipe = ({"method": f"Pass{name}{k}"},)
        trials.append(
            trial(title, recipe, status, f"reason {k // 3}", figures, runtime=RUNTIMES[k % 4])
        )
    baseline, *marked = with_pareto([original, *trials])
    best, why = choose(baseline, marked, Aim())
    result = Result(
        "task", "cpu", "this machine", "latency", 1.0, 0.95, 0, {"torch": "2"}, baseline,
        tuple(marked), best.key, why, f"model{name}.onnx", 0.981, 0.984, Drop(0.3, 0.6, 0.95, 500),
        finished=True, files=("report.md", "plot.png"), notes=(f"{name * 3} is a note",),
    )  # fmt: skip
    return Result.from_json({**result.to_json(), "verdicts": list(verdicts(result))})


def _cell(row: tuple[str, ...], result: Result, heading: str) -> str:
    return row[[name.split("\n")[0] for name in headings(result)].index(heading)]


def _of(result: Result, title: str) -> Trial:
    return next(one for one in result.everything if one.title == title)


@pytest.mark.parametrize("seed", range(20))
def test_each_row_holds_the_figures_of_its_trial_and_no_others(seed: int) -> None:
    result = _result(seed)
    table = rows(result)
    assert sorted(row[0] for row in table) == sorted(one.title for one in result.everything)
    assert table[0][0] == "original"
    for row in table:
        figures = _of(result, row[0]).measurement
        wanted = {
            "top-1": None if figures.score is None else 100 * figures.score,
            "time": figures.latency.latency_ms if figures.latency else None,
            "time vs.": figures.latency.ratio if figures.latency else None,
            "file": None if figures.file_bytes is None else figures.file_bytes / 1000,
            "lost": figures.drop.drop if figures.drop and row[0] != "original" else None,
            "at most": figures.drop.bound if figures.drop and row[0] != "original" else None,
        }
        for name, figure in wanted.items():
            cell = _cell(row, result, name).removesuffix("?")
            assert (cell == "") == (figure is None)
            assert figure is None or abs(float(cell) - figure) <= 0.051
        disturbed = figures.latency is not None and figures.latency.disturbed
        assert _cell(row, result, "time vs.").endswith("?") == disturbed


@pytest.mark.parametrize("seed", range(20))
def test_candidates_stand_in_groups_and_there_in_the_order_of_their_time(seed: int) -> None:
    result = _result(seed)
    trials = [_of(result, row[0]) for row in rows(result)]
    groups = [list(GROUPS).index(trial.status) for trial in trials]
    assert groups == sorted(groups)
    for status in GROUPS:
        mine = [trial for trial in trials if trial.status == status]
        ratios = [trial.latency.ratio for trial in mine if trial.latency]
        assert ratios == sorted(ratios)
        assert all(trial.latency for trial in mine[: len(ratios)])


@pytest.mark.parametrize("seed", range(5))
def test_the_page_tells_all_and_the_plot_is_a_picture(seed: int, tmp_path: Path) -> None:
    result = _result(seed)
    assert write_report(result, tmp_path) == tmp_path / "report.html"
    text = (tmp_path / "report.md").read_text()
    assert text == page(result)
    assert f"**{answer(result)}**" in text
    for one in result.trials:
        assert f"- {one.title}: {one.reason}\n" in text
        assert one.status.words in text
    for line in ("- a note\n", "- A verdict.\n", "torch 2.11"):
        assert line in text
    picture = Image.open(io.BytesIO((tmp_path / "plot.png").read_bytes()))
    assert picture.size[0] == 960


def test_the_chosen_row_alone_is_marked() -> None:
    result = _result(3)
    lines = candidates_table(result)[3:]
    marked = [line for line, style in lines if style == "bold"]
    assert marked == [line for line, _ in lines if line.startswith("* ")]
    (line,) = marked
    assert line.startswith(f"* {result.chosen}")


# ---- what a terminal shows

LONG = "x" * 100 + " "


def _shown(result: Result, everything: bool = True) -> list[str]:
    whole, check = "penjing report fitted --all", "penjing verify fitted/model.onnx"
    screen = Screen(result, Path("fitted"), everything, whole, check, "import x")
    return [line for line, _ in screen.lines()]


@pytest.mark.parametrize("name", ["", LONG, "words and words and " * 5])
@pytest.mark.parametrize("seed", range(10))
def test_no_line_is_wider_than_the_terminal_but_for_paths(seed: int, name: str) -> None:
    for everything in (False, True):
        wide = [line for line in _shown(_of_many(seed, name), everything) if len(line) > 80]
        assert all("fitted/model" in line or line.startswith("  model") for line in wide)


@pytest.mark.parametrize("name", ["", LONG])
@pytest.mark.parametrize("seed", range(10))
def test_every_candidate_has_its_row_and_no_two_are_alike(seed: int, name: str) -> None:
    result = _of_many(seed, name)
    lines = [line for line, _ in candidates_table(result)]
    for cells in rows(result)[1:]:
        (line,) = [line for line in lines if line.split()[-6:] == list(cells[1:])]
        assert line[2:].startswith(cells[0].split(name or "+")[0].strip()[:20])
    below = lines[3:]
    starts = [at for at, line in enumerate(below) if len(line.split()) > 6]
    ends = [*starts[1:], len(below)]
    blocks = {"".join(below[a:b]) for a, b in zip(starts, ends, strict=True)}
    assert len(blocks) == 16


@pytest.mark.parametrize("seed", range(10))
def test_what_matters_is_shown_with_the_number_of_the_others(seed: int) -> None:
    result = _of_many(seed)
    shown = {trial.key for trial in that_matter(result)}
    assert {result.baseline.key, result.answer.key} <= shown
    assert {trial.key for trial in result.trials if trial.pareto} <= shown
    text = " ".join(_shown(result, everything=False))
    others = 17 - len(shown)
    assert (f"{others} other" in text) == bool(others)
    assert ("penjing report fitted --all" in text) == bool(others)
    assert all(verdict not in text for verdict in result.verdicts)


def test_all_of_it_has_every_row_reason_verdict_and_note() -> None:
    result = _of_many(4)
    lines = _shown(result)
    for cells in rows(result):
        figures = [cell for cell in cells[1:] if cell]
        assert [line for line in lines if line.split()[-len(figures) :] == figures]
    text = " ".join(" ".join(lines).split())
    for said in (*reasons(result), *result.verdicts, *result.notes):
        assert " ".join(said.split()) in text


@pytest.mark.parametrize("seed", range(10))
def test_the_answer_says_what_the_result_does(seed: int) -> None:
    result = _of_many(seed)
    said = " ".join(_shown(result))
    latency, mine = result.answer.latency, result.answer.measurement
    assert latency is not None
    assert mine.file_bytes is not None
    assert f"{result.chosen} is the answer: {result.reason}." in said
    assert f"takes {latency.ratio:.2f} of the original's time" in said
    times = result.baseline.measurement.file_bytes / mine.file_bytes  # type: ignore[operator]
    assert times < 2 or f"its file is {times:.1f} times smaller" in said
    assert "On 500 test samples its accuracy is 98.10 %, and the original's is 98.40 %." in said
    assert "With 95 % confidence it loses at most 0.60 points, and the budget is 1 point." in said


def _changed(result: Result, **changes: object) -> Result:
    return Result.from_json({**result.to_json(), **changes})


def test_each_way_to_end_has_its_sentence() -> None:
    result = _of_many(1)
    interrupted = _changed(result, finished=False, test_score=None, test_drop=None)
    assert answer(interrupted).startswith(
        f"The fit was interrupted. So far {result.chosen} is the best: {result.reason}."
    )
    assert certified(interrupted).endswith("so nothing is certified yet.")
    assert "penjing verify" not in " ".join(_shown(interrupted))
    original = _changed(result, best=result.baseline.key, test_drop=None)
    assert answer(original) == (f"The original in onnxruntime is the answer: {result.reason}.")
    assert certified(original) == "On the test data the original's accuracy is 98.40 %."
    drop = Drop(0.02, 0.03, 0.95, 500, "dB")
    in_decibels = certified(replace(result, test_drop=drop, unit="dB"))
    assert "With 95 % confidence it loses at most 0.03 dB, and the budget is 1 dB." in in_decibels
    validated = certified(_changed(result, certified_by="validation"))
    assert validated.startswith("The validation data certifies it: on 1000 samples with 95 %")
    assert "On 500 test samples its accuracy is 98.10 %" in validated


def test_the_same_reason_is_said_once_for_all_who_have_it() -> None:
    result = _of_many(2)
    lines = reasons(result)
    assert len(lines) == len({trial.reason for trial in result.trials})
    for one in result.trials:
        (line,) = [line for line in lines if line.endswith(f": {one.reason}")]
        assert one.title in line


@pytest.mark.parametrize("seed", range(4))
def test_texts_in_the_plot_never_overlap(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Labels] = []
    whole = Labels.__init__

    def remembered(self: Labels, *args: object) -> None:
        whole(self, *args)  # type: ignore[arg-type]
        made.append(self)

    monkeypatch.setattr(Labels, "__init__", remembered)
    plot(_of_many(seed))
    (labels,) = made
    assert len(labels.taken) == 18  # with the budget's
    boxes = labels.taken
    for at, box in enumerate(boxes):
        for other in boxes[:at]:
            apart = box[2] < other[0] or other[2] < box[0] or box[3] < other[1] or other[3] < box[1]
            assert apart, (box, other)
