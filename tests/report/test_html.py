"""The page: it parses, loads nothing, shows everything, and takes no name for markup."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from datetime import date
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from penjing.report.html import charts
from penjing.report.html.layer_table import MANY, ByLayer
from penjing.report.html.page import page
from penjing.report.html.recipes import in_short
from penjing.report.table import reasons, rows
from penjing.report.write import write_report
from penjing.trials.layers import Layer, LayerFigures, Layers
from penjing.trials.prediction import Prediction
from penjing.trials.result import OF_FORMAT_1, REPORT, Result
from tests.fits import trial
from tests.report.test_report import _of_many, _result

EMPTY = {"area", "base", "br", "col", "hr", "img", "input", "link", "meta", "source", "wbr"}
LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction"}
HOSTILE = (
    "<script>alert(1)</script> </script><img src=x onerror=\"f('&amp;')\"> {{ 7 * 7 }} ünd \u2028"
)
VIEW = 390, 844


class Page(HTMLParser):
    """A page that was read strictly: each tag is closed where it must be.

    Attributes:
        texts: what a reader sees, and by `scripts` what a browser runs.
        sections: by heading, the number of words under it.
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.scripts: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.tags: list[str] = []
        self.headings: list[str] = []
        self.words: list[int] = []
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in EMPTY:
            self.open.append(tag)
        if tag == "h2":
            self.headings.append("")
            self.words.append(0)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in ("script", "style"):
            self.scripts.append(data)
            return
        self.texts.append(data)
        if self.open and self.open[-1] == "h2":
            self.headings[-1] += data
        elif self.words:
            self.words[-1] += len(data.split())

    @property
    def said(self) -> str:
        """All that a reader sees, with single spaces."""
        return " ".join(" ".join(self.texts).split())


def _html(result: Result, loading: str = "") -> str:
    return page(result, b"picture", loading, date(2026, 1, 2))


def _layers(count: int, name: str = "") -> Layers:
    made = []
    for k in range(count):
        before = LayerFigures(16, 2304, 2_359_296, 0.25 + k)
        after = [None, LayerFigures(8, 576, 589_824, 0.125), before][k % 3]
        made.append(Layer(f"{name}layer{k}.conv", "conv2d", before, after))
    rest = Layer("Softmax", "", LayerFigures(latency_ms=0.5), LayerFigures(latency_ms=0.5))
    return Layers((*made, rest), (f"{name}nobody tells",))


def _whole(seed: int, name: str = "", expected: int = 4, layers: int = 6) -> Result:
    """A result in which every part of the page has something to show."""
    result = _of_many(seed, name)
    made = tuple(
        Prediction(row.key, 1.25 + k, 0.5 + k / 100, 3.5)
        for k, row in enumerate(result.trials[:expected])
    )
    return replace(result, predictions=made, layers=_layers(layers, name))


@pytest.mark.parametrize("seed", range(6))
def test_each_page_parses_and_loads_nothing(seed: int) -> None:
    for result in (_result(seed), _of_many(seed), _whole(seed)):
        text = _html(result, "import x")
        assert text.startswith("<!DOCTYPE html>")
        read = Page(text)
        loaded = [value for _, name, value in read.attributes if name in LOADING]
        assert all(value.startswith("data:") for value in loaded)
        assert not {"base", "embed", "form", "iframe", "link", "object"} & set(read.tags)
        assert not [value for _, name, value in read.attributes if name.startswith("on")]
        rules = "".join(value for _, name, value in read.attributes if name == "content")
        assert "default-src 'none'" in rules
        style = text[text.index("<style>") : text.index("</style>")]
        assert "url(" not in style
        assert "@import" not in style


@pytest.mark.parametrize("seed", range(4))
def test_every_candidate_is_there_with_its_figures_and_why(seed: int) -> None:
    result = _whole(seed)
    said = Page(_html(result)).said
    for cells in rows(result):
        assert " ".join(cell for cell in cells if cell) in said
    for text in (*reasons(result), *result.verdicts, *result.notes):
        assert " ".join(text.split()) in said
    for row in result.trials:
        assert row.status.words in said
        assert in_short(row) in said
    for text in ("torch 2", "this machine", "2026-01-02", "1 point, with 95 % confidence"):
        assert text in said


