"""The page of formats has every field, every event and every version of what penjing writes."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import pytest

from penjing.contract import Drop, Latency, Measurement, Parity, Placement, Plan
from penjing.network.save import FORMAT, KEYS
from penjing.runtimes.signature import TensorSpec
from penjing.tools.proof import Proof
from penjing.trials import result
from penjing.trials.candidate import Candidate
from penjing.trials.trial import Status, Trial
from penjing.trials.view import EVENTS
from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "reference" / "formats.md").read_text()


def _names(kind: Any, without: str = "") -> set[str]:
    return {field.name for field in fields(kind)} - set(without.split())


WRITTEN = {
    "result.json": _names(result.Result, "trials") | {"format", "chosen", "candidates"},
    "a trial": _names(Trial, "candidate") | _names(Candidate) | {"key"} | set(Status),
    "a measurement": _names(Measurement) | _names(Latency) | _names(Drop) | _names(Parity),
    "export.json": _names(Proof, "path loading") | {"file"} | _names(Placement),
    "a signature": _names(TensorSpec),
    "the ledger": {"begin", *EVENTS},
    "network.json": KEYS | _names(Plan),
}


@pytest.mark.parametrize("what", WRITTEN)
def test_every_field_is_described(what: str) -> None:
    assert not [name for name in sorted(WRITTEN[what]) if f"`{name}`" not in PAGE]


def test_the_versions_are_those_of_today() -> None:
    assert f"## `result.json`, format {result.FORMAT}\n" in PAGE
    assert f"## `network.json`, format {FORMAT}\n" in PAGE
