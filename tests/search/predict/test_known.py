"""What is known from earlier fits is the same after it was kept, and never a reason to fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from penjing.search.predict.additive import Additive
from penjing.search.predict.cost import Cost
from penjing.search.predict.known import ELSEWHERE, Known, user_folder

COST = Cost("latency=2,size=1", {
    "latency": Additive({"conv2d": (0.1, 1e-9, 0.0)}, (0.0, 1.0, 2.0)),
    "size": Additive({"linear": (3.0, 0.5, 0.25)}, (0.5, 0.5, 0.5)),
})  # fmt: skip
OF = {"machine": "this one", "operators": {"conv2d": (1.0, 2.0)}}


def test_what_is_kept_is_known_again(tmp_path: Path) -> None:
    known = Known(tmp_path / "new")
    assert known.recall(OF) is None
    known.remember(OF, COST)
    assert known.recall(OF) == COST
    assert known.recall({**OF, "machine": "another"}) is None
    assert Known(None).recall(OF) is None
    Known(None).remember(OF, COST)


@pytest.mark.parametrize("damage", ["", "[]", "{", '{"of": 1, "cost": 2}', "null"])
def test_a_damaged_file_is_as_none(tmp_path: Path, damage: str) -> None:
    known = Known(tmp_path)
    known.remember(OF, COST)
    (file,) = tmp_path.iterdir()
    file.write_text(damage)
    assert known.recall(OF) is None


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    Known(tmp_path / "file" / "inside").remember(OF, COST)


def test_the_folder_can_be_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ELSEWHERE, str(tmp_path))
    assert user_folder() == tmp_path
    monkeypatch.delenv(ELSEWHERE)
    assert user_folder().name == "penjing"
