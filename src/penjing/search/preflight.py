"""Preflight: what is checked of a fit's options before anything else."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import numpy as np
import torch

from penjing.contract import Array, as_arrays
from penjing.errors import InputError, MachineError
from penjing.files import require_writable_folder
from penjing.measure import scores
from penjing.network import Network
from penjing.search.result import Result
from penjing.search.workshop import STEM
from penjing.task import Batches, Task, as_call


def check_options(max_drop: float, minutes: float, goal: str, confidence: float) -> None:
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
