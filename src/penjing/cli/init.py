"""`penjing init`: a task file to begin from, which is one of the examples."""

from __future__ import annotations

import os
import re
import shlex
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import typer

from penjing.cli.console import print_lines, print_prose
from penjing.errors import InputError
from penjing.printable import in_a_line


@dataclass(frozen=True)
class Kind:
    """A kind of task, and the example that shows it.

    Attributes:
        example: the name of its file.
        shows: what it is, as a noun.
        words: what follows `penjing fit FILE`.
        package: what else it imports, and how that is installed.
    """

    example: str
    shows: str
    words: str = "--max-drop 1.0"
    package: tuple[str, str] | None = None


SKLEARN = ("sklearn", "'penjing[demo]'")
KINDS = {
    "detection": Kind("detector.py", "a detector of digits", "--max-drop 0.01", SKLEARN),
    "segmentation": Kind("segmentation.py", "a network that segments digits", package=SKLEARN),
    "audio": Kind("keywords.py", "a network that spots keywords"),
    "text": Kind("text.py", "a transformer that classifies lines of text"),
    "regression": Kind("forecast.py", "a forecaster with an error in kW", "--max-drop 5%"),
    "anomaly": Kind("anomaly.py", "an autoencoder that finds anomalies", "--max-drop 0.5"),
    "images": Kind(
        "timm_model.py",
        "a model of timm's with folders of images",
        "--task-arg images=FOLDER --max-drop 1.0",
        ("timm", "timm"),
    ),
}


def names_of_kinds(incomplete: str) -> list[str]:
    """The kinds that begin so, for the shell's completion."""
    return [name for name in KINDS if name.startswith(incomplete)]


def init(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help=f"What it is about: {', '.join(KINDS)}.",
            autocompletion=names_of_kinds,
        ),
    ],
    file: Annotated[
        Path,
        typer.Argument(metavar="[FILE]", help="Where to write it; mytask.py if none is given."),
    ] = Path("mytask.py"),
) -> None:
    """Write a task file to begin from, which is one of penjing's examples.

    It has a network, data, a loss and a metric, and is trained as it stands; images alone needs
    folders of yours. Put your own network and data in their places.
    """
    from penjing.files import write_atomically

    if kind not in KINDS:
        raise InputError(f"there is no kind {kind!r}; kinds are {', '.join(KINDS)}")
    chosen = KINDS[kind]
    _require_new(file)
    text = (examples() / chosen.example).read_text("utf-8")
    write_atomically(file, re.sub(rf"(examples/)?{re.escape(chosen.example)}", file.name, text))
    print_lines([in_a_line(f"wrote {file}: {chosen.shows}")])
    if chosen.package is not None and find_spec(chosen.package[0]) is None:
        print_lines(["first install what it needs:", f"  pip install {chosen.package[1]}"])
    print_lines(["next:", in_a_line(f"  penjing fit {shlex.quote(str(file))} {chosen.words}")])
    print_prose(["Then put your own network and data in their places in the file."])


def examples() -> Path:
    """The folder of the examples: an installed package has its own, a clone is above `src`."""
    own = Path(__file__).parents[1] / "examples"
    return own if own.is_dir() else Path(__file__).parents[3] / "examples"


def _require_new(file: Path) -> None:
    """Raise if a task can't be written there, or something is there already."""
    if not re.fullmatch(r"\w[\w.-]*\.py", file.name):
        raise InputError(f"a task is a Python file, such as mytask.py; found {str(file)!r}")
    if os.path.lexists(file):
        raise InputError(f"{file} exists already, and stays as it is; name another file")
    if not file.parent.is_dir():
        raise InputError(f"there is no folder {file.parent}; make it, or name another file")
