"""What a file notes of its outputs is read strictly: anybody may have written it."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from penjing.errors import UnsafeError
from penjing.runtimes.interface import output_names, structure_of
from penjing.runtimes.notes import DEEPEST, read_structure

DEEP: Any = "tensor"
for _ in range(DEEPEST + 1):
    DEEP = {"tuple": [DEEP]}


def test_outputs_within_outputs_are_read_as_they_were_told() -> None:
    one = torch.zeros(1)
    told = structure_of((one, {"boxes": one, "maps": [one, (one,)]}))
    assert read_structure(json.dumps(told), 4) == told
    assert output_names(told, 4) == [
        "output",
        "output1_boxes",
        "output1_maps_0",
        "output1_maps_1_0",
    ]


def test_names_of_outputs_within_outputs_differ() -> None:
    one = torch.zeros(1)
    told = structure_of({"a": {"b": one}, "a_b": one})
    assert output_names(told, 2) == ["a_b", "a_b_"]


@pytest.mark.parametrize(
    "told",
    [
        DEEP,
        {"tuple": ["tensor", "tensor"]},
        {"tuple": {"a": "tensor"}},
        {"dict": ["tensor"]},
        {"dict": {"a": "tensor"}, "tuple": []},
        {"list": ["tensor"]},
        {"tuple": ["tuple"]},
        {"tuple": [["a"]]},
        {},
    ],
)
def test_another_structure_is_refused(told: Any) -> None:
    with pytest.raises(UnsafeError, match="tells of other outputs than its 1; refused"):
        read_structure(json.dumps(told), 1)
