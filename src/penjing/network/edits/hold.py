"""Hold: record which weights have zeros, or equal values, that later passes must keep."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from penjing.network.graph.network import Network

Held = Literal["zeros", "values"]
"""What stays in a tensor: its zeros, or which of its numbers are equal (its zeros included)."""


def hold(network: Network, tensors: Mapping[str, Held]) -> None:
    """Record what is held in the tensors of these names; no number of the network changes.

    The record is the plan in the network's `history`, where
    `penjing.network.analysis.held` finds it. Which entries are zero or equal follows from the
    weights themselves.
    """
