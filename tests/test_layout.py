"""Layout: nothing is wider than it may be, no word is broken, and what was different stays so."""

from __future__ import annotations

import random

import pytest
from rich.cells import cell_len

from penjing.contract import LeftAlone, Plan
from penjing.layout import Column, counted, folded, shortened, table, told_apart, wrapped

WORDS = ("a", "of", "layer", "backbone.layer4.1.conv2", "12 %", "x" * 120, "模型", "out/put/" * 20)


def _text(draw: random.Random) -> str:
    return " ".join(draw.choice(WORDS) for _ in range(draw.randrange(1, 40)))


@pytest.mark.parametrize("seed", range(30))
def test_prose_fits_and_keeps_all_its_words(seed: int) -> None:
    draw = random.Random(seed)
    text, width = _text(draw), draw.choice([40, 80, 120])
    lines = wrapped(text, width, "- ")
    assert all(cell_len(line) <= width or "out/put" in line for line in lines)
    assert all(line.startswith("- " if at == 0 else "  ") for at, line in enumerate(lines))
    said = " ".join(lines).split()[1:]
    given = text.split()
    assert len(said) == len(given)
    for word, one in zip(said, given, strict=True):
        assert word == one or (word.startswith("…") and one.endswith(word[1:]))
    assert not [line for line in lines if line.strip().startswith("%")]


@pytest.mark.parametrize("width", [8, 12, 20, 60])
@pytest.mark.parametrize("seed", range(20))
def test_names_that_were_different_stay_different(seed: int, width: int) -> None:
    draw = random.Random(seed)
    ends, starts = ["conv", "conv2" * 10], ["encoder.", "decoder." * 10, "x" * 70]
    names = {draw.choice(starts) + "block." * draw.randrange(9) + draw.choice(ends)
             for _ in range(20)}  # fmt: skip
    short = told_apart(sorted(names), width)
    assert len(set(short)) == len(names)
    assert all(cell_len(name) <= width for name in short)


def test_the_end_of_a_name_stays() -> None:
    assert shortened("backbone.layer4.1.conv2", 20) == "…bone.layer4.1.conv2"
    assert told_apart(["a.b", "a.b"], 8) == ["a.b", "a.b"]


@pytest.mark.parametrize("seed", range(20))
def test_a_table_fits_and_loses_no_row(seed: int) -> None:
    draw = random.Random(seed)
    columns = [Column("name", fit=draw.choice(["cut", "wrap"])), Column("n", right=True),
               Column("what\nit is", fit="wrap"), Column("nothing")]  # fmt: skip
    rows = [
        [f"{'part.' * draw.randrange(30)}{at}", str(draw.randrange(10**6)), _text(draw)[:90], ""]
        for at in range(20)
    ]
    laid = table(columns, rows, 80)
    assert all(cell_len(line) <= 80 for line in laid.lines)
    assert len({"".join(row) for row in laid.rows}) == 20
    assert "nothing" not in "".join(laid.head)
    for row, lines in zip(rows, laid.rows, strict=True):
        assert row[1] in lines[0]


def test_folding_keeps_the_count() -> None:
    for number in range(1, 100):
        names = [f"conv{at}" for at in range(number)]
        said = folded(names)
        shown = said.replace("… and ", "").split(", ")
        more = int(shown[-1].split()[0]) if "more" in said else 0
        assert len(shown) - bool(more) + more == number
    assert (counted(1, "row"), counted(2, "row")) == ("1 row", "2 rows")


def test_a_plan_tells_what_was_left_alone_by_reason_and_how_much() -> None:
    alone = [LeftAlone(f"backbone.conv{at}", "it is the output") for at in range(87)]
    alone += [LeftAlone("head", "named in skip")]
    text = str(Plan("PruneChannels", {}, summary="12 axes", left_alone=tuple(alone)))
    lines = text.splitlines()
    assert lines[0] == "PruneChannels: 12 axes"
    assert "87 parts: it is the output (backbone.conv0, backbone.conv1, … and 85 more)" in (
        " ".join(text.split())
    )
    assert "  left alone: head: named in skip" in lines
    assert all(len(line) <= 80 for line in lines)
