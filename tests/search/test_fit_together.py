"""A fit under torchrun: one search, one ledger, and all processes train."""

from __future__ import annotations

import json
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.multiprocessing.spawn import spawn

from penjing.errors import PenjingError
from penjing.tasks.task import Task
from penjing.trials.result import Result
from tests.fits import fit
from tests.instruments import Direct, Told, only, small_task


class LostLoss:
    """A loss that one process can't compute, from its fourth batch on."""

    def __init__(self, rank: int) -> None:
        self.rank, self.calls = rank, 0

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        if self.calls > 3 and os.environ["RANK"] == str(self.rank):
            raise ValueError("the licence server is down")
        return torch.nn.functional.cross_entropy(outputs, targets)


def _searched(out: Path, task: Task) -> Result:
    """A fit whose times are told: the harsher a cut the faster."""

    def ratio(name: str) -> float:
        share = re.match(r"prune (\d+)", name)
        return 1 - int(share[1]) / 100 if share else 1.0

    with pytest.MonkeyPatch.context() as patch:
        only(patch, Direct)
        told = Told(ratio)
        return fit(task, out=out, epochs=1, max_drop=50.0, instruments=told.instruments())


def _one(rank: int, count: int, port: int, folder: str, failing: int) -> None:
    """A process of torchrun's."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank))
    task = small_task()
    if failing >= 0:
        task = replace(task, loss=LostLoss(failing))
    try:
        told: Any = _searched(Path(folder) / f"out{rank}", task).to_json()
    except PenjingError as error:
        told = f"{type(error).__name__}: {error}"
    Path(folder, f"{rank}.json").write_text(json.dumps(told))


def together(folder: Path, count: int = 2, failing: int = -1) -> list[Any]:
    """What the processes returned or raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    spawn(_one, (count, port, str(folder), failing), nprocs=count)  # type: ignore[no-untyped-call]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(count)]


def _trials(result: Result) -> list[tuple[str, str]]:
    return [(trial.title, trial.status) for trial in result.everything]


def test_all_processes_get_the_result_of_one_search(tmp_path: Path) -> None:
    first, second = together(tmp_path)
    assert first == second
    assert (tmp_path / "out0").exists()
    assert not (tmp_path / "out1").exists()
    result, alone = Result.from_json(first), _searched(tmp_path / "alone", small_task())
    assert _trials(result) == _trials(alone)
    assert any("prune" in trial.title and trial.drop for trial in result.trials)


def test_a_process_that_cannot_train_fails_the_candidates_and_not_the_fit(tmp_path: Path) -> None:
    first, second = together(tmp_path, failing=1)
    assert first == second
    result = Result.from_json(first)
    assert result.finished
    why = "process 1 of 2: the task's loss raised ValueError: the licence server is down"
    assert any(why in note for note in result.notes)
