"""Reports: every candidate has its row, each cell is its trial's figure, and none is made up."""

from __future__ import annotations

import io
import random
from pathlib import Path

import pytest
from PIL import Image

from penjing.contract import Drop, Latency, Measurement
from penjing.report.markdown import page, write_report
from penjing.report.table import candidates_table, headings, rows
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial
from tests.fits import trial


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
        best=best.key, reason="it is the best", notes=("a note",), verdicts=("a verdict",),
    )  # fmt: skip


def _cell(row: tuple[str, ...], result: Result, heading: str) -> str:
    return row[headings(result).index(heading)]


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
            "ms": figures.latency.latency_ms if figures.latency else None,
            "ratio": figures.latency.ratio if figures.latency else None,
            "kB": None if figures.file_bytes is None else figures.file_bytes / 1000,
            "drop": figures.drop.drop if figures.drop and row[0] != "original" else None,
            "bound": figures.drop.bound if figures.drop and row[0] != "original" else None,
        }
        for name, figure in wanted.items():
            cell = _cell(row, result, name)
            assert (cell == "") == (figure is None)
            assert figure is None or abs(float(cell) - figure) <= 0.051
        disturbed = figures.latency is not None and figures.latency.disturbed
        assert _cell(row, result, "verdict").endswith(", disturbed") == disturbed


@pytest.mark.parametrize("seed", range(20))
def test_what_was_timed_is_in_the_order_of_its_time(seed: int) -> None:
    result = _result(seed)
    ratios = [_cell(row, result, "ratio") for row in rows(result)[1:]]
    timed = [float(ratio) for ratio in ratios if ratio]
    assert timed == sorted(timed)
    assert ratios == [ratio for ratio in ratios if ratio] + [""] * ratios.count("")


@pytest.mark.parametrize("seed", range(5))
def test_the_page_tells_all_and_the_plot_is_a_picture(seed: int, tmp_path: Path) -> None:
    result = _result(seed)
    assert write_report(result, tmp_path) == tmp_path / "report.md"
    text = (tmp_path / "report.md").read_text()
    assert text == page(result)
    assert f"Chosen: **{result.chosen}**, it is the best." in text
    for one in result.trials:
        assert f"- {one.title}: {one.reason}\n" in text
    for line in ("- a note\n", "- a verdict\n", "torch 2.11"):
        assert line in text
    picture = Image.open(io.BytesIO((tmp_path / "plot.png").read_bytes()))
    assert picture.size == (960, 540)


def test_the_chosen_row_alone_is_marked() -> None:
    result = _result(3)
    table = candidates_table(result)
    marked = [row.style for row in table.rows]
    chosen = [row[0] == result.chosen for row in rows(result)]
    assert marked == ["bold green" if mark else None for mark in chosen]
    assert marked.count("bold green") == 1
