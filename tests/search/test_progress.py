"""The progress of a fit: it never falls, rises with the work, and ends with it."""

from __future__ import annotations

import io
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.report.progress import State, display
from penjing.report.terminal import Console
from penjing.search.progress import SEARCH, Progress
from penjing.search.schedule import Schedule
from penjing.trials.candidate import Candidate
from penjing.trials.result import Result
from penjing.trials.trial import Status, Trial
from penjing.trials.view import View
from tests.fits import fit
from tests.instruments import Another, Direct, Slowly, Told, only, small_task

LAST = "timing all files that keep the budget side by side"


def _followed(out: Path, told: Told, **options: Any) -> list[tuple[str, float]]:
    """The stages of a fit, each with the share done."""
    seen: list[tuple[str, float]] = []
    fit(
        out=out / "out", max_drop=60.0, instruments=told.instruments(),
        progress=lambda stage, share, _: seen.append((stage, share)), **options,
    )  # fmt: skip
    return seen


def _require_steady(seen: list[tuple[str, float]]) -> dict[str, float]:
    """The share at the first moment of each stage, once it is sure that shares only rise."""
    shares = [share for _, share in seen]
    assert shares == sorted(shares)
    assert seen[-1] == ("done", 1.0)
    firsts: dict[str, float] = {}
    for stage, share in seen:
        firsts.setdefault(stage.split(":")[0], share)
    before = [share for stage, share in seen if share < firsts[LAST]]
    assert all(share < 0.9 for share in before)
    assert 0.9 <= firsts[LAST] < 1
    return firsts


def test_by_epochs_it_rises_with_the_rounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    only(monkeypatch, Direct, Another)
    told = Told(lambda name: 0.5 if "int8" in name else 1.0)
    seen = _followed(tmp_path, told, task=small_task(), epochs=1)
    firsts = _require_steady(seen)
    assert firsts["measuring the original"] == 0
    first, second = firsts["prune 25 % in direct"], firsts["prune 75 % in direct"]
    assert firsts["int8 in direct"] < first < second
    assert firsts["int8 in direct"] < 0.4
    steps = [share for stage, share in seen if stage == "int8 in direct"]
    assert steps[0] < steps[-1]  # within a round too
    said = [stage for stage, _ in seen]
    for stage in (
        "measuring the original", "int8 in direct", "evaluating the original on the test data",
    ):  # fmt: skip
        begin = said.index(f"{stage}: 20 of 120 samples scored")
        counts = (f"{stage}: {count} of 120 samples scored" for count in range(20, 121, 20))
        assert said[begin : begin + 6] == list(counts)


@pytest.mark.parametrize("minutes", [0.01, 8.0])
def test_by_the_clock_it_is_the_time_spent_of_the_time_that_is_needed(
    minutes: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """int8 in the first runtime is never left out, takes longer than 0.01 minutes, and counts."""
    only(monkeypatch, Direct, Another)
    told = Told(lambda name: 0.5 if "int8" in name else 1.0)
    task = replace(small_task(), loss=Slowly(told, 1.0))
    seen = _followed(tmp_path, told, task=task, minutes=minutes)
    firsts = _require_steady(seen)
    assert firsts["measuring the original"] < firsts["int8 in direct"] < 0.6
    assert ("original in another" in firsts) == (minutes > 1)


def test_the_clock_alone_decides_where_it_is_long() -> None:
    now = [0.0]
    schedule = Schedule(lambda: now[0], 100.0)
    progress = Progress(schedule)
    shares = []
    for second in range(0, 101, 10):
        now[0] = second
        shares.append(progress.in_search(1 + second / 5, 30, 2))
    assert shares[1:9] == pytest.approx([SEARCH * second / 100 for second in range(10, 90, 10)])
    assert shares[-1] < SEARCH
    now[0] = 1000.0
    assert shares[-1] <= progress.in_search(3, 20, 2) < SEARCH
    ends = [progress.at_end(step, 5) for step in range(1, 6)]
    assert ends == sorted(ends)
    assert ends[0] > SEARCH
    assert ends[-1] < 1


def _console(is_terminal: bool) -> Console:
    return Console(
        lambda text: text.replace("`resume`", "--resume"),
        file=io.StringIO(), width=80, force_terminal=is_terminal,
    )  # fmt: skip


def _so_far(*tried: tuple[str, float]) -> Result:
    """A result in which candidates of these titles take this share of the time, and lose as many
    points as they save of it."""

    def trial(number: int, title: str, status: Status, share: float) -> Trial:
        time, lost = (
            Latency(share, share, share, share, share, 20),
            Drop(1 - share, 1 - share, 0.95, 9),
        )
        figures = Measurement(file_bytes=round(1e6 * share), latency=time, drop=lost)
        candidate = Candidate(({"method": "Tune", "seed": number},), "onnxruntime")
        return Trial(candidate, title, status, "", figures)

    original = trial(0, "original", Status.BASELINE, 1.0)
    rows = [trial(n, title, Status.KEPT, share) for n, (title, share) in enumerate(tried, 1)]
    return View(
        Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, original),
        known={row.key: row for row in (original, *rows)},
    ).result


