"""Sphinx: how the documentation is built. `make docs` does it, and any warning fails it."""

from __future__ import annotations

import sys
from pathlib import Path

from penjing.version import __version__

sys.path.append(str(Path(__file__).parent / "extensions"))

project = "penjing"
author = "the authors of penjing"
copyright = "the authors of penjing; Apache-2.0"
release = version = __version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "docstrings",  # what reStructuredText and napoleon would misread in them
    "command_line",  # the reference of the command line, from the program itself
    "names",  # `name` in a docstring is a link wherever the reference has that name
    "tables",  # the runtimes and targets, from the package's own tables
]
exclude_patterns = ["_build"]
default_role = "name"
smartquotes = False  # flags and quotes stay as they are written

html_theme = "furo"
html_title = f"penjing {__version__}"
html_show_sphinx = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
autodoc_mock_imports = [  # so that every runtime's page builds where only ONNX Runtime is installed
    "ai_edge_litert",
    "executorch",
    "flatbuffers",
    "litert_torch",
    "openvino",
]
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88
napoleon_numpy_docstring = False
napoleon_use_ivar = True

# The build needs no network, so it knows no other project's names. Those are shown without a link.
nitpick_ignore_regex = [("py:.*", r"(torch|nn|fx|np|numpy|onnx|pathlib|collections|enum|abc)\b.*")]
nitpick_ignore = [
    ("py:class", "penjing.trials.evaluation.instruments.Instruments"),  # tests alone give them
    ("py:class", "penjing.network.axes.algebra.Axis"),  # inside of what a user reads
    ("py:class", "penjing.network.axes.groups.Site"),
    ("py:class", "penjing.trials.contract.Watch"),
    ("py:class", "penjing.search.predict.known.Known"),
    ("py:class", "penjing.runtimes.onnx.session.Provider"),
]
