"""Training in several processes: the same steps as in one, and one end for all of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from penjing.errors import InputError, LostProcessError
from penjing.network import capture
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.task import Task
from penjing.tune import exchange
from penjing.tune.options import TuneOptions
from penjing.tune.train import train, validate
from tests.reference_networks import build

Told = tuple[list[str], dict[str, Tensor], float]


class Linear(nn.Module):
    """Without a statistic over the batch, so that it may be divided."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


class WithUnused(Linear):
    """One of its layers is never used, so that its gradient never comes."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Linear(2, 2)


def linear(samples: int, size: int, model: type[Linear] = Linear) -> Task:
    """Batches of `size` samples; the last one may be smaller."""
    torch.manual_seed(0)
    network = model()
    x, y = torch.randn(samples, 6), torch.arange(samples) % 3
    data = Arrays(x, y, batch_size=size, shuffle=True)
    still = Arrays(x, y, batch_size=size)
    return Task(network, x[:2], data, still, still)


def convolutional(samples: int, size: int) -> Task:
    """A network with batch norms, whose statistics are those of a batch."""
    model, x = build("resnet_a")
    x = x.repeat(1 + samples // len(x), 1, 1, 1)[:samples] + torch.randn(samples, 1, 1, 1)
    data = Arrays(x, torch.arange(samples) % 10, batch_size=size, shuffle=True)
    return Task(model, x[:2], data, data)


def trained(task: Task, accumulate: int, **options: Any) -> Told:
    lines: list[str] = []
    how = TuneOptions(lr=0.05, precision="float32", accumulate=accumulate, **options)
    found = train(capture(task.model, task.example), task, how, lambda line, _: lines.append(line))
    return lines, found.network.state_dict(), found.epochs


def _one(rank: int, count: int, folder: str, work: Callable[[], Any]) -> None:
    """A process of several."""
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=count)
    torch.save(work(), f"{folder}/{rank}.pt")
    exchange.leave()
    distributed.destroy_process_group()
    # A group's own threads that outlived it could end this process by a signal.
    threads = [one.read_text() for one in Path("/proc/self/task").glob("*/comm")]
    assert threads
    assert not [name for name in threads if "gloo" in name]


def together(count: int, folder: Path, work: Callable[[], Any]) -> list[Any]:
    """What the processes return."""
    spawn(_one, (count, str(folder), work), nprocs=count)  # type: ignore[no-untyped-call]
    return [torch.load(folder / f"{rank}.pt") for rank in range(count)]


def _linear() -> Told:
    return trained(linear(samples=42, size=4), 1, epochs=4, distill=0.5)


def _with_unused() -> Told:
    return trained(linear(samples=42, size=4, model=WithUnused), 1, epochs=4, distill=0.5)


def _convolutional() -> Told:
    return trained(convolutional(samples=22, size=4), 1, epochs=2)


@pytest.mark.parametrize("work", [_linear, _with_unused])
def test_three_processes_take_the_steps_of_one_with_batches_three_times_as_large(
    work: Callable[[], Told], tmp_path: Path
) -> None:
    """42 samples are 11 batches of 4, the last one of 2: in the last step one process is idle."""
    here, *others = together(3, tmp_path, work)
    model = Linear if work is _linear else WithUnused
    large = linear(samples=42, size=12, model=model)
    lines, weights, epochs = trained(large, 1, epochs=4, distill=0.5)
    assert len(lines) == 16
    assert epochs == 4
    assert all(each[0] == lines and each[2] == epochs for each in (here, *others))
    for name, weight in weights.items():
        torch.testing.assert_close(here[1][name], weight, rtol=1e-5, atol=1e-6)
        assert all(torch.equal(here[1][name], theirs[1][name]) for theirs in others)


def test_accumulated_batches_are_those_of_several_processes(tmp_path: Path) -> None:
    """Batch norms too: each batch has its own statistics."""
    both = together(2, tmp_path, _convolutional)
    lines, weights, _ = trained(convolutional(samples=22, size=4), 2, epochs=2)
    assert both[0][0] == both[1][0] == lines
    for name in weights:
        assert torch.equal(both[0][1][name], both[1][1][name])
        if not name.endswith(("mean", "var", "tracked")):  # of those, the first process's stay
            torch.testing.assert_close(both[0][1][name], weights[name], rtol=1e-4, atol=1e-5)


def _judged() -> tuple[list[float], float]:
    """The scores in the order in which the metric got them."""
    seen: list[float] = []

    def figure(kept: np.ndarray) -> float:
        seen.extend(kept.tolist())
        return float(kept.mean())

    task = linear(samples=20, size=4)
    metric = Metric("of targets", lambda _, y: y.astype(float), over=figure)
    task = Task(task.model, task.example, task.train, task.test, task.test, metric=metric)
    network = capture(task.model, task.example)
    return seen, validate(network, task)


def test_validation_is_divided_and_its_samples_stay_in_order(tmp_path: Path) -> None:
    alone = _judged()
    assert together(3, tmp_path, _judged) == [alone] * 3


class Breaking:
    """Data that goes wrong in one process, at its third batch."""

    def __init__(self, task: Task, how: str) -> None:
        self.batches, self.how = list(task.train), how

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for place, (x, y) in enumerate(self.batches):
            if place == 2 and exchange.rank() == 1 and self.how == "raises":
                raise OSError("the disk is gone")
            if place == 3 and self.how == "NaN":  # the second process's
                yield x * float("nan"), y
            elif place == 2 and exchange.rank() == 1 and self.how == "dies":
                os.kill(os.getpid(), signal.SIGKILL)
            else:
                yield x, y


def _breaks(how: str) -> str:
    task = linear(samples=40, size=4)
    train_data = Breaking(task, how)
    task = Task(task.model, task.example, train_data, task.test)
    try:
        trained(task, 1, epochs=1, distill=0.0)
    except (InputError, OSError, LostProcessError) as error:
        return f"{type(error).__name__}: {error}"
    return "nothing was raised"


def test_what_one_process_cannot_do_ends_all_with_one_line(tmp_path: Path) -> None:
    first, second = together(2, tmp_path, partial(_breaks, "NaN"))
    assert second == "InputError: the loss became nan at step 1; lower lr"
    assert first == "OtherProcessError: process 1 of 2: the loss became nan at step 1; lower lr"


def test_an_error_of_the_data_in_one_process_ends_all(tmp_path: Path) -> None:
    first, second = together(2, tmp_path, partial(_breaks, "raises"))
    assert second == "OSError: the disk is gone"
    assert first == "OtherProcessError: process 1 of 2: the disk is gone"


def test_a_process_that_is_killed_ends_all(tmp_path: Path) -> None:
    given = 2, str(tmp_path), partial(_breaks, "dies")
    started = spawn(_one, given, nprocs=2, join=False)  # type: ignore[no-untyped-call]
    for process in started.processes:
        process.join()
    survivor = torch.load(tmp_path / "0.pt")
    assert survivor.startswith("LostProcessError: one of the 2 processes that train together")


def _torn(outputs: Tensor, targets: Tensor) -> Tensor:
    """A loss whose gradient one process can't compute."""

    def fails(_: Tensor) -> Tensor:
        raise ZeroDivisionError("a bug")

    if exchange.rank() == 1:
        outputs.register_hook(fails)  # type: ignore[no-untyped-call]
    return nn.functional.cross_entropy(outputs, targets)


def _bug() -> str:
    try:
        trained(replace(linear(samples=16, size=4), loss=_torn), 1, epochs=1, distill=0.0)
    except (ZeroDivisionError, LostProcessError) as error:
        return f"{type(error).__name__}: {error} {getattr(error, '__notes__', '')}"
    return "nothing was raised"


def test_a_bug_while_gradients_are_exchanged_stays_a_bug_and_ends_all(tmp_path: Path) -> None:
    first, second = together(2, tmp_path, _bug)
    assert second == f"ZeroDivisionError: a bug ['{exchange.WITHDRAWN}']"
    assert first.startswith("LostProcessError: process 0 of 2 failed while gradients were exch")


def _another() -> str:
    """Each process has a task of its own."""
    try:
        trained(linear(samples=40 - 8 * exchange.rank(), size=4), 1, epochs=1)
    except InputError as error:
        return str(error)
    return "nothing was raised"


def test_processes_with_different_data_are_refused(tmp_path: Path) -> None:
    for said in together(2, tmp_path, _another):
        assert said.endswith("the processes have different data; give all of them one task")
