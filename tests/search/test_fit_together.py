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
from torch import distributed
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


def _one(rank: int, count: int, port: int, folder: str, failing: int, own: bool) -> None:
    """A process of torchrun's."""
    torch.set_num_threads(1)
    where = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ.update(where, WORLD_SIZE=str(count), RANK=str(rank), LOCAL_RANK=str(rank))
    if own:
        distributed.init_process_group("gloo")
    task = small_task()
    if failing >= 0:
        task = replace(task, loss=LostLoss(failing))
    try:
        told: Any = _searched(Path(folder) / f"out{rank}", task).to_json()
    except PenjingError as error:
        told = f"{type(error).__name__}: {error}"
    Path(folder, f"{rank}.json").write_text(json.dumps(told))
    assert distributed.is_initialized() == own
    if own:
        distributed.destroy_process_group()


def together(folder: Path, failing: int = -1, own: bool = False) -> list[Any]:
    """What the processes returned or raised."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    given = 2, port, str(folder), failing, own
    spawn(_one, given, nprocs=2)  # type: ignore[no-untyped-call]
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


def _trials(result: Result) -> list[tuple[str, str]]:
    return [(trial.title, trial.status) for trial in result.everything]


@pytest.mark.parametrize("own", [False, True])
def test_all_processes_get_the_result_of_one_search(own: bool, tmp_path: Path) -> None:
    """Also if the caller has already made a process group, which stays."""
    first, second = together(tmp_path, own=own)
    assert first == second
    assert (tmp_path / "out0").exists()
    assert not (tmp_path / "out1").exists()
    result, alone = Result.from_json(first), _searched(tmp_path / "alone", small_task())
    assert _trials(result) == _trials(alone)
    assert any("prune" in trial.title and trial.drop for trial in result.trials)


@pytest.mark.parametrize("failing", [0, 1])
def test_a_process_that_cannot_train_fails_the_candidates_and_not_the_fit(
    failing: int, tmp_path: Path
) -> None:
    first, second = together(tmp_path, failing=failing)
    assert first == second
    result = Result.from_json(first)
    assert result.finished
    why = "the task's loss raised ValueError: the licence server is down"
    assert any(why in note for note in result.notes)
