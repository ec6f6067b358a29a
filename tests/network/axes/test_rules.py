"""Operators, each in the smallest network that needs it: pruned equals masked, and it trains."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from penjing.contract import Plan
from penjing.network import capture, carry_out, find_axes, mask
from penjing.runtimes.onnx.runtime import OnnxRuntime


class Net(nn.Module):
    """A network from its parts and a function of them."""

    def __init__(self, forward: Callable[..., Tensor], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            elif part.is_floating_point():
                self.register_parameter(name, nn.Parameter(part))
            else:
                self.register_buffer(name, part)
        self.body = forward

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            """A part: a layer or a tensor, as the case has it."""

    def forward(self, *inputs: Tensor) -> Tensor:
        return self.body(self, *inputs)


def _image() -> Tensor:
    return torch.randn(3, 3, 8, 8)


def _tokens() -> Tensor:
    return torch.randn(3, 6, 12)


def _head(width: int) -> nn.Linear:
    return nn.Linear(width, 5)


def _attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return functional.scaled_dot_product_attention(q, k, v)


def _split_heads(x: Tensor, heads: int) -> Tensor:
    return x.reshape(x.shape[0], x.shape[1], heads, -1).transpose(1, 2)


def _by_einsum(self: Net, x: Tensor) -> Tensor:
    q, k, v = (_split_heads(one(x), 2) for one in (self.q, self.k, self.v))
    weights = torch.einsum("bhid,bhjd->bhij", q, k).softmax(-1)
    y = torch.einsum("bhij,bhjd->bihd", weights, v)
    return self.head(y.flatten(2)).mean(1)


def _cross_attention(self: Net, x: Tensor) -> Tensor:
    q = _split_heads(self.q(self.queries.expand(x.shape[0], -1, -1)), 2)
    y = _attend(q, _split_heads(self.k(x), 2), _split_heads(self.v(x), 2))
    return self.head(y.transpose(1, 2).flatten(2)).mean(1)


def _biased_heads(self: Net, x: Tensor) -> Tensor:
    q, k, v = (_split_heads(one(x), 4) for one in (self.q, self.k, self.v))
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.bias)
    return self.head(y.transpose(1, 2).flatten(2)).mean(1)


def _tiled(self: Net, x: Tensor) -> Tensor:
    return self.head((self.conv(x) + torch.tile(self.window, (4, 4))).mean((2, 3)))


def _linear_attention(self: Net, x: Tensor) -> Tensor:
    q, k, v = self.q(x).relu(), self.k(x).relu(), self.v(x)
    y = q @ (k.transpose(1, 2) @ v) / (q @ k.sum(1, keepdim=True).transpose(1, 2) + 1e-3)
    return self.head(y).mean(1)


def _packed_in_three(self: Net, x: Tensor) -> Tensor:
    b, n, _ = x.shape
    q, k, v = self.qkv(x).reshape(b, n, 3, 2, 6).permute(2, 0, 3, 1, 4).unbind(0)
    scores = (q * 6**-0.5) @ k.transpose(-2, -1) + self.table[self.index].permute(2, 0, 1)
    return self.head((scores.softmax(-1) @ v).transpose(1, 2).reshape(b, n, 12)).mean(1)


def _packed_from_three_biases(self: Net, x: Tensor) -> Tensor:
    bias = torch.cat([self.q_bias, torch.zeros_like(self.q_bias), self.v_bias])
    q, k, v = functional.linear(x, self.qkv, bias).reshape(*x.shape[:2], 3, 2, -1).unbind(2)
    q = torch.stack([-q[..., 1::2], q[..., ::2]], -1).reshape(q.shape)
    y = _attend(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
    return self.head(y.transpose(1, 2).flatten(2)).mean(1)


def _shifted_windows(self: Net, x: Tensor) -> Tensor:
    x = self.embed(x).permute(0, 2, 3, 1)
    b, h, w, c = x.shape
    x = torch.roll(x, (-2, -2), (1, 2))
    windows = x.view(b, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    q, k, v = self.qkv(windows).reshape(-1, 16, 3, 2, c // 2).permute(2, 0, 3, 1, 4).unbind(0)
    y = _attend(q, k, v).transpose(1, 2).reshape(-1, 16, c)
    y = y.view(b, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(b, h, w, c)
    return self.head(torch.roll(y, (2, 2), (1, 2)).mean((1, 2)))


def _squeeze_excite(self: Net, x: Tensor) -> Tensor:
    x = self.conv(x).relu()
    gate = self.up(self.down(x.mean((2, 3), keepdim=True)).relu()).sigmoid()
    return self.head((x * gate).mean((2, 3)))


def _efficient_channel_attention(self: Net, x: Tensor) -> Tensor:
    x = self.conv(x).relu()
    gate = self.along(x.mean((2, 3))[:, None])[:, 0].sigmoid()
    return self.head((x * gate[:, :, None, None].expand_as(x)).mean((2, 3)))


def _selective_kernels(self: Net, x: Tensor) -> Tensor:
    both = torch.stack([self.one(x).relu(), self.two(x).relu()], 1)
    gate = self.gate(both.sum(1).mean((2, 3))).view(-1, 2, 8, 1, 1).softmax(1)
    return self.head((both * gate).sum(1).mean((2, 3)))


def _shuffled_groups(self: Net, x: Tensor) -> Tensor:
    x = self.one(x).relu()
    b, c, h, w = x.shape
    x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
    return self.head(self.two(x).mean((2, 3)))


def _rotated(self: Net, x: Tensor) -> Tensor:
    q, k, v = (_split_heads(one(x), 2) for one in (self.q, self.k, self.v))
    first, second = q.chunk(2, -1)
    q = torch.cat([first - second, second + first], -1)
    return self.head(_attend(q, k, v).transpose(1, 2).flatten(2)).mean(1)


def _rms_by_hand(self: Net, x: Tensor) -> Tensor:
    x = self.up(x)
    return self.head(self.scale * x * torch.rsqrt(x.square().mean(-1, keepdim=True) + 1e-6)).mean(1)


def _class_token(self: Net, x: Tensor) -> Tensor:
    x = self.up(x)
    x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
    return self.head(self.mix(x).relu()[:, 0])


def _tied(self: Net, x: Tensor) -> Tensor:
    return functional.linear(self.up(x).relu(), self.up.weight.t())[..., :5].mean(1)


def _gru(self: Net, x: Tensor) -> Tensor:
    return self.head(self.gru(x)[0][:, -1])


def _by_columns(self: Net, x: Tensor) -> Tensor:
    columns = functional.unfold(self.conv(x), 3, padding=1)
    return self.head(functional.fold(columns, 8, 3, padding=1).mean((2, 3)))


def _gathered(self: Net, x: Tensor) -> Tensor:
    x = self.up(x)
    index = torch.tensor([3, 1, 1])
    return self.head(torch.cat([x[:, index], x.index_select(1, index)], 1).mean(1))


def _spectrum(self: Net, x: Tensor) -> Tensor:
    x = torch.fft.rfft2(self.conv(x), dim=(2, 3), norm="ortho")
    x = torch.fft.irfft2(x * self.filter, s=(8, 8), dim=(2, 3), norm="ortho")
    return self.head(x.mean((2, 3)))


def _flattened_heads(self: Net, x: Tensor) -> Tensor:
    x = self.up(x).transpose(0, 1)
    return self.head(self.attention(x, x, x, need_weights=False)[0].mean(0))


def _grouped_queries(self: Net, x: Tensor) -> Tensor:
    q, k, v = _split_heads(self.q(x), 4), _split_heads(self.k(x), 2), _split_heads(self.v(x), 2)
    y = functional.scaled_dot_product_attention(q, k, v, enable_gqa=True)
    return self.head(y.transpose(1, 2).flatten(2)).mean(1)


def _without_autocast(self: Net, x: Tensor) -> Tensor:
    with torch.autocast("cpu", enabled=False):
        x = self.up(x).relu()
    return self.head(x).mean(1)


def _two_heads_of_one_layer(self: Net, x: Tensor) -> Tensor:
    return self.one(x).relu().mean(1) + self.two(x).sigmoid().mean(1) + self.three(x).mean(1)


def _similar(self: Net, x: Tensor) -> Tensor:
    x = self.up(x)
    alike = functional.cosine_similarity(x[:, :, None], self.centres, dim=-1)
    return alike.mean(1) - torch.cdist(x, self.centres).mean(1)


def _cell(self: Net, x: Tensor) -> Tensor:
    h = c = torch.zeros(x.shape[0], 8)
    for step in range(2):
        h, c = self.cell(x[:, step], (h, c))
    return self.head(h)


def _kernels_of_each_sample(self: Net, x: Tensor) -> Tensor:
    x = self.conv(x)
    b, c, h, w = x.shape
    kernels = self.make(x.mean((2, 3))).view(b * c, 1, 3, 3)
    y = functional.conv2d(x.reshape(1, b * c, h, w), kernels, padding=1, groups=b * c)
    return self.head(y.view(b, c, h, w).mean((2, 3)))


def _standardised(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    weight = functional.batch_norm(
        self.weight.reshape(1, 8, -1), None, None, training=True, momentum=0.0
    ).reshape_as(self.weight)
    return self.head(functional.conv2d(x, weight).mean((2, 3)))


def _pooled_channels(self: Net, x: Tensor) -> Tensor:
    x = self.conv(x)
    both = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
    return self.head((x * self.gate(both).sigmoid()).mean((2, 3)))


def _added_by_index(self: Net, x: Tensor) -> Tensor:
    x = self.up(x)
    return self.head(torch.zeros_like(x).index_add(1, self.where, x)).mean(1)


def _linear(c_in: int, c_out: int) -> dict[str, nn.Linear]:
    return {name: nn.Linear(c_in, c_out) for name in ("q", "k", "v")}


def _conv(c_in: int, c_out: int, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(c_in, c_out, 3, padding=1, groups=groups)


def _tied_head() -> nn.Module:
    model = Net(
        lambda self, x: self.head(self.mix(self.table(x)).relu()).mean(1),
        table=nn.Embedding(20, 8), mix=nn.Linear(8, 8), head=nn.Linear(8, 20, bias=False),
    )  # fmt: skip
    model.head.weight = model.table.weight
    return model


def _shared_layer() -> nn.Module:
    layer = nn.Sequential(nn.Linear(12, 8), nn.ReLU(), nn.Linear(8, 5))
    return Net(_two_heads_of_one_layer, one=layer, two=layer, three=layer)


def _plain(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), _head(8))


def _part_set_to_zero(self: Net, x: Tensor) -> Tensor:
    bias = self.up.bias.clone()
    bias[2:4].zero_()
    return self.head(torch.relu(nn.functional.linear(x, self.up.weight, bias)).mean(1))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "einsum attention": (lambda: Net(_by_einsum, **_linear(12, 12), head=_head(12)), _tokens),
    "cross-attention": (
        lambda: Net(
            _cross_attention, **_linear(12, 12), head=_head(12), queries=torch.randn(1, 4, 12)
        ),
        _tokens,
    ),
    "a bias for each head": (
        lambda: Net(_biased_heads, **_linear(12, 12), head=_head(12), bias=torch.randn(4, 6, 6)),
        _tokens,
    ),
    "tiled": (
        lambda: Net(_tiled, conv=_conv(3, 8), window=torch.randn(1, 8, 2, 2), head=_head(8)), _image
    ),
    "linear attention": (
        lambda: Net(_linear_attention, **_linear(12, 8), head=_head(8)), _tokens
    ),
    "packed attention with a position table": (
        lambda: Net(
            _packed_in_three, qkv=nn.Linear(12, 36), head=_head(12), table=torch.randn(11, 2),
            index=torch.arange(6)[:, None] - torch.arange(6) + 5,
        ),
        _tokens,
    ),
    "packed attention with a bias for each part, rotated in pairs": (
        lambda: Net(
            _packed_from_three_biases, qkv=torch.randn(36, 12), q_bias=torch.randn(12),
            v_bias=torch.randn(12), head=_head(12),
        ),
        _tokens,
    ),
    "shifted windows": (
        lambda: Net(
            _shifted_windows, embed=_conv(3, 8), qkv=nn.Linear(8, 24), head=_head(8)
        ),
        _image,
    ),
    "squeeze and excite": (
        lambda: Net(
            _squeeze_excite, conv=_conv(3, 8), down=nn.Conv2d(8, 4, 1), up=nn.Conv2d(4, 8, 1),
            head=_head(8),
        ),
        _image,
    ),
    "efficient channel attention": (
        lambda: Net(
            _efficient_channel_attention, conv=_conv(3, 8), along=nn.Conv1d(1, 1, 3, padding=1),
            head=_head(8),
        ),
        _image,
    ),
    "selective kernels": (
        lambda: Net(
            _selective_kernels, one=_conv(3, 8), two=_conv(3, 8), gate=nn.Linear(8, 16),
            head=_head(8),
        ),
        _image,
    ),
    "shuffled groups": (
        lambda: Net(_shuffled_groups, one=_conv(3, 8), two=_conv(8, 8, groups=2), head=_head(8)),
        _image,
    ),
    "channel shuffle": (
        _plain(_conv(3, 8), nn.ChannelShuffle(2), _conv(8, 8, groups=2)), _image
    ),
    "halves of a rotated query": (
        lambda: Net(_rotated, **_linear(12, 16), head=_head(16)), _tokens
    ),
    "RMS norm by hand": (
        lambda: Net(_rms_by_hand, up=nn.Linear(12, 16), head=_head(16), scale=torch.ones(16)),
        _tokens,
    ),
    "RMS norm": (
        lambda: nn.Sequential(nn.Linear(12, 8), nn.RMSNorm(8), nn.Flatten(), nn.Linear(48, 5)),
        _tokens,
    ),
    "class token": (
        lambda: Net(
            _class_token, up=nn.Linear(12, 8), token=torch.randn(1, 1, 8),
            positions=torch.randn(1, 7, 8), mix=nn.Linear(8, 6), head=_head(6),
        ),
        _tokens,
    ),
    "tied weights": (lambda: Net(_tied, up=nn.Linear(12, 16)), _tokens),
    "LSTM": (
        lambda: Net(
            lambda self, x: self.head(self.lstm(x)[0].mean(1)),
            lstm=nn.LSTM(12, 8, 2, batch_first=True, bidirectional=True), head=_head(16),
        ),
        _tokens,
    ),
    "GRU": (lambda: Net(_gru, gru=nn.GRU(12, 8, batch_first=True), head=_head(8)), _tokens),
    "GLU": (
        lambda: nn.Sequential(nn.Linear(12, 16), nn.GLU(), nn.Flatten(), nn.Linear(48, 5)),
        _tokens,
    ),
    "pixel shuffle": (
        _plain(_conv(3, 16), nn.PixelShuffle(2), _conv(4, 8), nn.PixelUnshuffle(2), _conv(32, 8)),
        _image,
    ),
    "transposed convolution": (
        _plain(_conv(3, 8), nn.ConvTranspose2d(8, 8, 2, 2, groups=2), nn.ReLU(), _conv(8, 8)),
        _image,
    ),
    "slopes": (_plain(_conv(3, 8), nn.PReLU(8), _conv(8, 8), nn.Hardswish()), _image),
    "instance norm": (_plain(_conv(3, 8), nn.InstanceNorm2d(8, affine=True), nn.ReLU()), _image),
    "group norm": (_plain(_conv(3, 8), nn.GroupNorm(2, 8), nn.ReLU(), _conv(8, 8)), _image),
    "resized": (_plain(_conv(3, 8), nn.Upsample(scale_factor=2, mode="bilinear")), _image),
    "columns": (lambda: Net(_by_columns, conv=_conv(3, 8), head=_head(8)), _image),
    "gathered": (lambda: Net(_gathered, up=nn.Linear(12, 8), head=_head(8)), _tokens),
    "depthwise": (
        _plain(_conv(3, 8), _conv(8, 16, groups=8), nn.ReLU(), nn.Conv2d(16, 8, 1)), _image
    ),
    "spectrum": (
        lambda: Net(_spectrum, conv=_conv(3, 8), filter=torch.randn(8, 8, 5), head=_head(8)),
        _image,
    ),
    "words": (
        lambda: Net(
            lambda self, x: self.head(self.table(x).mean(1)), table=nn.Embedding(20, 8),
            head=_head(8),
        ),
        lambda: torch.randint(20, (3, 6)),
    ),
    "batch and heads in one dimension": (
        lambda: Net(
            _flattened_heads, up=nn.Linear(12, 16), attention=nn.MultiheadAttention(16, 4),
            head=_head(16),
        ),
        _tokens,
    ),
    "a layer of the decoder": (
        lambda: Net(
            lambda self, x: self.head(self.layer(self.up(x), x)).mean(1),
            up=nn.Linear(12, 12), layer=nn.TransformerDecoderLayer(12, 4, 20, batch_first=True),
            head=_head(12),
        ),
        _tokens,
    ),
    "two heads for each key": (
        lambda: Net(
            _grouped_queries, q=nn.Linear(12, 24), k=nn.Linear(12, 12), v=nn.Linear(12, 12),
            head=_head(24),
        ),
        _tokens,
    ),
    "a region without autocast": (
        lambda: Net(_without_autocast, up=nn.Linear(12, 8), head=_head(8)), _tokens
    ),
    "cosines and distances": (
        lambda: Net(_similar, up=nn.Linear(12, 8), centres=torch.randn(5, 8)), _tokens
    ),
    "a cell unrolled": (
        lambda: Net(_cell, cell=nn.LSTMCell(12, 8), head=_head(8)), _tokens
    ),
    "kernels of each sample": (
        lambda: Net(
            _kernels_of_each_sample, conv=_conv(3, 8), make=nn.Linear(8, 72), head=_head(8)
        ),
        _image,
    ),
    "standardised weights": (
        lambda: Net(
            _standardised, first=_conv(3, 6), weight=torch.randn(8, 6, 3, 3), head=_head(8)
        ),
        _image,
    ),
    "pooled channels": (
        lambda: Net(_pooled_channels, conv=_conv(3, 8), gate=nn.Conv2d(2, 1, 3, padding=1),
                    head=_head(8)),
        _image,
    ),
    "added by index": (
        lambda: Net(_added_by_index, up=nn.Linear(12, 8), where=torch.tensor([0, 2, 2, 5, 1, 3]),
                    head=_head(8)),
        _tokens,
    ),
    "local response norm": (_plain(_conv(3, 8), nn.LocalResponseNorm(3), _conv(8, 8)), _image),
    "weight norm": (
        lambda: nn.Sequential(
            nn.utils.parametrizations.weight_norm(nn.Linear(12, 8)), nn.ReLU(), nn.Flatten(),
            nn.Linear(48, 5),
        ),
        _tokens,
    ),
    "a tied head": (lambda: _tied_head(), lambda: torch.randint(20, (3, 6))),
    "one layer by three names": (lambda: _shared_layer(), _tokens),
    "a part set to zero": (
        lambda: Net(_part_set_to_zero, up=nn.Linear(12, 8), head=_head(8)), _tokens,
    ),
    "a convolution along tokens": (
        lambda: Net(
            lambda self, x: self.head(self.along(self.up(x).mT).relu().mT).mean(1),
            up=nn.Linear(12, 8), along=nn.Conv1d(8, 6, 3, padding=1), head=_head(6),
        ),
        _tokens,
    ),
    "bilinear": (
        lambda: Net(
            lambda self, x: self.head(self.form(self.up(x), self.up(x)).mean(1)),
            up=nn.Linear(12, 8), form=nn.Bilinear(8, 8, 6), head=_head(6),
        ),
        _tokens,
    ),
}  # fmt: skip


def _kept(axes: Any, names: list[str]) -> dict[str, list[int]]:
    draw = torch.Generator().manual_seed(0)
    return {
        name: sorted(
            torch.randperm(axes[name].size, generator=draw)[: math.ceil(axes[name].size / 2)]
            .tolist()
        )
        for name in names
    }  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_pruned_equals_masked_and_all_that_is_free_trains(name: str) -> None:
    torch.manual_seed(0)
    make, inputs = CASES[name]
    model, x = make().eval(), inputs()
    network = capture(model, x)
    torch.testing.assert_close(network(x), model(x))
    axes = find_axes(network)
    assert not axes.trace.unknown
    assert axes.free
    exact = [one for one, group in axes.free.items() if not group.mixed]
    if exact:
        keep = _kept(axes, exact)
        pruned = carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))
        wanted = mask(network, keep)(x)
        assert not torch.allclose(wanted, network(x))
        torch.testing.assert_close(pruned(x), wanted, rtol=1e-5, atol=1e-5)
    keep = _kept(axes, list(axes.free))
    pruned = carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))
    assert sum(p.numel() for p in pruned.parameters()) < sum(p.numel() for p in model.parameters())
    pruned.train()
    pruned(x).square().mean().backward()
    assert all(p.grad is not None and p.grad.shape == p.shape for p in pruned.parameters())


def _bounded(self: Net, x: Tensor) -> Tensor:
    x = torch.clamp(self.up(x), self.low, self.high)
    wall = torch.zeros_like(x)
    wall[:, 2:] = self.low
    return self.head(x + wall).mean(1)


def _bounds() -> nn.Module:
    return Net(
        _bounded, up=nn.Linear(12, 8), low=-torch.rand(8), high=torch.rand(8), head=_head(8)
    )  # fmt: skip


@pytest.mark.parametrize("name", ["bounds", "cosines and distances", "kernels of each sample"])
def test_what_the_exporter_lacks_reaches_onnx_runtime(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, inputs = {**CASES, "bounds": (_bounds, _tokens)}[name]
    x = inputs()
    network = capture(make().eval(), x)
    keep = _kept(find_axes(network), list(find_axes(network).free))
    pruned = carry_out(network, Plan("test", {}, ({"edit": "shrink", "axes": keep},)))
    runtime = OnnxRuntime()
    session = runtime.load(runtime.lower(pruned, tmp_path / "model.onnx"))
    found = torch.as_tensor(session.run(x.numpy()))
    torch.testing.assert_close(found, pruned(x), rtol=1e-5, atol=1e-5)
