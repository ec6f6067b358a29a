"""Packing: store integers of few bits as bit planes, and multiply them exactly by popcount.

A plane holds one bit of every value. Bit k % 8 of byte k // 8, counted from the lowest, belongs to
value k. A compiled kernel has to match these functions bit for bit.

Shapes: x_MK are codes, M rows of K values. p_BMC are their planes, with B bits and C = ceil(K / 8)
bytes per row. The unused bits of the last byte never matter.

Source: M. Rastegari et al., "XNOR-Net: ImageNet Classification Using Binary Convolutional Neural
Networks", 2016 (binary products); F. Li et al., "Ternary Weight Networks", 2016 (ternary codes);
S. Zhou et al., "DoReFa-Net: Training Low Bitwidth Convolutional Neural Networks with Low Bitwidth
Gradients", 2016 (products of planes).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from penjing.errors import InputError

Planes = NDArray[np.uint8]
Integers = NDArray[np.int64]
TRITS_A_BYTE = 5  # 3^5 = 243 codes fit


def code_range(bits: int) -> tuple[int, int]:
    """The smallest and the largest signed code of a number of bits; one bit has -1 and 1 only.

    >>> code_range(1), code_range(4)
    ((-1, 1), (-8, 7))

    Raises:
        InputError: `bits` isn't in 1..8.
    """
    if not 1 <= bits <= 8:
        raise InputError(f"bits must be in 1..8; found {bits}")
    return (-1, 1) if bits == 1 else (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1)


def pack(codes: NDArray[Any], bits: int) -> Planes:
    """Pack signed codes of any shape into planes, (bits, ceil(n / 8)).

    The planes store u = code - low with low = -2^(bits - 1), or u = (code + 1) / 2 for one bit.

    >>> pack(np.array([-2, -1, 0, 1]), 2).tolist()  # u = 0, 1, 2, 3
    [[10], [12]]

    Raises:
        InputError: a code is outside of `code_range(bits)`, or is zero with one bit.
    """
    low, high = code_range(bits)
    flat = np.asarray(codes).reshape(-1).astype(np.int64)
    step = 2 if bits == 1 else 1
    if flat.size and (flat.min() < low or flat.max() > high or ((flat - low) % step).any()):
        wanted = "-1 or 1" if bits == 1 else f"in {low}..{high}"
        span = f"{flat.min()}..{flat.max()}"
        raise InputError(f"codes of {bits} bits must be {wanted}; found {span}")
    return bit_planes((flat - low) // step, bits)


def stored_bytes(codes: NDArray[Any]) -> int:
    """The bytes of int8 codes in a file that packs them.

    Ternary codes are packed five to a byte, and others into as few planes as possible.

    >>> stored_bytes(np.array([-8, 7] * 8)), stored_bytes(np.array([1, 0, -1, 0, 1]))
    (8, 1)
    """
    if not codes.size:
        return 0
    if are_ternary(codes):
        return ternary_bytes(codes).size
    bits = least_bits(codes)
    return codes.size if bits == 8 else bits * -(-codes.size // 8)


def are_ternary(codes: NDArray[Any]) -> bool:
    """Whether all codes are -1, 0 or 1, and a single plane of -1 and 1 wouldn't suffice.

    >>> are_ternary(np.array([0, 1])), are_ternary(np.array([-1, 1]))
    (True, False)
    """
    low, high = int(codes.min()), int(codes.max())
    return low >= -1 and high <= 1 and not (high > low and bool(codes.all()))


def least_bits(codes: NDArray[Any]) -> int:
    """The number of planes that signed codes need; one if all of them are -1 or 1.

    >>> least_bits(np.array([-1, 1])), least_bits(np.array([-1, 0, 1])), least_bits(np.array([7]))
    (1, 2, 4)
    """
    if np.abs(codes.astype(np.int64)).max() == 1 and codes.all():
        return 1
    low, high = int(codes.min()), int(codes.max())
    ranges = ((bits, code_range(bits)) for bits in range(2, 9))
    return next(bits for bits, (least, most) in ranges if least <= low and high <= most)


def ternary_bytes(codes: NDArray[Any]) -> Planes:
    """Pack codes -1, 0 and 1 as base-3 digits, five to a byte, the lowest first: (ceil(n / 5),).

    >>> ternary_bytes(np.array([1, -1, 0, -1, -1, 1])).tolist()  # 2 + 1 * 9 + 0; 2
    [11, 2]
    """
    digits = np.asarray(codes).reshape(-1).astype(np.int64) + 1
    rows = np.pad(digits, (0, -len(digits) % TRITS_A_BYTE)).reshape(-1, TRITS_A_BYTE)
    return (rows @ 3 ** np.arange(TRITS_A_BYTE)).astype(np.uint8)


def unpack(planes: Planes, bits: int, count: int, shape: Sequence[int] | None = None) -> Any:
    """Unpack what `pack` has packed: `count` codes as int8, in `shape` (by default flat).

    >>> unpack(pack(np.array([[3, -4, 0]]), 3), 3, 3, (1, 3)).tolist()
    [[3, -4, 0]]

    Raises:
        InputError: the planes don't hold `count` codes of `bits` bits.
    """
    low, _ = code_range(bits)
    wanted = (bits, -(-count // 8))
    if planes.shape != wanted:
        raise InputError(
            f"{count} codes of {bits} bits need planes of shape {wanted}; found {planes.shape}"
        )
    codes = plane_values(planes, count) * (2 if bits == 1 else 1) + low
    return codes.astype(np.int8).reshape((count,) if shape is None else tuple(shape))


def bit_planes(values: NDArray[Any], bits: int) -> Planes:
    """Pack unsigned values (..., K) into planes (bits, ..., ceil(K / 8)), the lowest bit first.

    Values are in 0..2^bits - 1. Each row starts at a new byte, as the products need it, and unused
    bits are zero.

    >>> bit_planes(np.array([[1, 2, 3]]), 2).tolist()
    [[[5]], [[6]]]

    Raises:
        InputError: a value is negative or too large.
    """
    array = np.asarray(values)
    if array.size and (array.min() < 0 or array.max() >= 2**bits):
        raise InputError(
            f"values of {bits} bits must be in 0..{2**bits - 1}; found {array.min()}..{array.max()}"
        )
    unpacked = np.stack([(array >> bit) & 1 for bit in range(bits)])
    return np.packbits(unpacked.astype(np.uint8), axis=-1, bitorder="little")


def plane_values(planes: Planes, count: int) -> Integers:
    """Unpack what `bit_planes` has packed: values (..., K) with K = `count`.

    >>> plane_values(bit_planes(np.array([[1, 2, 3]]), 2), 3).tolist()
    [[1, 2, 3]]
    """
    unpacked = np.unpackbits(planes, axis=-1, count=count, bitorder="little").astype(np.int64)
    return np.tensordot(2 ** np.arange(len(planes), dtype=np.int64), unpacked, 1)


def ternary_planes(codes: NDArray[Any]) -> Planes:
    """Pack codes (..., K) of -1, 0 and 1 into two planes: nonzero, and positive.

    >>> ternary_planes(np.array([1, 0, -1])).tolist()
    [[5], [1]]

    Raises:
        InputError: a code isn't -1, 0 or 1.
    """
    array = np.asarray(codes)
    if array.size and np.abs(array.astype(np.int64)).max() > 1:
        raise InputError(f"ternary codes must be -1, 0 or 1; found {array.min()}..{array.max()}")
    unpacked = np.stack([array != 0, array > 0])
    return np.packbits(unpacked, axis=-1, bitorder="little")


def binary_matmul(a: Planes, w: Planes, count: int) -> Integers:
    """Products of rows of -1 and 1: y_MN = K - 2 popcount(a_M xor w_N), with K = `count`.

    Args:
        a, w: one plane each, (1, M, C) and (1, N, C); a bit is set where the code is 1.

    >>> a, w = np.array([[1, -1, 1]]), np.array([[1, 1, 1], [-1, 1, -1]])
    >>> binary_matmul(bit_planes(a > 0, 1), bit_planes(w > 0, 1), 3).tolist()
    [[1, -3]]

    Raises:
        InputError: the planes don't match each other or `count`.
    """
    _require(a, w, count, (1,), (1,))
    differ = _rows(a[0], lambda row: _popcount((row ^ w[0]) & _used(count)))
    return count - 2 * differ


def ternary_matmul(a: Planes, w: Planes, count: int) -> Integers:
    """Products of rows of -1, 0 and 1 with rows of the same, or of -1 and 1.

        both_MN = nonzero_M & nonzero_N      y_MN = popcount(both) - 2 popcount((a xor w) & both)

    Args:
        a, w: (2, M, C) and (2, N, C) from `ternary_planes`; either may have the single plane of a
            binary matrix, in which nothing is zero.

    >>> a, w = np.array([[1, -1, 1]]), np.array([[1, 0, 1], [0, 1, 0]])
    >>> ternary_matmul(bit_planes(a > 0, 1), ternary_planes(w), 3).tolist()
    [[2, -1]]

    Raises:
        InputError: the planes don't match each other or `count`.
    """
    _require(a, w, count, (1, 2), (1, 2))
    nonzero_a, nonzero_w = (_nonzero(planes, count) for planes in (a, w))

    def product(row: Planes) -> Integers:
        both = row[0] & nonzero_w
        return _popcount(both) - 2 * _popcount((row[1] ^ w[-1]) & both)

    return _rows(np.stack([nonzero_a, a[-1]], 1), product)


def planes_matmul(a: Planes, w: Planes, count: int) -> Integers:
    """Products of rows of unsigned values, of any two widths.

        y_MN = sum over i, j of 2^(i + j) popcount(a_i & w_j)

    For signed codes c = u - z, the product of each pair of rows follows from
    sum c_a c_w = sum u_a u_w - z_w sum u_a - z_a sum u_w + K z_a z_w.

    Args:
        a, w: from `bit_planes`, (B, M, C) and (D, N, C).

    >>> a, w = np.array([[3, 0, 2]]), np.array([[1, 1, 1], [0, 7, 5]])
    >>> planes_matmul(bit_planes(a, 2), bit_planes(w, 3), 3).tolist()
    [[5, 10]]

    Raises:
        InputError: the planes don't match each other or `count`.
    """
    _require(a, w, count, range(1, 9), range(1, 9))
    products = np.zeros((a.shape[1], w.shape[1]), np.int64)
    for i, a_plane in enumerate(a & _used(count)):
        for j, w_plane in enumerate(w):
            products += _rows(a_plane, lambda row, w=w_plane: _popcount(row & w)) << (i + j)
    return products


def _require(a: Planes, w: Planes, count: int, of_a: Sequence[int], of_w: Sequence[int]) -> None:
    """Check that both are planes of rows with `count` values, in a number that is allowed."""
    for name, planes, allowed in (("a", a, of_a), ("w", w, of_w)):
        if planes.dtype != np.uint8 or planes.ndim != 3 or len(planes) not in allowed:
            raise InputError(
                f"{name} must be uint8 (planes, rows, bytes) with {allowed[0]}..{allowed[-1]} "
                f"planes; found {planes.dtype} {planes.shape}"
            )
        if planes.shape[2] != -(-count // 8):
            raise InputError(
                f"rows of {count} values need {-(-count // 8)} bytes; {name} has {planes.shape[2]}"
            )


def _used(count: int) -> Planes:
    """A row of bytes whose bits are set where there is a value."""
    return np.packbits(np.ones(count, np.uint8), bitorder="little")


def _nonzero(planes: Planes, count: int) -> Planes:
    """The bits of the nonzero codes of ternary or binary planes, (rows, bytes)."""
    plane: Planes = planes[0] if len(planes) == 2 else np.full_like(planes[0], 255)
    return np.bitwise_and(plane, _used(count), dtype=np.uint8)


def _popcount(bits: Planes) -> Integers:
    """The number of set bits along the last dimension."""
    counts: Integers = np.bitwise_count(bits).sum(-1, dtype=np.int64)
    return counts


def _rows(matrix: Planes, product: Any) -> Integers:
    """The product of each row, one row at a time to save memory."""
    return np.stack([product(row) for row in matrix])
