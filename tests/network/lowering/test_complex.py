"""Complex numbers written in reals give what they gave before."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, fft, nn

from penjing.errors import InputError
from penjing.network import capture
from penjing.network.graph.shapes import fake_values
from penjing.network.lowering.complex import without_complex


class Mixed(nn.Module):
    """A linear layer, and a function of its output (batch, 6, 9) and a complex weight (9, 9)."""

    def __init__(self, function: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.up, self.weight = nn.Linear(4, 9), nn.Parameter(torch.randn(9, 9, dtype=torch.cfloat))
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(self.up(x), self.weight)


def _into_a_slice(x: Tensor, w: Tensor) -> Tensor:
    y = fft.rfft2(x, norm="ortho")
    z = torch.zeros_like(y)
    z[:, :3] = y[:, 3:] * 2 - 1j * y[:, :3]
    return fft.irfft2(z, s=(6, 9), norm="ortho")


def _rotated(x: Tensor, w: Tensor) -> Tensor:
    pairs = torch.view_as_complex(x[..., :8].contiguous().view(-1, 6, 4, 2))
    return torch.view_as_real(pairs * torch.polar(w.abs(), w.abs())[0, :4]).flatten(2)


FUNCTIONS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "there and back": lambda x, w: fft.ifft(fft.fft(x) @ w).real,
    "a longer and a shorter half": lambda x, w: fft.irfft(fft.rfft(x, n=12), n=7),
    "an odd length": lambda x, w: fft.irfft(fft.rfft(x, norm="forward"), n=9, norm="forward"),
    "two dimensions": lambda x, w: fft.fft2(x).imag + fft.ifft2(x, norm="forward").real,
    "the first dimension": lambda x, w: fft.rfft(x, dim=1).abs(),
    "all dimensions but one": lambda x, w: fft.irfftn(fft.rfftn(x, dim=(1, 2)), dim=(1, 2)),
    "into a slice": _into_a_slice,
    "einsum": lambda x, w: torch.einsum("btc,cd->btd", torch.complex(x, x.sin()), w).angle(),
    "a rotation": _rotated,
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_reals_give_what_complex_numbers_gave(name: str) -> None:
    torch.manual_seed(0)
    network = capture(Mixed(FUNCTIONS[name]), torch.randn(2, 6, 4))
    x = torch.randn(3, 6, 4)
    found = without_complex(network)
    assert not any(
        isinstance(one, Tensor) and one.is_complex() for one in fake_values(found).values()
    )
    torch.testing.assert_close(found(x), network(x), rtol=1e-4, atol=1e-4)


def test_what_cannot_be_written_in_reals_is_named() -> None:
    model = Mixed(lambda x, w: torch.complex(x, x).tan().real)
    network = capture(model, torch.zeros(2, 4))
    with pytest.raises(InputError, match=r"aten.* of complex numbers \(test_complex.py:\d+\)"):
        without_complex(network)
