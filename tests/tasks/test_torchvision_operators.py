"""A task may import torchvision where its library can't be loaded, as on a CPU build of torch."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

LIKE_TORCHVISION = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(boxes, scores, least):
    return boxes.new_empty(len(boxes), dtype=torch.int64)
"""
TASK = """
import torch
import torchvision
from penjing import Arrays, Task

data = Arrays(torch.zeros(4, 3), torch.arange(4) % 2)
task = Task(torch.nn.Linear(3, 2), data.x[:2], data, data, name="read")
"""


@pytest.mark.parametrize(
    ("before", "ends"),
    [("", "does not exist"), ("from penjing.tasks.reference import find_task as read", "read")],
)
def test_a_task_that_imports_it_is_read(tmp_path: Path, before: str, ends: str) -> None:
    """A stand-in, which fails as torchvision does if nothing declares its operators."""
    package = tmp_path / "torchvision"
    package.mkdir()
    (package / "__init__.py").write_text(LIKE_TORCHVISION)
    (package / "_C.so").write_text("built for CUDA")
    (tmp_path / "own.py").write_text(TASK)
    script = f"{before}\nprint(read('own.py').name)" if before else "import own"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=tmp_path, capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])},
    )  # fmt: skip
    assert ends in (done.stdout if before else done.stderr), done.stderr
    assert (done.returncode == 0) == bool(before)
