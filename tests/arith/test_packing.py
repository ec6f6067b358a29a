"""Packing: planes give back their codes, and popcounts are the products of plain integers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from penjing.arith.packing import (
    binary_matmul,
    bit_planes,
    code_range,
    pack,
    plane_values,
    planes_matmul,
    ternary_matmul,
    ternary_planes,
    unpack,
)
from penjing.errors import InputError

COUNTS = [1, 7, 8, 9, 63, 100, 1024]
SIZES = [(1, 1), (3, 5), (16, 2)]
Codes = NDArray[Any]


def draw(seed: int, *shape: int, among: list[int]) -> Codes:
    return np.random.default_rng(seed).choice(among, shape)


def soiled(planes: NDArray[np.uint8], count: int) -> NDArray[np.uint8]:
    """The same planes with every unused bit set."""
    unused = ~np.packbits(np.ones(count, np.uint8), bitorder="little")
    return planes | unused


@pytest.mark.parametrize("bits", range(1, 9))
@pytest.mark.parametrize("shape", [(), (1,), (7,), (8,), (9,), (3, 5, 1), (16, 3, 3, 3)])
def test_unpacked_equals_packed(bits: int, shape: tuple[int, ...]) -> None:
    low, high = code_range(bits)
    among = [-1, 1] if bits == 1 else list(range(low, high + 1))
    codes = draw(bits, *shape, among=among).astype(np.int8)
    planes = pack(codes, bits)
    assert planes.dtype == np.uint8
    assert planes.shape == (bits, -(-codes.size // 8))
    again = unpack(planes, bits, codes.size, shape)
    assert again.dtype == np.int8
    assert np.array_equal(again, codes)
    assert again.shape == shape
    flat = codes.reshape(-1)
    assert np.array_equal(unpack(soiled(planes, flat.size), bits, flat.size), flat)


def test_a_plane_worked_by_hand() -> None:
    """-4..3 are stored as 0..7: 3 is 111, -4 is 000, 0 is 100; the first code is the lowest bit."""
    assert pack(np.array([3, -4, 0]), 3).tolist() == [[0b001], [0b001], [0b101]]
    assert pack(np.array([1, -1] * 4 + [1]), 1).tolist() == [[0b01010101, 1]]


def test_every_row_starts_at_a_byte() -> None:
    values = draw(0, 5, 9, among=list(range(8)))
    planes = bit_planes(values, 3)
    assert planes.shape == (3, 5, 2)
    assert np.array_equal(plane_values(planes, 9), values)
    assert np.array_equal(plane_values(planes[:, 2:3], 9), values[2:3])


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rows", SIZES)
def test_binary_products(count: int, rows: tuple[int, int]) -> None:
    for seed in range(3):
        a, w = (draw(seed + n, m, count, among=[-1, 1]) for n, m in enumerate(rows))
        planes = bit_planes(a > 0, 1), bit_planes(w > 0, 1)
        assert np.array_equal(binary_matmul(*planes, count), a @ w.T)
        assert np.array_equal(binary_matmul(soiled(planes[0], count), planes[1], count), a @ w.T)


@pytest.mark.parametrize("count", COUNTS)
@pytest.mark.parametrize("rows", SIZES)
@pytest.mark.parametrize("kinds", ["tt", "tb", "bt", "bb"])
def test_ternary_products(count: int, rows: tuple[int, int], kinds: str) -> None:
    among = {"t": [-1, 0, 1], "b": [-1, 1]}
    for seed in range(3):
        a, w = (draw(seed + n, m, count, among=among[kinds[n]]) for n, m in enumerate(rows))
        of_a, of_w = (
            ternary_planes(x) if kind == "t" else bit_planes(x > 0, 1)
            for kind, x in zip(kinds, (a, w), strict=True)
        )
        assert np.array_equal(ternary_matmul(of_a, of_w, count), a @ w.T)
        dirty = soiled(of_a, count), soiled(of_w, count)
        assert np.array_equal(ternary_matmul(*dirty, count), a @ w.T)


@pytest.mark.parametrize("bits", [(1, 1), (1, 8), (2, 3), (4, 4), (5, 2), (6, 7), (8, 8)])
@pytest.mark.parametrize("count", COUNTS)
def test_products_of_any_two_widths(count: int, bits: tuple[int, int]) -> None:
    for seed, (m, n) in enumerate(SIZES):
        a = draw(seed, m, count, among=list(range(2 ** bits[0])))
        w = draw(seed + 9, n, count, among=list(range(2 ** bits[1])))
        planes = bit_planes(a, bits[0]), bit_planes(w, bits[1])
        assert np.array_equal(planes_matmul(*planes, count), a @ w.T)
        dirty = soiled(planes[0], count), soiled(planes[1], count)
        assert np.array_equal(planes_matmul(*dirty, count), a @ w.T)


def test_signed_products_follow_from_unsigned_ones() -> None:
    """As the docstring of `planes_matmul` has it: 4-bit weights around 8, 3-bit inputs around 0."""
    a, w = draw(0, 4, 50, among=list(range(8))), draw(1, 6, 50, among=list(range(-8, 8)))
    unsigned = planes_matmul(bit_planes(a, 3), bit_planes(w + 8, 4), 50)
    assert np.array_equal(unsigned - 8 * a.sum(1, keepdims=True), a @ w.T)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: pack(np.array([0, 1]), 1), "codes of 1 bits must be -1 or 1; found 0..1"),
        (lambda: pack(np.array([8]), 4), r"codes of 4 bits must be in -8\.\.7; found 8\.\.8"),
        (lambda: pack(np.array([0]), 9), r"bits must be in 1\.\.8; found 9"),
        (lambda: unpack(pack(np.zeros(9), 2), 2, 8), r"planes of shape \(2, 1\); found \(2, 2\)"),
        (lambda: bit_planes(np.array([4]), 2), r"0\.\.3; found 4\.\.4"),
        (lambda: ternary_planes(np.array([2, -1])), r"-1, 0 or 1; found -1\.\.2"),
        (lambda: product(9, 8), "rows of 8 values need 1 bytes; a has 2"),
        (lambda: product(8, 8, planes=3), r"1\.\.1 planes; found uint8 \(3, 1, 1\)"),
    ],
)
def test_what_does_not_fit_is_refused(wrong: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        wrong()


def product(held: int, count: int, planes: int = 1) -> Any:
    rows = np.zeros((planes, 1, -(-held // 8)), np.uint8)
    return binary_matmul(rows, rows, count)
