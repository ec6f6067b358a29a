"""The way down: `lower` hands a network from room to room, and through the lowering once a file."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import penjing
from penjing.network import Network
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES
from tests.runtime_networks import here, network_of

SOURCE = f"{Path(penjing.__file__).parent}/"
GRAPH, EDITS, LOWERING = "network/graph/", "network/edits/", "network/lowering/"
TWO_FILES = {"executorch-ethosu"}  # one for the NPU, one of the same integers for here


def _way(runtime: Runtime, network: Network, path: Path) -> tuple[list[str], int]:
    """The files of penjing that a network is handed to, each function at its first call alone; and
    how often it is lowered.

    The graph's own room is left out: a network that is asked what it holds goes nowhere.
    """
    called: Counter[tuple[str, str]] = Counter()

    def look(frame: FrameType, event: str, _: Any) -> None:
        code = frame.f_code
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        file = code.co_filename.removeprefix(SOURCE)
        inside = file != code.co_filename and not file.startswith(GRAPH)
        inside = inside and event == "call" and not code.co_name.startswith("<")
        if inside and any(isinstance(frame.f_locals.get(name), Network) for name in names):
            called[file, code.co_qualname] += 1

    sys.setprofile(look)
    try:
        runtime.lower(network, path)
    finally:
        sys.setprofile(None)
    way = [file for file, _ in groupby(file for file, _ in called)]
    return way, called[f"{LOWERING}lower.py", "lowered"]


@pytest.mark.parametrize("name", ENTRIES)
def test_a_network_goes_down_once_for_each_file(name: str, tmp_path: Path) -> None:
    runtime = here(name)
    network, _ = network_of("small", True, **runtime.constraints)
    way, times = _way(runtime, network, tmp_path / f"model{runtime.ending}")
    assert times == (2 if name in TWO_FILES else 1)
    returns = len(way) - len(set(way))
    lowers = (file.startswith(LOWERING) for file in way if not file.startswith(EDITS))
    assert [room for room, _ in groupby(lowers)].count(True) == 1
    assert returns <= (3 if name in TWO_FILES else 2), way
    if name.startswith(("onnxruntime", "openvino")):
        assert not returns, way


@pytest.mark.parametrize("name", ENTRIES)
def test_a_bug_on_the_way_is_no_line_about_the_network(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = here(name)

    def broken(*_: object) -> Network:
        raise ZeroDivisionError

    network, _ = network_of("small", True, **runtime.constraints)
    monkeypatch.setattr("penjing.network.lowering.lower.with_integers", broken)
    with pytest.raises(ZeroDivisionError):
        runtime.lower(network, tmp_path / f"model{runtime.ending}")
