"""The contract of a runtime: what it can't take, how to make its file, how to run that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar

from penjing.contract import Artifact, Session
from penjing.network import Network
from penjing.targets import Target


class Runtime(ABC):
    """Lowers a Network to an Artifact, loads it, and says what it can't take."""

    name: ClassVar[str]
    ending: ClassVar[str]

    @abstractmethod
    def problems(self, network: Network, target: Target) -> list[str]:
        """What stands against running `network` on `target`, one line each; empty if nothing."""

    @abstractmethod
    def lower(self, network: Network, path: Path) -> Artifact:
        """Write the network as this runtime's file."""

    @abstractmethod
    def load(self, artifact: Artifact, threads: int = 1) -> Session:
        """Load a file, after its hash has been checked."""
