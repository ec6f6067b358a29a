"""The folder that PENJING_DATA names: it holds data/, models/ and the peers' scripts, peers/."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

WANTED = "PENJING_DATA must name the folder with data/, models/ and peers/"


def data_folder(needed_by: argparse.ArgumentParser | None = None) -> Path:
    """That folder, or the current one where none is named, for many networks need no data.

    Args:
        needed_by: a benchmark's parser, which ends the program where none is named.
    """
    named = os.environ.get("PENJING_DATA")
    if needed_by is not None and not named:
        needed_by.error(WANTED)
    return Path(named or ".")


def require(path: Path) -> Path:
    """The path of a file that is there.

    Raises:
        FileNotFoundError: it isn't.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing; {WANTED}")
    return path