def _charts(text: str) -> dict[str, Any]:
    (data,) = re.findall(r'<script type="application/json" id="charts">(.*?)</script>', text)
    drawn: dict[str, Any] = json.loads(data)
    return drawn


def _points(chart: dict[str, Any]) -> list[dict[str, Any]]:
    (points,) = [
        chart["datasets"][layer["data"]["name"]]
        for layer in chart["layer"]
        if isinstance(layer["mark"], dict) and layer["mark"]["type"] == "point"
    ]
    return list(points)


@pytest.mark.parametrize("seed", range(4))
def test_the_chart_has_each_candidate_that_was_timed_and_scored(seed: int) -> None:
    for result in (_result(seed), _of_many(seed)):
        shown = [row for row in result.everything if row.latency and row.drop]
        drawn = _charts(_html(result)) if shown else {}
        points = _points(drawn["all"]) if shown else []
        assert sorted(point["title"] for point in points) == sorted(map(result.named, shown))
        answer = [point["title"] for point in points if point["kind"] == charts.ANSWER]
        assert answer == [result.named(row) for row in shown if row.key == result.answer.key]
        for point in points:
            (row,) = [row for row in shown if result.named(row) == point["title"]]
            assert row.latency is not None
            assert row.drop is not None
            whole = result.baseline.latency or row.latency
            assert point["time"] == pytest.approx(row.latency.ratio * whole.latency_ms)
            assert point["loss"] == row.drop.drop or point["gone"]
            assert point["loss"] <= point["top"]


def test_no_candidate_of_the_front_is_beaten_and_every_other_one_is() -> None:
    every = _points(_charts(_html(_of_many(2)))["all"])
    front = charts.front_of(every)
    points = [point for point in every if not point["unsure"]]
    assert front
    for point in points:
        beaten = any(
            other["time"] <= point["time"]
            and other["loss"] <= point["loss"]
            and (other["time"], other["loss"]) != (point["time"], point["loss"])
            for other in points
        )
        alike = [(kept["time"], kept["loss"]) for kept in front]
        assert beaten != ((point["time"], point["loss"]) in alike)


def test_names_are_text_wherever_they_stand() -> None:
    result = _whole(1, HOSTILE)
    result = replace(result, task=HOSTILE, target=HOSTILE, machine=HOSTILE, reason=HOSTILE)
    text = _html(result, f"path = {HOSTILE!r}")
    read = Page(text)
    harmless = Page(_html(_whole(1), "path"))
    assert read.tags == harmless.tags  # no tag more
    assert "alert(1)" in read.said
    assert "{{ 7 * 7 }}" in read.said
    told = [part for part in read.scripts if "alert(1)" in part]
    assert [json.loads(part) for part in told] == [_charts(text)]  # as data, not as a program
    titles = [point["title"] for point in _points(_charts(text)["all"])]
    assert any("<script>alert(1)</script>" in title for title in titles)
    assert "\\u003cscript" in text


def test_what_was_expected_stands_beside_what_was_measured() -> None:
    result = _whole(0)
    text = _html(result)
    said = Page(text).said
    for made in result.predictions:
        row = result.trial(made.key)
        assert row is not None
        assert row.drop is not None
        assert row.latency is not None
        figures = f"{made.drop:.2f} {row.drop.drop:.2f} {row.drop.bound:.2f} {made.ratio:.2f}"
        assert f"{result.named(row)} 3.5 {figures} {row.latency.ratio:.2f}" in said
    drawn = _charts(text)
    assert set(drawn) == {"all", "losses", "times"}
    assert len(_points(drawn["losses"])) == len(result.predictions)


def test_two_expectations_are_a_table_and_no_chart() -> None:
    text = _html(_whole(0, expected=2))
    assert "Expected and measured" in text
    assert set(_charts(text)) == {"all"}


