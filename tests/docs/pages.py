"""Pages of the documentation, their code blocks, and how those are run.

How a block is fenced says what becomes of it:

    python              run, in order, with the names of the page's blocks before it; if it has
                        `>>>`, by doctest
    python printed      the same, and the last command of the console block before printed it, but
                        for its numbers
    console             each line after `$ ` is run by bash, in one temporary folder for the page;
                        all else is output. A command ends well, or its output ends with a line
                        such as `[exit 2]`. A line after `> ` goes on with the command
    text, output,       output, or an illustration
    json, toml
    {literalinclude}    a file that the page shows; the blocks find it in their folder

Commands find the repository's folder in `PENJING`. Whatever can't run without a device, a GPU or
the network is `text`. A page says in its front matter what it needs beside penjing itself, and
whether it takes long:

    ---
    requires: [litert, openvino, shared]
    slow: true
    ---

A fit that is shown with minutes is run with fewer (`MINUTES`), so that it ends soon.

`tests/docs/outputs.py` writes what the commands print now into the pages.
"""

from __future__ import annotations

import contextlib
import doctest
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import textwrap
import traceback
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt

ROOT = Path(__file__).parents[2]
SHARED = ROOT.parent / "shared"
RUN, OUTPUT = ("python", "console"), ("text", "output", "json", "toml")
DIRECTIVES = {
    "command-line", "eval-rst", "figure", "image", "include", "literalinclude",
    "runtimes-table", "targets-table", "toctree",
}  # fmt: skip
"""Fences with braces that hold no code."""
MODULES = {
    "demo": "sklearn",
    "torchmetrics": "torchmetrics",
    "openvino": "openvino",
    "executorch": "executorch",
    "litert": "litert_torch",
    "ethosu": "ethosu",
    "executorch-ethosu": "tosa_reference_model",
    "qnn": "onnxruntime_qnn",
}
"""By extra of penjing's, a module that it installs."""
PRINTED = " printed"
INCLUDED = "{literalinclude}"
MINUTES = "0.2"
SECONDS = 300
FRONT_MATTER = re.compile(r"\A---\n(.*?)^---\n", re.S | re.M)
IN_COMMENT = re.compile(r"\A<!--\s*(requires:[^>]*?)\s*-->\n", re.S)


@dataclass(frozen=True)
class Block:
    """A code block.

    Attributes:
        kind: what stands behind its fence; `"indented"` if it has none.
        line: of the page, on which its text begins.
        was_printed: whether a command before it printed it.
    """

    kind: str
    text: str
    line: int
    was_printed: bool = False


@dataclass(frozen=True)
class Page:
    """A Markdown file of the documentation."""

    path: Path

    @property
    def name(self) -> str:
        """Its place in the repository."""
        return str(self.path.relative_to(ROOT))

    @property
    def blocks(self) -> list[Block]:
        """All code blocks, in order."""
        text = self.path.read_text()
        head = FRONT_MATTER.match(text)
        skipped = head[0].count("\n") if head else 0
        tokens = MarkdownIt("commonmark").parse("".join(text.splitlines(True)[skipped:]))
        return [
            Block(
                token.info.strip().removesuffix(PRINTED) if token.type == "fence" else "indented",
                token.content,
                skipped + token.map[0] + (2 if token.type == "fence" else 1),
                token.info.strip().endswith(PRINTED),
            )
            for token in tokens
            if token.type in ("fence", "code_block") and token.map is not None
        ]

    @property
    def runs(self) -> bool:
        """Whether it has a block that is run."""
        return any(block.kind in RUN for block in self.blocks)

    @property
    def slow(self) -> bool:
        """Whether its front matter calls it slow."""
        return "slow: true" in self._head

    @property
    def missing(self) -> list[str]:
        """What it requires and this machine lacks."""
        told = re.search(r"^requires: \[(.*)\]", self._head, re.M)
        wanted = [name.strip() for name in told[1].split(",")] if told else []
        return [name for name in wanted if not _is_here(name)]

    @property
    def _head(self) -> str:
        text = self.path.read_text()
        head = FRONT_MATTER.match(text) or IN_COMMENT.match(text)
        return head[1] if head else ""