def _written(console: Console) -> list[str]:
    return console.file.getvalue().splitlines()  # type: ignore[attr-defined]


def test_a_pipe_gets_a_line_for_each_stage() -> None:
    console = _console(is_terminal=False)
    with display(console) as show:
        show("measuring the original", 0.0, _so_far())
        show("int8: step 1", 0.1, _so_far())
        show("int8: step 2", 0.2, _so_far())
        show("a note that is long, " * 6 + "`resume` continues", 0.25, _so_far())
        show("prune 25 %", 0.3, _so_far(("int8", 0.5)))
    lines = _written(console)
    assert lines[:2] == [
        "[  0%] measuring the original (best so far: original)",
        "[ 10%] int8",
    ]
    assert lines[-1] == "[ 30%] prune 25 % (best so far: int8)"
    assert "--resume continues" in " ".join(" ".join(lines).split())
    assert all(len(line) <= 80 and line.startswith(("[", "       ")) for line in lines)


def test_a_terminal_is_drawn_to_by_calls_alone_and_not_too_often() -> None:
    """A thread that draws would disturb what is timed."""
    now, before = [0.0], threading.active_count()
    console = _console(is_terminal=True)
    with display(console, lambda: now[0]) as show:
        for step in range(100):
            now[0] += 0.01
            show(f"int8: step {step}", 0.1, _so_far())
        assert threading.active_count() == before
        drawn = console.file.getvalue()  # type: ignore[attr-defined]
        assert 3 <= drawn.count("int8: step") <= 6
        show("prune 25 %", 0.2, _so_far(("int8", 0.5)))
        assert "best so far: int8" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_terminal_shows_stage_share_time_left_and_the_best_so_far() -> None:
    now = [0.0]
    state = State(_console(is_terminal=True), lambda: now[0])
    front = ("int8 in litert", 0.25), ("a slower one", 0.5)
    state("prune 25 % + int8 in litert: step 3, loss 0.123", 0.25, _so_far(*front))
    now[0] = 60.0
    bar, stage, *best = state.lines()
    assert bar.endswith(" 25%  about 3 min left")
    assert stage == "prune 25 % + int8 in litert: step 3, loss 0.123"
    assert best == [
        "best so far: int8 in litert: 0.25 of the time, 0.75 points lost (at most 0.75)",
        "2 tried, 2 within the budget",
        "    0.50 of the time, 0.50 points lost (at most 0.50): a slower one",
    ]
    state("x" * 200, 0.0, _so_far(("y" * 200, 0.5)))
    assert all(len(line) <= 80 for line in state.lines())
    assert "left" not in state.lines()[0]