def test_the_layers_say_what_is_gone_and_what_takes_how_long() -> None:
    result = _whole(0, layers=6)
    said = Page(_html(result)).said
    assert "6 layers with weights: 2 gone, 2 narrower, 2 as wide as before." in said
    assert "Their multiply-accumulates: 14.2 M before, 5.90 M now (42 %)." in said
    assert "layer0.conv gone 0.250 16 2.30 k 2.36 M conv2d" in said
    assert "layer1.conv 1.25 0.125 16 8 2.30 k 576 2.36 M 590 k conv2d" in said
    assert "Softmax 0.500 0.500 no weights" in said
    assert "Note: nobody tells." in said


@pytest.mark.parametrize("count", [MANY - 1, MANY])
def test_a_long_table_of_layers_is_folded_away(count: int) -> None:
    assert ("All layers, before and now" in _html(_whole(0, layers=count))) == (count == MANY)
    assert ByLayer(_layers(count)).is_long == (count == MANY)


def test_without_times_the_table_has_no_column_for_them() -> None:
    figures = LayerFigures(4, 16, 16)
    layers = Layers((Layer("fc", "linear", figures, figures),), ("nobody tells",))
    said = Page(_html(replace(_of_many(0), layers=layers))).said
    assert "fc 4 4 16 16 16 16 linear" in said
    assert "time, ms" not in said
    assert "profiler" not in said


def test_a_file_whose_layers_nobody_times_has_no_times_that_seem_shared() -> None:
    timed, untimed = LayerFigures(4, 16, 16, 0.5), LayerFigures(4, 16, 16)
    layers = Layers((Layer("a", "linear", timed, untimed), Layer("b", "linear", untimed, untimed)))
    said = Page(_html(replace(_of_many(0), layers=layers))).said
    assert "a 0.500 4 4 16 16 16 16 linear" in said
    assert "b with others 4 4 16 16 16 16 linear" in said


@pytest.mark.parametrize("seed", range(6))
def test_no_section_is_empty(seed: int) -> None:
    bare = replace(_result(seed), notes=(), verdicts=())
    read = Page(_html(bare))
    assert all(read.words)
    for heading in ("Expected", "Layer by layer", "What each", "Notes", "To run"):
        assert not any(heading in text for text in read.headings)


def test_a_fit_that_measured_nothing_has_a_page_without_a_script() -> None:
    original = trial("original", (), "baseline")
    result = Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, original, best=original.key)
    read = Page(_html(result))
    assert "script" not in read.tags
    assert "interrupted" in read.said


def test_all_that_is_new_comes_back_from_json() -> None:
    result = _whole(2)
    assert Result.from_json(json.loads(json.dumps(result.to_json()))) == result


def test_an_older_result_is_read_and_shown() -> None:
    data = _of_many(0).to_json()
    del data["predictions"], data["layers"]
    result = Result.from_json(data)
    assert result.predictions == ()
    assert result.layers == Layers()
    assert result.answer.title in Page(_html(result)).said
    assert (
        "report.html"
        not in Result.from_json(
            {name: value for name, value in data.items() if name != "files"}
        ).files
    )
    assert set(OF_FORMAT_1) < set(REPORT)


def test_the_report_is_three_files_of_moderate_size(tmp_path: Path) -> None:
    path = write_report(_whole(0), tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == sorted(REPORT)
    assert path.stat().st_size < 1.6e6


@pytest.fixture(scope="module")
def browser() -> str:
    name = next(filter(shutil.which, ("chromium", "chromium-browser", "google-chrome")), None)
    if name is None:
        pytest.skip("there is no Chromium here to load the page in")
    return name


def test_a_browser_draws_the_charts_without_an_error(tmp_path: Path, browser: str) -> None:
    """And what isn't drawn because of the page's own rules would be told on its console."""
    write_report(_whole(0, HOSTILE), tmp_path)
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr",
        f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={VIEW[0]},{VIEW[1]}",
        "--virtual-time-budget=8000", "--dump-dom", (tmp_path / "report.html").as_uri(),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    for place in ("all", "losses", "times"):
        begin = done.stdout.index(f'id="chart-{place}"')
        assert "<svg" in done.stdout[begin : begin + 3000]
    assert done.stdout.count('aria-roledescription="point"') >= 17
    assert "CONSOLE" not in done.stderr