def all_pages() -> list[Page]:
    """The README and all that is in the documentation's folder."""
    paths = sorted((ROOT / "docs").rglob("*.md"))
    return [Page(ROOT / "README.md"), *(Page(p) for p in paths if "_build" not in p.parts)]


def _is_here(name: str) -> bool:
    if name == "shared":
        return SHARED.is_dir()
    return importlib.util.find_spec(MODULES[name]) is not None


def run(page: Page, folder: Path, as_printed: bool = True) -> dict[int, list[str]]:
    """Run the page's blocks in order, in `folder`.

    Args:
        as_printed: hold what a page says that a command printed against what it did print.

    Returns:
        What each command of a console block printed, by the block's line.

    Raises:
        AssertionError: one ends otherwise than the page says.
    """
    printed: dict[int, list[str]] = {}
    last = ""
    names: dict[str, Any] = {"__name__": "__main__"}
    with contextlib.chdir(folder), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for block in page.blocks:
            if block.kind.startswith(INCLUDED):
                shutil.copy(page.path.parent / block.kind.removeprefix(INCLUDED).strip(), folder)
            if block.kind == "console":
                printed[block.line] = [*_run_console(page, block, folder)]
                last = printed[block.line][-1]
            if block.was_printed and as_printed:
                where = f"{page.name}, line {block.line}: the command before printed something else"
                assert _without_figures(block.text) in _without_figures(last), where
            if block.kind == "python" and ">>> " in block.text:
                _run_examples(page, block, names)
            elif block.kind == "python":
                _run_python(page, block, names)
    return printed


def _without_figures(text: str) -> str:
    return re.sub(r"\d[\d.e-]*", "0", text.strip())


def with_few_minutes(text: str) -> str:
    """The code with the minutes that the tests have.

    >>> with_few_minutes("penjing fit digits --minutes 10; fit(task, minutes=10.5)")
    'penjing fit digits --minutes 0.2; fit(task, minutes=0.2)'
    """
    return re.sub(r"(--minutes |\bminutes=)[\d.]+", rf"\g<1>{MINUTES}", text)


def _run_python(page: Page, block: Block, names: dict[str, Any]) -> None:
    text = "\n" * (block.line - 1) + with_few_minutes(block.text)
    try:
        exec(compile(text, page.name, "exec"), names)
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__, 2)]
        told = "".join(traceback.format_exception(error)[-8:])
        raise AssertionError(f"{page.name}, line {lines[-1]}:\n{told}") from None


def _run_examples(page: Page, block: Block, names: dict[str, Any]) -> None:
    test = doctest.DocTestParser().get_doctest(
        block.text, names, page.name, str(page.path), block.line - 1
    )
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    outcome: list[str] = []
    doctest.DocTestRunner(optionflags=flags).run(test, out=outcome.append, clear_globs=False)
    names.update(test.globs)
    assert not outcome, "".join(outcome)


def commands(text: str) -> Iterator[tuple[str, int]]:
    """Each command of a console block, and the code with which it is said to end.

    >>> list(commands("$ true\\nsome output\\n$ a \\\\\\n    b\\nsorry\\n[exit 2]\\n"))
    [('true', 0), ('a \\\\\\n    b', 2)]
    """
    for part in re.split(r"^\$ ", text, flags=re.M)[1:]:
        lines = part.rstrip("\n").split("\n")
        length = 1
        while lines[length - 1].endswith("\\") or (
            length < len(lines) and lines[length].startswith("> ")
        ):
            length += 1
        said = re.fullmatch(r"\[exit (\d+)\]", lines[-1])
        command = "\n".join(line.removeprefix("> ") for line in lines[:length])
        yield command, int(said[1]) if said else 0


def _run_console(page: Page, block: Block, folder: Path) -> Iterator[str]:
    """What each command prints."""
    binaries = str(Path(sys.executable).parent)
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT / "src"),
        "COLUMNS": "80",
        "PENJING": str(ROOT),
    }
    for command, code in commands(block.text):
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", with_few_minutes(command)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=folder, env=environment, timeout=SECONDS,
        )  # fmt: skip
        output = textwrap.indent(done.stdout[-4000:], "    ")
        where = f"{page.name}, line {block.line}: {command}"
        assert done.returncode == code, f"{where}\nended with {done.returncode}:\n{output}"
        yield done.stdout
