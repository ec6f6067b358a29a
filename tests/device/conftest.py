"""What the tests of devices share: a device on loopback, and a file to measure there."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from penjing.contract import Artifact
from tests.loopback import Loopback, product


@pytest.fixture(scope="module")
def loopback(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Loopback]:
    server = Loopback(tmp_path_factory.mktemp("device"))
    yield server
    server.stop()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return product(tmp_path_factory.mktemp("artifact"))
