"""The role `name`: a name in code, linked wherever the reference has it.

Docstrings put all code between single backticks, whether it is a name of penjing's or not. So what
isn't found is no mistake here, as it would be for `py:obj`.
"""

from __future__ import annotations

from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.domains.python import PyXRefRole

MARK = "may_be_missing"


class NameRole(PyXRefRole):
    """As `py:obj`, but for what happens to a name that isn't documented."""

    def process_link(
        self, env: Any, refnode: Any, has_explicit_title: bool, title: str, target: str
    ) -> tuple[str, str]:
        """Mark the reference, and look for the name everywhere."""
        title, target = super().process_link(env, refnode, has_explicit_title, title, target)
        refnode["refdomain"], refnode["reftype"] = "py", "obj"
        refnode[MARK] = refnode["refspecific"] = True
        return title, target


def _as_plain_code(
    app: Sphinx, env: Any, node: pending_xref, content: nodes.Element
) -> nodes.Element | None:
    return content if node.get(MARK) else None


def setup(app: Sphinx) -> dict[str, bool]:
    """Called by Sphinx."""
    app.add_role("name", NameRole())
    app.connect("missing-reference", _as_plain_code)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
