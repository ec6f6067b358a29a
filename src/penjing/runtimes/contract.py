"""The contract of a runtime: lowers a Network to a file, loads it, runs it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from penjing.contract import Artifact, Session
from penjing.network import Network
from penjing.targets import Target


class Runtime(ABC):
    """One runtime; the only place where its package is imported.

    Attributes:
        name: as written in `Artifact.runtime`.
        suffix: of its files, with the dot.
    """

    name: ClassVar[str]
    suffix: ClassVar[str]

    @abstractmethod
    def problems(self, network: Network, target: Target | None = None) -> list[str]:
        """What the runtime can't take, one line each with node and source; empty if all is well."""

    @abstractmethod
    def lower(self, network: Network, path: Path) -> Artifact:
        """Write `network` (batch size free) to the one file `path`.

        Raises:
            InputError: the network can't be lowered.
            MachineError: the file can't be written.
        """

    @abstractmethod
    def load(self, artifact: Artifact, threads: int = 1) -> Session:
        """Load a file that `lower` wrote.

        Raises:
            UnsafeError: its bytes aren't those that were written.
            InputError: it is missing or the runtime refuses it.
        """
