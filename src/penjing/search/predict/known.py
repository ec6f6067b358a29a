"""Known: what operators cost, from earlier fits on the same machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_cache_path

from penjing.contract import Json
from penjing.errors import DiskError, PenjingError
from penjing.files import write_atomically
from penjing.search.predict.cost import Cost

ELSEWHERE = "PENJING_CACHE"
"""The environment variable that names another folder than the user's own."""


def user_folder() -> Path:
    """Where it is kept: the folder that `PENJING_CACHE` names, or one in the user's cache, such as
    `~/.cache/penjing`."""
    named = os.environ.get(ELSEWHERE)
    return Path(named) if named else user_cache_path("penjing")


@dataclass(frozen=True)
class Known:
    """A folder with a file for each network, machine, runtime and goal for which costs were learnt.

    It is a cache: a file that is missing, damaged or of another penjing is learnt anew, and so is
    one that can't be written.

    Attributes:
        folder: where the files are; None keeps nothing.
    """

    folder: Path | None

    def recall(self, of: Mapping[str, Json]) -> Cost | None:
        """What was remembered; None if nothing was.

        Args:
            of: what it is the cost of, as plain data, to the last detail that may change it.
        """
        if self.folder is None:
            return None
        try:
            data = json.loads(self._path(of).read_text())
            same = data["of"] == json.loads(json.dumps(of))  # which has no tuples
            return Cost.from_json(data["cost"]) if same else None
        except (OSError, PenjingError, ValueError, KeyError, TypeError, AttributeError):
            return None

    def remember(self, of: Mapping[str, Json], cost: Cost) -> None:
        """Keep a cost for later fits."""
        if self.folder is None:
            return
        data = json.dumps({"of": of, "cost": cost.to_json()}, indent=1)
        with contextlib.suppress(OSError, DiskError):
            self.folder.mkdir(parents=True, exist_ok=True)
            write_atomically(self._path(of), data.encode())

    def _path(self, of: Mapping[str, Json]) -> Path:
        assert self.folder is not None
        name = hashlib.sha256(json.dumps(of, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"costs-{name}.json"
