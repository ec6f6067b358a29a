"""What holds for all tests: none reads or writes what fits on this machine have learnt."""

from __future__ import annotations

import pytest

from penjing.search.predict.known import ELSEWHERE


@pytest.fixture(autouse=True, scope="session")
def nothing_is_known(tmp_path_factory: pytest.TempPathFactory) -> object:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(ELSEWHERE, str(tmp_path_factory.mktemp("cache")))
        yield
