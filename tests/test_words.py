"""Words: no name, text or page uses a word of penjing's own where the field has one.

`WORDS` is the table: what to look for, what to say instead, and where the same letters mean
something else. To allow another such place, add it to the row.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
CODE = sorted((ROOT / "src").rglob("*.py"))
FILES = [
    *CODE,
    *(path for path in sorted((ROOT / "docs").rglob("*.md")) if "_build" not in path.parts),
    *(path for name in ("README.md", "CONTRIBUTING.md") if (path := ROOT / name).exists()),
    *sorted((ROOT / "examples").rglob("*.py")),
    *sorted((ROOT / "examples").rglob("*.md")),
]
NAMES = {"one", "found"}
"""What no variable, parameter or attribute of the package is called; its name says what it holds.
"""


@dataclass(frozen=True)
class Word:
    """A word to avoid.

    Attributes:
        pattern: a regular expression. It is searched in a line whose identifiers are split into
            words ("GridPoint" and "grid_point" are "Grid Point" and "grid point"), in either case.
        instead: what to write.
        allowed: where the same letters are fine, as a regular expression.
        fine_in: files in which the word always means something else.
    """

    pattern: str
    instead: str
    allowed: str = r"(?!)"
    fine_in: tuple[str, ...] = ()


WORDS = [
    Word(r"workshops?", "evaluator"),
    Word(r"fixed ?lists?", "strategy"),
    Word(r"rungs?", "scheme"),
    Word(r"class elsewhere", "strategy"),  # the adverb is English
    Word(
        r"grids?", "scale, quantization parameters, integer range, or points",
        allowed=r"mesh ?grid|grid_sampler|affine_grid_generator|axes\.grid|GridSpec",
    ),
    Word(r"lock ?-?steps?", "activation cache"),
    Word(
        r"test looks|looks? (taken|at the test)|(number of|several|all) looks|looks: ",
        "test-set evaluations",
        allowed=r"OLD_NAMES = .*",  # what older results hold
    ),
    Word(r"price.?lists?", "cost model"),
    Word(r"fore(tell|tells|told|telling)", "predict"),
    Word(r"reckon(s|ed|ing)?", "estimate"),
    Word(
        r"demand(s|ed|ing)?", "constraint, requirement, or require",
        allowed=r"on[ -]demand",
    ),
    Word(r"keepers?", "remote agent"),
    Word(
        r"workers?", "process (of data-parallel training)",
        allowed=r"(num|persistent)_workers|.*([Ll]oader|loads data).*",
        fine_in=("src/penjing/tasks/batches.py", "src/penjing/tasks/splits.py"),  # a DataLoader's
    ),
]  # fmt: skip


def _split(line: str) -> str:
    """The line with identifiers split into words."""
    return re.sub(r"(?<=[a-z0-9])(?=[A-Z])|_", " ", line)


def _wrong(text: str, file: str = "") -> Iterator[str]:
    """Each wrong word, with its line and what to say instead."""
    words = [word for word in WORDS if file not in word.fine_in]
    for number, line in enumerate(text.splitlines(), start=1):
        for word in words:
            rest = _split(re.sub(word.allowed, " ", line))
            match = re.search(rf"(?i)(?<![a-z])({word.pattern})(?![a-z])", rest)
            if match:
                yield f"{number}: {match[0]!r}; say {word.instead}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_word_of_our_own_is_left(path: Path) -> None:
    file = path.relative_to(ROOT).as_posix()
    lines = [f"{file}:{line}" for line in _wrong(path.read_text(), file)]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize("path", CODE, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_variable_is_called_after_what_it_holds(path: Path) -> None:
    lines = []
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Name | ast.Attribute | ast.arg):
            continue
        if not isinstance(getattr(node, "ctx", ast.Store()), ast.Store):
            continue
        name = getattr(node, "id", None) or getattr(node, "attr", None) or getattr(node, "arg", "")
        if name in NAMES:
            lines.append(f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}: {name!r}")
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("grid = 1", "grid"), ("on_one_grid(node)", "grid"), ("values on grids of", "grids"),
        ("class GridOf:", "Grid"), ("LADDER[rung]", "rung"), ("class FixedList:", "Fixed List"),
        ("test_looks=looks", "test looks"), ("the runtime's demands", "demands"),
        ("def foretold():", "foretold"), ("the workers of torchrun", "workers"),
        ("a price list", "price list"), ("class Elsewhere(Strategy):", "class Elsewhere"),
    ],
)  # fmt: skip
def test_a_wrong_word_is_found_with_its_line(text: str, word: str) -> None:
    (line,) = _wrong(f"fine\n{text}")
    assert line.startswith(f"2: {word!r}; say ")


@pytest.mark.parametrize(
    "text",
    [
        "torch.meshgrid(*axes)", "aten.grid_sampler.default", "axes.grid(alpha=0.3)",
        "DataLoader(data, num_workers=2)", "a DataLoader's worker died", "0 elsewhere",
        "it looks at the first samples", "computed on demand", "the housekeepers", "a gridlock",
    ],
)  # fmt: skip
def test_the_same_letters_with_another_meaning_are_fine(text: str) -> None:
    assert not list(_wrong(text))
