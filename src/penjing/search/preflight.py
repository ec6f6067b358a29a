"""Preflight: checks of a fit's options and task before anything else."""

from __future__ import annotations

from collections.abc import Callable, Sized
from pathlib import Path

import numpy as np
import torch

from penjing.contract import as_arrays
from penjing.errors import InputError
from penjing.measure import scores
from penjing.measure.scores import Scores
from penjing.network import Network
from penjing.search.budget import Budget
from penjing.search.memory import judged_on_unseen
from penjing.tasks.batches import Reading
from penjing.tasks.checks import check, require_scores, require_telling_scores
from penjing.tasks.overlap import require_apart
from penjing.tasks.reading.indexed import Indexed
from penjing.tasks.splits import with_validation
from penjing.tasks.targets import are_classes
from penjing.tasks.task import Batches, Task, as_call
from penjing.trials.result import Result
from penjing.tune.options import TuneOptions

ADAM = 2e-3
"""The peak learning rate of AdamW."""


def prepare(
    task: Task, budget: Budget, say: Callable[[str], object] = lambda _: None
) -> tuple[Task, float, tuple[str, ...]]:
    """Check the whole task, and set validation data aside if there is none.

    Args:
        task: what the user gave.
        budget: what may be lost.
        say: called often with a line for people.

    Returns:
        The checked task, the budget in its metric's unit, and notes for the user, one line each.

    Raises:
        InputError: describes the first problem with the model, the data, the metric or the loss.
    """
    given, (task, note) = task, with_validation(task)
    task, notes = check(task, say)
    assert task.validation is not None
    require_scores(task, task.validation, loss=True)
    require_telling_scores(task, task.validation)
    max_drop, more = budget.in_units(task)
    if note:
        judged, note = judged_on_unseen(task, given, note, max_drop, say)
        task, notes = (task, notes) if judged is task else check(judged, say)
    notes = (*((note,) if note else ()), *notes, *require_apart(task, say), *more)
    for batches in (task.train, task.validation, task.test):
        if isinstance(batches, Reading) and not isinstance(batches, Sized):
            batches.count(say)  # once; whoever asks again is told what was counted
    return task, max_drop, notes


def require_same_run(out: Path, earlier: Result, wanted: Result) -> None:
    """Raise InputError if the two fits differ in the model, the data, the target or an option that
    affects the result. The message lists all differences."""
    differences = []
    for name in ("task", "target", "goal", "max_drop", "max_ms", "max_kb", "confidence", "seed"):
        then, now = getattr(earlier, name), getattr(wanted, name)
        if then != now:
            differences.append(f"{name} (was {then!r}, now {now!r})")
    for name in {**wanted.versions, **earlier.versions}:
        then, now = earlier.versions.get(name), wanted.versions.get(name)
        if then != now:
            differences.append(f"{name} (was {then}, now {now})")
    names = {**wanted.identity, **earlier.identity}
    differences += [
        name for name in names if earlier.identity.get(name) != wanted.identity.get(name)
    ]
    if differences:
        raise InputError(
            f"`resume`: since the fit in {out} was started, these have changed: "
            f"{', '.join(differences)}; use the same as before, or choose another `out`"
        )


def require_better_than_chance(metric: str, original: Scores, validation: Batches) -> None:
    """Raise InputError if a classifier isn't better than one that always gives the same answer."""
    if metric != "accuracy":
        return
    given = validation.batches if isinstance(validation, Reading) else validation
    if isinstance(given, Indexed):
        targets = given.y.numpy()
    else:
        targets = np.concatenate([as_arrays(y) for _, y in validation])
    if scores.is_at_chance(original.figure, targets):
        raise InputError(
            f"the model is no better than chance: its accuracy is {original.figure:.1%} on "
            f"{len(targets)} validation samples, and always answering the most common class gives "
            f"{scores.chance(targets):.1%}; check the labels, the preprocessing and the checkpoint"
        )


def usual_training(task: Task, network: Network, seed: int) -> TuneOptions:
    """How networks are trained: with distillation where the original gives scores of classes.

    Losses of other tasks are of any size, so AdamW trains them, whose steps don't depend on that.
    The detector of the examples, at half of its MACs, lost 0.041 of its mean average precision
    after 1.5 epochs so, and 0.068 with SGD; distillation changed neither clearly.
    """
    if distillable(task, network):
        return TuneOptions(distill=0.9, seed=seed)
    return TuneOptions(optimizer="adamw", lr=ADAM, weight_decay=0.01, distill=0.0, seed=seed)


def distillable(task: Task, network: Network) -> bool:
    """Whether the targets are classes, and the outputs are scores of at least two classes."""
    _, targets = next(iter(task.train))
    if not are_classes(targets):
        return False
    args, kwargs = as_call(task.example)
    with torch.no_grad():
        outputs = torch.utils._pytree.tree_leaves(network(*args, **kwargs))[0]
    return bool(outputs.dim() > 1 and outputs.shape[1] > 1)
