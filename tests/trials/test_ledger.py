"""The ledger: every event is on disk before the next, nothing is taken back, and the result follows
from the events."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from penjing.contract import Drop, Latency, Measurement
from penjing.errors import InputError
from penjing.trials.layers import Layer, LayerFigures, Layers
from penjing.trials.ledger import LEDGER, Ledger
from penjing.trials.prediction import Prediction
from penjing.trials.result import FORMAT, Result
from penjing.trials.trial import Status, Trial
from tests import fits


def _latency(ratio: float, disturbed: bool = False) -> Latency:
    return Latency(ratio, ratio, ratio, ratio * 0.98, ratio * 1.02, 20, disturbed)


def _trial(title: str, ratio: float, status: str = "kept") -> Trial:
    lost = Drop(0.0, 0.2, 0.95, 1000)
    figures = Measurement(file_bytes=100_000, latency=_latency(ratio), drop=lost)
    artifact = f"candidates/{title}/{title}.onnx"
    return fits.trial(title, (), status, "", figures, artifact=artifact)


ORIGINAL = _trial("original", 1.0, "baseline")
A, B = _trial("a", 0.5), _trial("b", 0.4)
EXPECTED = Prediction(A.key, 1.25, 0.5, 3.5)
LAYERS = Layers((Layer("conv", "conv2d", LayerFigures(4, 16, 64, 0.5), None),), ("a note",))


def _ledger(folder: Path) -> Ledger:
    for title in ("original", "a", "b"):
        (folder / "candidates" / title).mkdir(parents=True)
        (folder / "candidates" / title / f"{title}.onnx").write_text(title)
    return Ledger.begin(folder, Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, ORIGINAL))


def _on_disk(folder: Path) -> Result:
    """What one who comes now reads there."""
    ledger = Ledger.resumed(folder)
    assert ledger is not None
    with closing(ledger):
        return ledger.result


def _titles(result: Result) -> list[str]:
    return [trial.title for trial in result.trials]


def test_a_ledger_is_on_disk_after_every_step(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL)
        assert _on_disk(tmp_path).chosen == "original"
        ledger.record(A)
        assert _on_disk(tmp_path).artifact == "candidates/a/a.onnx"
        ledger.record(B)
        ledger.record(replace(B, measurement=_trial("b", 0.6).measurement))
        assert _titles(_on_disk(tmp_path)) == ["a", "b"]
        assert _on_disk(tmp_path).chosen == "a"
        ledger.set_latencies({A.key: _latency(0.9)})
        assert _on_disk(tmp_path).chosen == "b"
        ledger.publish()
        assert Result.load(tmp_path) == _on_disk(tmp_path) == ledger.result
        assert not ledger.result.finished
        ledger.finish(ledger.result)
        assert (tmp_path / "b.onnx").read_text() == "b"
        assert ledger.result.artifact == "b.onnx"
        assert Result.load(tmp_path) == _on_disk(tmp_path) == ledger.result
        assert ledger.result.finished


def test_what_was_written_is_never_changed(tmp_path: Path) -> None:
    """Each event is one row more, and the rows before it stay as they are."""

    def rows() -> list[tuple[int, str, str]]:
        with closing(sqlite3.connect(tmp_path / LEDGER)) as connection:
            return connection.execute("SELECT id, kind, data FROM events ORDER BY id").fetchall()

    with closing(_ledger(tmp_path)) as ledger:
        known = rows()
        assert [kind for _, kind, _ in known] == ["begin"]
        for kind, write in {
            "proposed": lambda: ledger.propose(A.candidate),
            "trial": lambda: ledger.record(ORIGINAL),
            "amended": lambda: ledger.amend(ORIGINAL, reason="look here"),
            "timed": lambda: ledger.set_latencies({ORIGINAL.key: _latency(1.0)}),
            "note": lambda: ledger.note("look here"),
            "predicted": lambda: ledger.predict(EXPECTED),
            "layers": lambda: ledger.describe(LAYERS),
            "interrupted": ledger.interrupted,
            "resumed": ledger.go_on,
        }.items():
            write()
            *before, (_, newest, _) = rows()
            assert (before, newest) == (known, kind)
            known = rows()


def test_what_was_expected_is_recorded_once(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL, A)
        ledger.predict(EXPECTED)
        ledger.predict(replace(EXPECTED, drop=7.0))  # a resumed fit, after another's training
        assert ledger.result.predictions == (EXPECTED,)
        assert _on_disk(tmp_path).predictions == (EXPECTED,)


def test_layers_are_those_of_the_answer_and_go_with_it(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL, A)
        ledger.finish(ledger.result)
        ledger.describe(LAYERS)
        assert Result.load(tmp_path) == _on_disk(tmp_path) == ledger.result
        assert (ledger.result.layers, ledger.result.finished) == (LAYERS, True)
        ledger.record(B)
        assert ledger.result.layers == _on_disk(tmp_path).layers == Layers()


def test_a_disturbed_figure_never_takes_the_place_of_a_good_one(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL, A)
        ledger.set_latencies({A.key: _latency(0.9, disturbed=True)})
        assert ledger.result.find("a").latency == A.latency
        bad = replace(B, measurement=replace(B.measurement, latency=_latency(0.1, disturbed=True)))
        ledger.record(bad)
        assert ledger.result.chosen == "a"
        ledger.set_latencies({B.key: _latency(0.2, disturbed=True)})
        assert ledger.result.find("b").latency == _latency(0.2, disturbed=True)
        ledger.set_latencies({B.key: _latency(0.3)})
        assert ledger.result.find("b").latency == _latency(0.3)
        assert ledger.result.chosen == "b"


def test_what_is_trained_takes_the_row_of_what_was_timed_in_its_stead(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        probe = replace(A, status=Status.NOT_TUNED)
        ledger.record(ORIGINAL, probe, B)
        assert ledger.result.find("a").reason == "no time was left for more"
        tuned = replace(_trial("tuned", 0.3), replaces=probe.key)
        ledger.record(tuned)
        assert _titles(_on_disk(tmp_path)) == ["tuned", "b"]
        assert ledger.trial(probe.key) == replace(probe, pareto=False)


def test_a_fit_that_goes_on_forgets_what_the_test_data_said(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL, A)
        rejected = replace(A, status=Status.OVER_ON_TEST, reason="lost 3.00 points on test")
        proven = replace(
            ledger.result, trials=(rejected,), best=ORIGINAL.key, reason="test", test_evaluations=1,
            test_score=0.9, test_baseline=0.9,
        )  # fmt: skip
        ledger.finish(proven)
        assert (ledger.result.chosen, ledger.result.reason) == ("original", "test")
        assert ledger.result.find("a").status == Status.OVER_ON_TEST
        ledger.record(B)
        result = _on_disk(tmp_path)
        assert (result.chosen, result.finished, result.test_score) == ("b", False, None)
        assert result.find("a").status == Status.KEPT


def test_what_earlier_penjings_wrote_is_read(tmp_path: Path) -> None:
    """Before format 4 the test-set evaluations had another name, in results and in ledgers."""
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL, A)
        ledger.finish(replace(ledger.result, test_evaluations=2, test_score=0.9, test_baseline=0.9))
        new = ledger.result.to_json()
    assert (new["format"], new["test_evaluations"]) == (FORMAT, 2)
    old = {name: value for name, value in new.items() if name != "test_evaluations"}
    old |= {"format": 3, "test_looks": 2}
    assert Result.from_json(old) == Result.from_json(new)
    with closing(sqlite3.connect(tmp_path / LEDGER)) as connection, connection:
        connection.execute(
            "UPDATE events SET data = replace(data, 'test_evaluations', 'test_looks')"
        )
    again = _on_disk(tmp_path)
    assert (again.test_evaluations, again.finished) == (2, True)
    assert again == Result.from_json(new)


def test_an_interruption_is_said_until_the_fit_goes_on_and_a_note_once(tmp_path: Path) -> None:
    with closing(_ledger(tmp_path)) as ledger:
        ledger.record(ORIGINAL)
        ledger.note("look here")
        ledger.note("look here")
        ledger.interrupted()
        first, last = _on_disk(tmp_path).notes
        assert first == "look here"
        assert last.startswith("interrupted: ")
        ledger.go_on()
        assert _on_disk(tmp_path).notes == ("look here",)


def test_a_folder_without_a_fit_that_was_begun_has_no_ledger(tmp_path: Path) -> None:
    assert Ledger.resumed(tmp_path) is None
    (tmp_path / LEDGER).touch()
    assert Ledger.resumed(tmp_path) is None


def test_what_is_no_ledger_is_refused(tmp_path: Path) -> None:
    (tmp_path / LEDGER).write_text("not SQLite" * 100)
    with pytest.raises(
        InputError, match=r"can't be read: .*file is not a database; .* starts again"
    ):
        Ledger.resumed(tmp_path)
