"""Requirements: what a rule needs before it can be judged, looked at before any long work."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

from penjing.contract import POINTS, Parity, as_arrays
from penjing.device.runner import RUNTIMES
from penjing.errors import InputError
from penjing.layout import counted
from penjing.measure.parity import parity
from penjing.measure.scores import Scores
from penjing.tasks.metrics import scored
from penjing.tasks.task import as_call
from penjing.tools.check.subject import Loaded, Subject
from penjing.tools.inputs import random_inputs, require_same_inputs
from penjing.tools.on_data import require_runs
from penjing.trials.judgement.wording import amount, confident


def require_placement(subject: Subject) -> None:
    """Raise InputError if the runtime doesn't tell where operators run."""
    if not subject.file.placement:
        raise InputError(
            f"{subject.place}: no_operators_on can't be judged, because "
            f"{subject.file.runtime.name} doesn't tell where it runs the file's operators; leave "
            "the rule out"
        )


def require_known_memory(subject: Subject) -> None:
    """Raise InputError if no process of its own can run the file."""
    if subject.file.runtime.name not in RUNTIMES:
        raise InputError(
            f"{subject.place}: max_memory_mb can't be judged in {subject.file.runtime.name}; its "
            f"runtime must be one of {', '.join(RUNTIMES)}"
        )


def require_measurable_time(subject: Subject) -> None:
    """Raise InputError if a file's time would mean nothing, or if the two can't be run on the same
    inputs."""
    file, reference = subject.file, subject.compared
    for loaded in (file, reference):
        if loaded.runtime.stand_in:
            raise InputError(
                f"{subject.place}: max_time_ratio can't be judged, because {loaded.runtime.name} "
                "only simulates its device on this machine, so times would mean nothing; leave the "
                "rule out"
            )
    taken = {reference.name: reference.session.inputs, file.name: file.session.inputs}
    try:
        require_same_inputs(taken)
        inputs = random_inputs(file.session.inputs)
        for loaded in (reference, file):
            require_runs(loaded.name, loaded.session, inputs)
    except InputError as error:
        raise InputError(f"{subject.place}: {error}") from error


def require_right_way(subject: Subject) -> None:
    """Raise InputError for a least figure where less is better, or the other way round."""
    metric = subject.file.task.metric
    wrong, right = ("max_score", "min_score") if metric.higher else ("min_score", "max_score")
    if wrong in subject.limits:
        better = "higher" if metric.higher else "lower"
        raise InputError(
            f"{subject.place}: {wrong} can't hold for the metric {metric.name}, of which a "
            f"{better} figure is better; write {right}"
        )


def require_certifiable(subject: Subject) -> None:
    """Raise InputError if the test data is too small to certify even a file that changes nothing.

    For that, the original or the reference is run on the test data, as it must be anyway.
    """
    if "max_drop" in subject.limits:
        _require_enough(subject, "max_drop", subject.file.by_task.scores)
    if "max_drop_to_reference" in subject.limits:
        require_takes_the_data(subject.place, subject.compared)
        _require_enough(subject, "max_drop_to_reference", subject.compared.scores)


def _require_enough(subject: Subject, key: str, scores: Scores) -> None:
    limit, confidence = subject.limits[key], subject.conditions.confidence
    unit = subject.file.task.metric.unit
    if unit == POINTS and limit > 100:
        raise InputError(
            f"{subject.place}: {key} must be points between 0 and 100 (1.0 is one percentage "
            f"point); found {limit:g}"
        )
    least = scores.least(limit, confidence)
    if least is not None and len(scores) >= least:
        return
    more = f"give {least} test samples, or " if least else ""
    raise InputError(
        f"{subject.place}: {counted(len(scores), 'test sample')} can't certify {key} = "
        f"{amount(limit, unit)} with {confident(confidence)}, not even for a file that answers "
        f"exactly alike; {more}allow a larger {key}"
    )


def require_takes_the_data(place: str, file: Loaded) -> None:
    """Raise InputError if the file can't be run on the task's test data, or if the metric doesn't
    take what it gives."""
    inputs, targets = next(iter(file.task.test))
    try:
        outputs = file.on_data.run(as_arrays(inputs))
        scored(file.task.metric, outputs, as_arrays(targets))
    except InputError as error:
        raise InputError(f"{place}: {error}") from error


def require_decisions(subject: Subject) -> None:
    """Raise InputError if the file gives something else than the model, or no scores of classes."""
    if _first_agreement(subject).same_decisions is None:
        raise InputError(
            f"{subject.place}: min_same_decisions needs outputs that are scores of classes; "
            "hold the file to max_drop instead"
        )


def _first_agreement(subject: Subject) -> Parity:
    """How close the outputs are for the first batch."""
    file = subject.file
    inputs, targets = next(iter(file.task.test))
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        wanted = pytree.tree_leaves(file.by_task.network(*args, **kwargs))
    shapes = [list(leaf.shape) for leaf in wanted]
    given = [list(leaf.shape) for leaf in pytree.tree_leaves(file.on_data.run(as_arrays(inputs)))]
    if given != shapes:
        raise InputError(
            f"{subject.place}: min_same_decisions needs the outputs of the task's model, of shape "
            f"{', '.join(map(str, shapes))}; found {', '.join(map(str, given))}; name the model "
            "that the file was made from"
        )
    return parity(file.by_task.network, file.on_data, [(inputs, targets)])
