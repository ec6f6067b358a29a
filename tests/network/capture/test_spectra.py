"""A short-time Fourier transform becomes a convolution that gives the same, for any batch size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from penjing.network import capture
from penjing.runtimes.onnx.runtime import OnnxRuntime

LENGTH = 200


class Listens(nn.Module):
    """A function of sound in front of a layer."""

    def __init__(self, hear: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.hear, self.head = hear, nn.LazyLinear(3)
        self.register_buffer("window", torch.hann_window(32))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.head(self.hear(x).flatten(1))
        return y


def _same(hear: Callable[[Tensor], Tensor], tmp_path: Path | None = None) -> None:
    torch.manual_seed(0)
    model = Listens(hear).eval()
    x = torch.randn(5, LENGTH)
    model(x)
    network = capture(model, x[:2])
    torch.testing.assert_close(network(x), model(x), rtol=1e-4, atol=1e-4)
    assert not any("fft" in str(node.target) for node in network.calls())
    if tmp_path is not None:
        runtime = OnnxRuntime()
        y = runtime.load(runtime.lower(network, tmp_path / "m.onnx")).run((x.numpy(),))
        torch.testing.assert_close(torch.tensor(y), model(x), rtol=1e-3, atol=1e-3)


OPTIONS = {
    "plain": {},
    "hop": {"hop_length": 5},
    "short window": {"win_length": 20, "window": torch.hann_window(20)},
    "short, no window": {"win_length": 17},
    "outside": {"center": False},
    "other padding": {"pad_mode": "constant"},
    "normalized": {"normalized": True},
    "two sides": {"onesided": False},
    "window": {"window": torch.hamming_window(32)},
}


@pytest.mark.filterwarnings("ignore:A window was not provided")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=list(OPTIONS))
def test_a_short_time_transform_is_a_convolution(options: dict[str, Any]) -> None:
    def hear(x: Tensor) -> Tensor:
        return torch.view_as_real(torch.stft(x, 32, **options, return_complex=True))

    _same(hear)


def test_its_window_may_be_made_in_forward_and_odd_sizes_may_be_asked_for(tmp_path: Path) -> None:
    def hear(x: Tensor) -> Tensor:
        window = torch.hann_window(31, periodic=False)
        return torch.stft(x, 31, 7, window=window, return_complex=True).abs()

    _same(hear, tmp_path)


def _spectrum(x: Tensor) -> Tensor:
    return torch.stft(x, 32, 16, window=torch.hann_window(32), return_complex=True)


BEHIND: dict[str, Callable[[Tensor], Tensor]] = {
    "magnitude": lambda z: z.abs(),
    "power": lambda z: z.real**2 + z.imag**2,
    "phase": lambda z: z.angle().cos(),
    "conjugate": lambda z: (z * z.conj()).real,
    "product": lambda z: (z * z[:, :, :1]).abs(),
    "scaled": lambda z: (2 * z / 3 + z * z.abs()).imag,
    "difference": lambda z: (z[:, 1:] - z[:, :-1]).abs(),
    "moved": lambda z: z.transpose(1, 2).unsqueeze(1).flatten(2).abs(),
    "joined": lambda z: torch.cat([z, -z], 1).mean(2).abs(),
}


@pytest.mark.parametrize("name", list(BEHIND))
def test_a_file_computes_what_is_behind_it(name: str, tmp_path: Path) -> None:
    _same(lambda x: BEHIND[name](_spectrum(x)), tmp_path)
