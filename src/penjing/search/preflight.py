"""Preflight: what is checked of a fit's options and its task before anything else."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import torch

from penjing.checks import check, require_scores
from penjing.contract import Array, as_arrays
from penjing.errors import InputError, MachineError
from penjing.files import require_writable_folder
from penjing.measure import scores
from penjing.network import Network
from penjing.overlap import require_apart
from penjing.search.result import Result
from penjing.search.workshop import STEM
from penjing.splits import with_validation
from penjing.task import Batches, Task, as_call

SMALLEST_BUDGET = 0.05
"""Points; whoever asks for less may have meant hundredths."""
MOST_SEED = 2**63


def check_options(
    max_drop: float, minutes: float, goal: str, confidence: float, seed: int = 0
) -> None:
    """Raise InputError for an option that is out of range."""
    if not (math.isfinite(max_drop) and 0 <= max_drop <= 100):
        raise InputError(
            f"--max-drop must be points between 0 and 100 (1.0 is one percentage point); "
            f"found {max_drop}"
        )
    if not (math.isfinite(minutes) and minutes > 0):
        raise InputError(f"--minutes must be a positive number; found {minutes}")
    if goal not in ("latency", "size"):
        raise InputError(f"--goal must be latency or size; found {goal!r}")
    if not 0.5 <= confidence < 1:
        raise InputError(f"--confidence must be in [0.5, 1); found {confidence}")
    if not 0 <= seed < MOST_SEED:
        raise InputError(f"--seed must be a whole number from 0 on; found {seed}")


def ready(task: Task, max_drop: float) -> tuple[Task, tuple[str, ...]]:
    """The task with validation data and all of it checked, and what to know of it, a line each.

    Raises:
        InputError: the first thing found wrong with the model, the data, the metric or the loss.
    """
    task, note = with_validation(task)
    task, notes = check(task)
    assert task.validation is not None
    require_scores(task, task.validation, loss=True)
    notes = (*((note,) if note else ()), *notes, *require_apart(task))
    if 0 < max_drop < SMALLEST_BUDGET:
        notes += (
            f"the budget is {max_drop:g} points, that is {max_drop:g} %; one percentage point is "
            "--max-drop 1.0",
        )
    return task, notes


def claim_folder(out: Path, overwrite: bool, resume: bool) -> Path:
    """The folder for the results, proven writable; an earlier result only with an option.

    Raises:
        InputError: it holds something already, or nothing to resume.
        MachineError: it can't be written.
    """
    try:
        if out.exists() and not out.is_dir():
            raise MachineError(f"--out {out} is a file; choose a folder")
        taken = out.is_dir() and any(out.iterdir())
    except OSError as error:
        raise MachineError(f"--out {out} can't be read: {error.strerror}") from error
    earlier = (out / "result.json").exists()
    if overwrite and resume:
        raise InputError("--overwrite and --resume exclude each other; give one of them")
    if resume and not earlier:
        raise InputError(f"--out {out} holds no result.json to resume; leave --resume away")
    if taken and not (earlier and (overwrite or resume)):
        hint = "--overwrite replaces it, --resume goes on" if earlier else "choose another"
        raise InputError(f"--out {out} exists and is not empty; {hint}")
    require_writable_folder(out)
    return out


def require_same_run(out: Path, wanted: Result) -> None:
    """Raise InputError unless the result in `out` came of the same task, target and options."""
    found = Result.load(out)
    for name in ("task", "target", "goal", "max_drop", "confidence", "seed", "versions"):
        earlier, now = getattr(found, name), getattr(wanted, name)
        if earlier != now:
            raise InputError(
                f"--resume: {out} was begun with {name} {earlier!r}, now it is {now!r}; "
                "take the same, or another --out"
            )


def clear(out: Path) -> None:
    """Remove an earlier result, once nothing speaks against the new one."""
    if (out / "result.json").exists():
        for name in ("result.json", "report.md", "plot.png"):
            (out / name).unlink(missing_ok=True)
        for one in out.glob(f"{STEM}*"):
            one.unlink()
        shutil.rmtree(out / "candidates", ignore_errors=True)


def require_better_than_chance(metric: str, found: Array, validation: Batches) -> None:
    """Raise InputError if a classifier is no better than one that always gives the same answer."""
    if metric != "accuracy":
        return
    targets = np.concatenate([as_arrays(y) for _, y in validation])
    if scores.is_at_chance(found, targets):
        raise InputError(
            f"the model's accuracy is at chance: {found.mean():.1%} on {len(targets)} validation "
            "samples, and always answering the commonest class gives "
            f"{scores.chance(targets):.1%}; check the labels, the preprocessing and the checkpoint"
        )


def distillable(task: Task, network: Network) -> bool:
    """Whether the targets are classes and the outputs are scores of two or more."""
    _, targets = next(iter(task.train))
    args, kwargs = as_call(task.example)
    with torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(network(*args, **kwargs))[0]
    return not targets.is_floating_point() and outputs.dim() > 1 and outputs.shape[1] > 1
