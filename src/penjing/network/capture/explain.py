"""Explain: what an exporter's error means, and which line of the user's code it is about."""

from __future__ import annotations

import linecache
import os
import re
import sysconfig
import traceback
from collections.abc import Sequence
from typing import Any

import torch

from penjing.tasks.outputs import of_another_type

Frames = Sequence[tuple[str, int]]
"""Files and line numbers of a stack, from the outermost call to the innermost."""
NOT_THE_USERS = tuple(
    os.path.join(folder, "")
    for folder in (
        os.path.dirname(torch.__file__),
        os.path.dirname(os.path.dirname(os.path.dirname(__file__))),
    )
)
"""Where torch and penjing lie, whose lines say nothing to the user."""
PYTHON = os.path.join(sysconfig.get_path("stdlib"), "")
LONGEST = 60  # characters of a line that is quoted
UNKNOWN_TYPE = re.compile(r"Found <class '([^']+)'> in output")
TAKES_A_NUMBER = re.compile(r"\b(int|float|range)\(|\.(item|tolist)\(")
CALLS = re.compile(r'File "([^"]+)", line (\d+)')
POST_PROCESSING = re.compile(r"nms|non_?max|post_?process|suppress|filter_proposals", re.IGNORECASE)
BRANCHES = re.compile(r"(el)?if\b|while\b|assert\b")


def explain(name: str, error: Exception, fixed: Sequence[Frames] = ()) -> str:
    """One line that says what an exporter's error means, and where in the user's code it is.

    Args:
        name: of the model's class.
        error: what the exporter raised.
        fixed: where the batch size became a number.
    """
    text = str(error)
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    first = lines[0] if lines else type(error).__name__
    calls = traceback.extract_tb(error.__traceback__)
    place, code = _line_in(frames_of(calls))
    if "Constraints violated" in text and fixed:
        place, code = _line_in(fixed[0])
    if "batch" in text and ("specializ" in text or "constant" in text or "Constraints" in text):
        hint = "write x.shape[0] or -1 in place of a number or len(x)"
        return f"{name} fixes the batch size{place}; {hint}"
    if "data-dependent" in text or "Data dependent" in text or "GuardOnDataDependent" in text:
        for call in calls:
            if POST_PROCESSING.search(call.name) and _is_users(call.filename):
                return f"{name} can't be captured{place}: {_about_post_processing(call.name)}"
        return f"{name} can't be captured{place}: {_about_data(code)}"
    if ".numpy()" in text:
        return (
            f"{name} can't be captured{place}: it leaves torch with .numpy(); stay in torch there"
        )
    unknown = UNKNOWN_TYPE.search(text)
    if unknown:
        return f"{name} can't be captured: it {of_another_type(unknown[1].rpartition('.')[2])}"
    return f"{name} can't be captured by torch.export{place}: {first[:300]}"


def of_number(meta: dict[str, Any]) -> str:
    """What to say of a number that is made from the data, by the metadata of its node."""
    calls = CALLS.findall(str(meta.get("stack_trace") or ""))
    place, code = _line_in([(file, int(number)) for file, number in calls])
    return f"{place}: {_of_number(code)}"


def frames_of(stack: traceback.StackSummary) -> Frames:
    """Where each call of a stack is."""
    return [(call.filename, call.lineno or 0) for call in stack]


def _line_in(frames: Frames) -> tuple[str, str]:
    """The innermost line of the user's, as ` at file.py:7`, and what it says; empty if none is."""
    for file, number in reversed(frames):
        if _is_users(file):
            return f" at {os.path.basename(file)}:{number}", linecache.getline(file, number).strip()
    return "", ""


def _is_users(file: str) -> bool:
    of_python = file.startswith(PYTHON) and "site-packages" not in file
    return not (of_python or file.startswith(NOT_THE_USERS)) and os.path.exists(file)


def _about_post_processing(function: str) -> str:
    return (
        f"{function}() is post-processing, whose steps depend on the data; give a module that "
        "returns what comes before it, and do it in the metric, as penjing.detection can"
    )


def _about_data(code: str) -> str:
    """What a line does that depends on the data, and what to write instead."""
    if code.startswith("assert"):
        return "it asserts something about the data; remove that line"
    if TAKES_A_NUMBER.search(code) and not BRANCHES.match(code):
        return _of_number(code)
    return "its control flow depends on the data; use torch.where or torch.cond"


def _of_number(code: str) -> str:
    quoted = code if len(code) <= LONGEST else f"{code[:LONGEST]}..."
    return (
        f"`{quoted}` makes a number of Python's from a tensor; keep it a tensor, or take a "
        "constant of the model with .item()"
    )
