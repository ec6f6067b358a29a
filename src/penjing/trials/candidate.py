"""Candidate: a recipe, a runtime and a precision, as a value with a hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from penjing.contract import Json
from penjing.passes import Pass
from penjing.trials.recipe import from_json, to_json

DIGITS = 12
"""Of the hexadecimal hash that names a candidate, or a network."""


@dataclass(frozen=True)
class Candidate:
    """What a file is made of; two that are equal give the same bytes.

    >>> from penjing.passes import Quantize
    >>> Candidate.of([Quantize()], "litert") == Candidate.of([Quantize()], "litert")
    True

    Attributes:
        recipe: the passes with their options, in order, as JSON.
        runtime: for which the file is made, by name.
        floats: how the file holds real numbers, see `Runtime.lower`.
    """

    recipe: tuple[Json, ...] = ()
    runtime: str = "onnxruntime"
    floats: str = "float32"

    @classmethod
    def of(cls, passes: Sequence[Pass], runtime: str, floats: str = "float32") -> Candidate:
        """The candidate that these passes make for a runtime."""
        return cls(tuple(to_json(passes)), runtime, floats)

    @cached_property
    def key(self) -> str:
        """Its identity: what its folder and its rows in the ledger are called."""
        return hash_of(self.to_json())

    @cached_property
    def passes(self) -> tuple[Pass, ...]:
        """The passes themselves.

        Raises:
            InputError: an unknown pass or option.
        """
        return from_json(self.recipe)

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        return {"recipe": list(self.recipe), "runtime": self.runtime, "floats": self.floats}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Candidate:
        """Read what `to_json` wrote."""
        return cls(tuple(data["recipe"]), data["runtime"], data["floats"])

    def __hash__(self) -> int:
        return hash(self.key)


def hash_of(data: Json) -> str:
    """The first hexadecimal digits of the SHA-256 of plain data, however its keys are ordered."""
    text = json.dumps(data, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()[:DIGITS]
