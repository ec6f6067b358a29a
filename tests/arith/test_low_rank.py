"""Low rank: factors are the best ones, and what they keep is what they measurably keep."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from penjing.arith.kernel_factors import (
    SCHEMES,
    composed,
    full_ranks,
    kept,
    kept_by_pairs,
    rebalanced,
    split,
    why_not,
)
from penjing.arith.low_rank import (
    balanced,
    energies,
    factors,
    principal,
    refitted,
    ridged,
    root,
)

SHAPES = [(6, 9), (9, 6), (8, 4, 3, 3), (4, 8, 3, 5), (5, 3, 7), (6, 4, 1, 1)]


def _draw(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def _moment(size: int, seed: int = 1) -> Tensor:
    """Of inputs of which a few directions carry most."""
    x = _draw(4 * size, size, seed=seed) * torch.logspace(0, -2, size, dtype=torch.float64)
    x = x @ _draw(size, size, seed=seed + 1)
    return x.T @ x / len(x)


def _error(weight: Tensor, other: Tensor, moment: Tensor) -> float:
    difference = weight.flatten(1) - other
    return float(((difference @ moment) * difference).sum())


def test_factors_by_hand() -> None:
    """w = diag(3, 2) and s = diag(1, 16): w s^(1/2) = diag(3, 8), so the second row stays."""
    weight = torch.diag(torch.tensor([3.0, 2.0])).double()
    square_root = torch.diag(torch.tensor([1.0, 4.0])).double()
    left, right = factors(weight, 1, square_root)
    expected = torch.tensor([[0.0, 0.0], [0.0, 2.0]]).double()
    torch.testing.assert_close(left @ right, expected)
    torch.testing.assert_close(left.norm(dim=0), right.norm(dim=1))
    assert energies(weight, square_root).tolist() == pytest.approx([64.0, 73.0])
    assert energies(weight).tolist() == pytest.approx([9.0, 13.0])


def test_no_product_of_that_rank_is_nearer_in_the_norm_of_the_inputs() -> None:
    weight, moment = _draw(6, 9), _moment(9)
    left, right = factors(weight, 3, root(moment))
    best = _error(weight, left @ right, ridged(moment))
    whole, reached = energies(weight, root(moment))[[-1, 2]]
    assert best == pytest.approx(float(whole - reached), rel=1e-6)
    plain = factors(weight, 3)
    assert best < 0.9 * _error(weight, plain[0] @ plain[1], ridged(moment))
    for seed in range(20):
        near = (left + 0.01 * _draw(6, 3, seed=seed)) @ (right + 0.01 * _draw(3, 9, seed=seed + 50))
        assert _error(weight, near, ridged(moment)) > best


@pytest.mark.parametrize("rank", [0, 1, 3])
def test_a_singular_second_moment_serves(rank: int) -> None:
    """Of inputs that are all zero, and of inputs of which only some directions occur."""
    x = _draw(50, 6) if rank == 0 else _draw(50, rank) @ _draw(rank, 6, seed=3)
    x = 0 * x if rank == 0 else x
    moment, weight = x.T @ x / len(x), _draw(4, 6)
    for full in (1, 4):
        left, right = factors(weight, full, root(moment))
        assert torch.isfinite(left).all()
        assert torch.isfinite(right).all()
    torch.testing.assert_close(left @ right, weight)
    if rank == 3:
        left, right = factors(weight, 3, root(moment))
        assert _error(weight, left @ right, moment) < 1e-3 * _error(weight, 0 * weight, moment)


def test_factors_of_nothing_are_zero() -> None:
    left, right = balanced(torch.zeros(3, 2), torch.zeros(2, 4))
    assert not left.any()
    assert not right.any()


def test_principal_components_are_the_left_factors_of_what_makes_the_outputs() -> None:
    weight, moment = _draw(6, 9), ridged(_moment(9))
    directions = principal(weight @ moment @ weight.T, 3)
    left, right = factors(weight, 3, root(moment, 0.0))
    torch.testing.assert_close(directions @ directions.T @ weight, left @ right)


def test_a_second_factor_is_what_least_squares_gives() -> None:
    x, weight, first = _draw(200, 9), _draw(4, 9, seed=2), _draw(3, 9, seed=3)
    last = refitted(first, torch.zeros(4, 3).double(), weight, x.T @ x / len(x))
    direct = torch.linalg.lstsq(x @ first.T, x @ weight.T).solution.T
    torch.testing.assert_close(last, direct, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("with_data", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_full_ranks_are_exact_and_what_is_kept_is_measured(
    scheme: str, shape: tuple[int, ...], with_data: bool
) -> None:
    if why_not(scheme, shape):
        return
    weight, size = _draw(*shape), math.prod(shape[1:])
    moment = ridged(_moment(size)) if with_data else None
    measured = torch.eye(size).double() if moment is None else moment
    full = full_ranks(scheme, shape)
    exact = composed(scheme, split(scheme, weight, full, moment))
    torch.testing.assert_close(exact, weight.flatten(1))
    whole, last = _error(weight, 0 * weight.flatten(1), measured), 0.0
    for rank in range(1, full[0] + 1):
        ranks = [rank] if len(full) == 1 else [rank, full_ranks(scheme, shape, rank)[1] // 2 or 1]
        if scheme == "tucker":
            share = float(kept_by_pairs(weight, [rank], moment)[rank][ranks[1] - 1])
        else:
            share = float(kept(scheme, weight, moment)[rank - 1])
            assert share >= last - 1e-9
            last = share
        parts = split(scheme, weight, ranks, moment)
        lost = _error(weight, composed(scheme, parts), measured) / whole
        assert 1 - lost == pytest.approx(share, abs=2e-3)
        torch.testing.assert_close(parts[-1], rebalanced(parts)[-1])


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_scheme_says_which_kernels_it_is_for(scheme: str) -> None:
    able = {shape for shape in SHAPES if not why_not(scheme, shape)}
    small = {(6, 9), (9, 6), (6, 4, 1, 1)}
    assert (
        able
        == {
            "matrices": small,
            "channel": set(SHAPES) - small,
            "spatial": {(8, 4, 3, 3), (4, 8, 3, 5)},
            "tucker": set(SHAPES) - small,
        }[scheme]
    )
