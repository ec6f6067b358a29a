"""The directives `runtimes-table` and `targets-table`, from the package's own tables."""

from __future__ import annotations

from collections.abc import Callable

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.util.docutils import SphinxDirective

from penjing.runtimes.registry import ENTRIES
from penjing.targets import described, in_words


def runtimes() -> str:
    """Every runtime with its files and how to install it, as Markdown."""
    lines = ["| runtime | file ends in | installed by | what it is |", "|---|---|---|---|"]
    for name, entry in ENTRIES.items():
        shown = f"`{entry.command}`" if entry.command and not entry.also else entry.install
        lines.append(f"| `{name}` | `{entry.ending}` | {shown} | {entry.about} |")
    return "\n".join(lines)


def targets() -> str:
    """Every target that is described, as Markdown."""
    lines = ["| target | what it is | memory | flash | runtimes |", "|---|---|---|---|---|"]
    for name, target in described().items():
        sizes = [
            "" if size is None else in_words(size)
            for size in (target.memory_bytes, target.flash_bytes)
        ]
        runs = ", ".join(target.runtimes)
        lines.append(f"| `{name}` | {target.description} | {' | '.join(sizes)} | {runs} |")
    return "\n".join(lines)


def _directive(text: Callable[[], str]) -> type[SphinxDirective]:
    class Table(SphinxDirective):
        def run(self) -> list[nodes.Node]:
            return self.parse_text_to_nodes(text())

    return Table


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_directive("runtimes-table", _directive(runtimes))
    app.add_directive("targets-table", _directive(targets))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
