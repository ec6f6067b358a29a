"""Whatever code a page shows was run, or is marked as output."""

from __future__ import annotations

import doctest
import os
import re
from pathlib import Path
from types import ModuleType

import pytest

from tests.docs import outputs, pages
from tests.docs.pages import DIRECTIVES, OUTPUT, RUN, Page, all_pages, run

PAGES = all_pages()
SLOW_PAGES = "PENJING_SLOW_PAGES"
"""In the environment: run the slow pages too, as `make test-docs` does."""


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_block_is_run_or_marked_as_output(page: Page) -> None:
    for block in page.blocks:
        directive = re.fullmatch(r"\{([a-z-]+)\}.*", block.kind)
        known = directive[1] in DIRECTIVES if directive else block.kind in (*RUN, *OUTPUT)
        assert known, f"{page.name}, line {block.line}: a block of kind {block.kind!r}"


@pytest.mark.parametrize("page", [page for page in PAGES if page.runs], ids=lambda page: page.name)
def test_every_block_runs(page: Page, tmp_path: Path) -> None:
    if page.missing:
        pytest.skip(f"the page requires {', '.join(page.missing)}")
    if page.slow and not os.environ.get(SLOW_PAGES):
        pytest.skip("slow: make test-docs runs it")
    run(page, tmp_path)


@pytest.mark.parametrize("module", [outputs, pages], ids=lambda module: module.__name__)
def test_the_examples_of_how_blocks_are_read_hold(module: ModuleType) -> None:
    failed, tried = doctest.testmod(module)
    assert tried
    assert not failed


def _page(folder: Path, text: str) -> Page:
    path = folder / "page.md"
    path.write_text(text)
    return Page(path)


@pytest.mark.parametrize(
    "text",
    [
        "```python\nassert 1 + 1 == 3\n```\n",
        "```python\n>>> 1 + 1\n3\n```\n",
        "```console\n$ false\n```\n",
        "```console\n$ true\n[exit 2]\n```\n",
        "```console\n$ true | false | true\n```\n",
    ],
)
def test_a_block_that_fails_is_seen(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    with pytest.raises(AssertionError):
        run(_page(tmp_path, text), tmp_path)


def test_blocks_of_a_page_share_names_and_a_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    text = (
        "---\nslow: true\n---\n# Title\n\n```python\nx = 1\n```\n"
        "\n```python\n>>> x += 1; x\n2\n```\n"
        "\n```{literalinclude} shown.py\n:language: python\n```\n"
        "\n```console\n$ python shown.py > file\nsome output\n$ exit 3\n[exit 3]\n```\n"
        "\n    indented\n\n"
        "```python\nfrom pathlib import Path\n\nassert x == int(Path('file').read_text())\n```\n"
    )
    (tmp_path / "shown.py").write_text("print(2)")
    page, folder = _page(tmp_path, text), tmp_path / "folder"
    folder.mkdir()
    kinds = ["python", "python", "{literalinclude} shown.py", "console", "indented", "python"]
    assert [block.kind for block in page.blocks] == kinds
    assert [text.splitlines()[block.line - 1].strip() for block in page.blocks] == [
        block.text.splitlines()[0].strip() for block in page.blocks
    ]
    assert page.slow
    assert page.runs
    run(page, folder)


def test_outputs_are_written_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "ROOT", tmp_path)
    text = (
        "# Title\n\n```console\n$ echo 1; echo 2\nold\n$ echo hidden\n$ exit 3\n[exit 3]\n```\n\n"
        "Between.\n\n```console\n$ echo \\\n    3\nold\nolder\n$ echo 4\nfirst\n...\nlast\n"
        "$ printf '5\\n\\n6'\nold five\n...\n```\n"
    )
    page = _page(tmp_path, text)
    outputs.refresh(page, tmp_path)
    wanted = text.replace("\nold\n$ echo h", "\n1\n2\n$ echo h").replace("old\nolder", "3")
    assert page.path.read_text() == wanted.replace("old five", "5")
