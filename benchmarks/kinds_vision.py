"""Small networks of many kinds that look at images, sounds and volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Kind = Callable[[], tuple[nn.Module, Any]]


class Net(nn.Module):
    """A network from its parts and a function of them."""

    def __init__(self, forward: Callable[..., Any], **parts: Any) -> None:
        super().__init__()
        for name, part in parts.items():
            if isinstance(part, nn.Module | nn.Parameter):
                setattr(self, name, part)
            else:
                self.register_buffer(name, part)
        self.forward = forward.__get__(self)

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Part: ...


if TYPE_CHECKING:

    class Part(Tensor):
        """A part as mypy is to see it where a network's function names one: it may be taken as a
        tensor, called for one or for several, or gone through as layers. Only the function knows
        which it is."""

        weight: Tensor

        def __call__(self, *inputs: Any, **options: Any) -> Tensor: ...
        def __getitem__(self, where: Any) -> Part: ...
        def __iter__(self) -> Iterator[Part]: ...


def weight(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.randn(*shape) * 0.3)


def image(channels: int = 3, side: int = 32) -> Tensor:
    return torch.randn(2, channels, side, side)


def conv(i: int, o: int, k: int = 3, **options: Any) -> nn.Conv2d:
    return nn.Conv2d(i, o, k, **{"padding": k // 2, **options})


def block(i: int, o: int, **options: Any) -> nn.Sequential:
    return nn.Sequential(conv(i, o, bias=False, **options), nn.BatchNorm2d(o), nn.ReLU(True))


def head(width: int, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes))


def pool(x: Tensor) -> Tensor:
    return x.mean((2, 3))


def _unet(self: Net, x: Tensor) -> Tensor:
    a = self.a(x)
    b = self.b(F.max_pool2d(a, 2))
    c = self.c(F.max_pool2d(b, 2))
    b = self.d(torch.cat([self.up1(c), b], 1))
    return self.out(self.e(torch.cat([self.up2(b), a], 1)))


def unet() -> tuple[nn.Module, Any]:
    return Net(
        _unet,
        a=block(3, 16),
        b=block(16, 32),
        c=block(32, 48),
        d=block(64, 32),
        e=block(32, 16),
        up1=nn.ConvTranspose2d(48, 32, 2, 2),
        up2=nn.ConvTranspose2d(32, 16, 2, 2),
        out=conv(16, 4, 1),
    ), image()


def _segmenter(self: Net, x: Tensor) -> dict[str, Tensor]:
    low = self.low(x)
    high = self.high(low)
    wide = torch.cat(
        [
            self.d1(high),
            self.d2(high),
            self.g(F.adaptive_avg_pool2d(high, 1)).expand(-1, -1, high.shape[2], high.shape[3]),
        ],
        1,
    )
    y = F.interpolate(self.mix(wide), size=low.shape[2:], mode="bilinear", align_corners=False)
    y = self.classify(torch.cat([y, self.skip(low)], 1))
    return {"out": F.interpolate(y, scale_factor=2, mode="bilinear"), "aux": self.aux(high)}


def segmenter() -> tuple[nn.Module, Any]:
    return Net(
        _segmenter,
        low=block(3, 16, stride=2),
        high=block(16, 32, stride=2),
        d1=block(32, 16, dilation=2, padding=2),
        d2=block(32, 16, dilation=4, padding=4),
        g=conv(32, 16, 1),
        mix=block(48, 24),
        skip=conv(16, 8, 1),
        classify=conv(32, 5),
        aux=conv(32, 5, 1),
    ), image()


def super_resolution() -> tuple[nn.Module, Any]:
    return Net(
        lambda self, x: (
            self.up(self.body(self.first(x)) + self.first(x))
            + F.interpolate(x, scale_factor=2, mode="bicubic")
        ),
        first=conv(3, 16),
        body=nn.Sequential(conv(16, 32), nn.PReLU(), conv(32, 16)),
        up=nn.Sequential(conv(16, 64), nn.PixelShuffle(2), nn.PReLU(16), conv(16, 3)),
    ), image()


def autoencoder() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        conv(3, 16, stride=2),
        nn.ReLU(),
        conv(16, 24, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(24 * 64, 20),
        nn.Linear(20, 24 * 64),
        nn.Unflatten(1, (24, 8, 8)),
        nn.ConvTranspose2d(24, 16, 4, 2, 1),
        nn.ReLU(),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    ), image()


def _vae(self: Net, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    mean, log = self.encode(x.flatten(1)).chunk(2, 1)
    z = mean + (0.5 * log).exp() * self.noise
    return self.decode(z).view(-1, 1, 16, 16), mean, log


def vae() -> tuple[nn.Module, Any]:
    return Net(
        _vae,
        encode=nn.Sequential(nn.Linear(256, 64), nn.ReLU(), nn.Linear(64, 24)),
        decode=nn.Sequential(nn.Linear(12, 64), nn.ReLU(), nn.Linear(64, 256), nn.Sigmoid()),
        noise=torch.randn(12),
    ), image(1, 16)


def _wavenet(self: Net, x: Tensor) -> Tensor:
    x, skips = self.first(x), torch.zeros(())
    for k in range(3):
        gate = self.filters[k](F.pad(x, (2 ** (k + 1), 0)))
        a, b = gate.chunk(2, 1)
        y = torch.tanh(a) * torch.sigmoid(b)
        skips = skips + self.skips[k](y)
        x = x + self.residuals[k](y)
    return self.last(skips.relu())


def wavenet() -> tuple[nn.Module, Any]:
    return Net(
        _wavenet,
        first=nn.Conv1d(1, 16, 1),
        filters=nn.ModuleList(nn.Conv1d(16, 32, 3, dilation=2**k) for k in range(3)),
        skips=nn.ModuleList(nn.Conv1d(16, 24, 1) for _ in range(3)),
        residuals=nn.ModuleList(nn.Conv1d(16, 16, 1) for _ in range(3)),
        last=nn.Conv1d(24, 8, 1),
    ), torch.randn(2, 1, 40)


class Chomp(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, :-4].contiguous()


def tcn() -> tuple[nn.Module, Any]:
    wn = nn.utils.parametrizations.weight_norm
    return nn.Sequential(
        wn(nn.Conv1d(3, 16, 3, padding=4, dilation=2)),
        Chomp(),
        nn.ReLU(),
        nn.Dropout(0.1),
        wn(nn.Conv1d(16, 16, 3, padding=4, dilation=2)),
        Chomp(),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(16, 4),
    ), torch.randn(2, 3, 30)


def speech_commands() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Conv1d(1, 16, 20, stride=4),
        nn.BatchNorm1d(16),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.Conv1d(16, 32, 3),
        nn.BatchNorm1d(32),
        nn.ReLU(),
        nn.MaxPool1d(4),
        nn.AdaptiveAvgPool1d(2),
        nn.Flatten(),
        nn.Linear(64, 12),
        nn.LogSoftmax(-1),
    ), torch.randn(2, 1, 800)


def volume() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.Conv3d(1, 8, 3, padding=1),
        nn.BatchNorm3d(8),
        nn.LeakyReLU(),
        nn.MaxPool3d(2),
        nn.Conv3d(8, 16, 3, groups=2),
        nn.InstanceNorm3d(16, affine=True),
        nn.ELU(),
        nn.AdaptiveMaxPool3d(1),
        nn.Flatten(),
        nn.Linear(16, 3),
    ), torch.randn(2, 1, 10, 12, 12)


def _resnext(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    return self.head((x + self.c(self.b(self.a(x)))).relu())


def resnext() -> tuple[nn.Module, Any]:
    return Net(
        _resnext,
        first=block(3, 32),
        a=conv(32, 16, 1),
        b=block(16, 16, groups=4),
        c=conv(16, 32, 1),
        head=head(32),
    ), image()


def _shuffle_v2(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    for branch in (self.b1, self.b2):
        x1, x2 = x.chunk(2, dim=1)
        x = torch.cat((x1, branch(x2)), 1)
        n, c, h, w = x.size()
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).contiguous().view(n, -1, h, w)
    return self.head(x)


def shufflenet() -> tuple[nn.Module, Any]:
    def branch() -> nn.Module:
        return nn.Sequential(block(12, 12), conv(12, 12, groups=12), block(12, 12))

    return Net(_shuffle_v2, first=block(3, 24), b1=branch(), b2=branch(), head=head(24)), image()


def _gates(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    se = torch.sigmoid(self.up(F.relu(self.down(x.mean((2, 3), keepdim=True)))))
    x = x * se
    average, most = self.mlp(pool(x)), self.mlp(x.amax((2, 3)))
    x = x * (average + most).sigmoid()[..., None, None]
    spatial = torch.cat([x.mean(1, keepdim=True), x.max(1, keepdim=True)[0]], 1)
    return self.head(x * self.space(spatial).sigmoid())


def gates() -> tuple[nn.Module, Any]:
    return Net(
        _gates,
        first=block(3, 16),
        down=conv(16, 4, 1),
        up=conv(4, 16, 1),
        mlp=nn.Sequential(nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 16)),
        space=conv(2, 1, 7),
        head=head(16),
    ), image()


def _ghost(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    primary = self.primary(x)
    return self.head(torch.cat([primary, self.cheap(primary)], 1)[:, :20])


def ghost() -> tuple[nn.Module, Any]:
    return Net(
        _ghost,
        first=block(3, 16),
        primary=block(16, 12),
        cheap=block(12, 12, groups=12),
        head=head(20),
    ), image()


def _inception(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    parts = [self.a(x), self.c(self.b(x)), self.e(F.avg_pool2d(x, 3, 1, 1))]
    return self.head(torch.cat(parts, 1))


def inception() -> tuple[nn.Module, Any]:
    return Net(
        _inception,
        first=block(3, 16),
        a=block(16, 8),
        b=block(16, 6),
        c=block(6, 12),
        e=block(16, 4),
        head=head(24),
    ), image()


def _dense(self: Net, x: Tensor) -> Tensor:
    found = [self.first(x)]
    for layer in self.layers:
        found.append(layer(torch.cat(found, 1)))
    return self.head(self.down(torch.cat(found, 1)))


def densenet() -> tuple[nn.Module, Any]:
    layers = nn.ModuleList(
        nn.Sequential(nn.BatchNorm2d(16 + 8 * k), nn.ReLU(), conv(16 + 8 * k, 8)) for k in range(3)
    )
    down = nn.Sequential(nn.BatchNorm2d(40), nn.ReLU(), conv(40, 20, 1), nn.AvgPool2d(2))
    return Net(_dense, first=conv(3, 16), layers=layers, down=down, head=head(20)), image()


def _hourglass(self: Net, x: Tensor) -> list[Tensor]:
    x, outputs = self.first(x), []
    for k in range(2):
        low = self.low[k](F.max_pool2d(x, 2))
        y = self.up[k](x) + F.interpolate(low, scale_factor=2)
        heat = self.heat[k](y)
        outputs.append(heat)
        x = x + self.back[k](heat) + self.mix[k](y)
    return outputs


def hourglass() -> tuple[nn.Module, Any]:
    def two(i: int, o: int, k: int = 3) -> nn.ModuleList:
        return nn.ModuleList(conv(i, o, k) for _ in range(2))

    return Net(
        _hourglass,
        first=block(3, 16),
        low=two(16, 16),
        up=two(16, 16),
        heat=two(16, 5, 1),
        back=two(5, 16, 1),
        mix=two(16, 16, 1),
    ), image()


def _pyramid(self: Net, x: Tensor) -> tuple[Tensor, ...]:
    c = [self.c1(x)]
    c += [self.c2(c[0])]
    c += [self.c3(c[1])]
    p = [lateral(one) for lateral, one in zip(self.lateral, c, strict=True)]
    for k in (1, 0):
        p[k] = p[k] + F.interpolate(p[k + 1], size=p[k].shape[-2:], mode="nearest")
    found = [self.smooth(one) for one in p]
    boxes = torch.cat([self.box(one).flatten(2) for one in found], 2).transpose(1, 2)
    scores = torch.cat(
        [self.score(one).permute(0, 2, 3, 1).reshape(x.shape[0], -1, 3) for one in found], 1
    )
    return boxes, scores.sigmoid()


def pyramid() -> tuple[nn.Module, Any]:
    return Net(
        _pyramid,
        c1=block(3, 16, stride=2),
        c2=block(16, 24, stride=2),
        c3=block(24, 32, stride=2),
        lateral=nn.ModuleList([conv(16, 16, 1), conv(24, 16, 1), conv(32, 16, 1)]),
        smooth=block(16, 16),
        box=conv(16, 8),
        score=conv(16, 6),
    ), image()


def _two_images(self: Net, a: Tensor, b: Tensor) -> Tensor:
    x, y = self.shared(a), self.shared(b)
    return self.head(torch.cat([x, y, (x - y).abs(), x * y], 1))


def siamese() -> tuple[nn.Module, Any]:
    shared = nn.Sequential(block(3, 16, stride=2), block(16, 24, stride=2), head(24, 12))
    return Net(_two_images, shared=shared, head=nn.Linear(48, 2)), (image(), image())


def _with_vector(self: Net, picture: Tensor, vector: Tensor) -> dict[str, Tensor]:
    x = self.picture(picture)
    scale, shift = self.film(vector).chunk(2, -1)
    x = self.mid(x * (1 + scale[:, :, None, None]) + shift[:, :, None, None])
    return {"logits": self.head(x), "value": self.value(torch.cat([pool(x), vector], 1))}


def image_and_vector() -> tuple[nn.Module, Any]:
    return Net(
        _with_vector,
        picture=block(3, 16),
        film=nn.Linear(6, 32),
        mid=block(16, 20),
        head=head(20),
        value=nn.Linear(26, 1),
    ), {"picture": image(), "vector": torch.randn(2, 6)}


def style_transfer() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        nn.ReflectionPad2d(4),
        nn.Conv2d(3, 16, 9),
        nn.InstanceNorm2d(16, affine=True),
        nn.ReLU(),
        conv(16, 24, stride=2),
        nn.InstanceNorm2d(24, affine=True),
        nn.ReLU(),
        nn.Upsample(scale_factor=2),
        conv(24, 3, padding_mode="reflect"),
    ), image()


def odd_layers() -> tuple[nn.Module, Any]:
    return nn.Sequential(
        conv(3, 16, padding_mode="circular"),
        nn.LocalResponseNorm(5),
        nn.Hardswish(),
        conv(16, 24, bias=False, dilation=2, padding=2),
        nn.GroupNorm(4, 24),
        nn.SiLU(),
        conv(24, 24, groups=24),
        nn.LeakyReLU(),
        conv(24, 16, 1),
        nn.LayerNorm([16, 32, 32]),
        nn.GELU(),
        nn.LPPool2d(2, 2),
        nn.AdaptiveAvgPool2d((3, 2)),
        nn.Flatten(),
        nn.Linear(96, 12),
        nn.Mish(),
        nn.Linear(12, 10),
    ), image()


def _maxout(self: Net, x: Tensor) -> Tensor:
    x = self.conv(x)
    x = x.view(x.shape[0], 12, 2, 32, 32).max(2)[0]
    return self.head(x)


def maxout() -> tuple[nn.Module, Any]:
    return Net(_maxout, conv=conv(3, 24), head=head(12)), image()


def _octave(self: Net, x: Tensor) -> Tensor:
    high, low = self.high(x), self.low(F.avg_pool2d(x, 2))
    high, low = (
        self.hh(high) + F.interpolate(self.lh(low), scale_factor=2),
        self.ll(low) + self.hl(F.avg_pool2d(high, 2)),
    )
    return self.head(torch.cat([F.avg_pool2d(high.relu(), 2), low.relu()], 1))


def octave() -> tuple[nn.Module, Any]:
    return Net(
        _octave,
        high=conv(3, 12),
        low=conv(3, 8),
        hh=conv(12, 12),
        lh=conv(8, 12),
        ll=conv(8, 8),
        hl=conv(12, 8),
        head=head(20),
    ), image()


def generator() -> tuple[nn.Module, Any]:
    def up(i: int, o: int, k: int, s: int, p: int) -> list[nn.Module]:
        return [nn.ConvTranspose2d(i, o, k, s, p, bias=False), nn.BatchNorm2d(o), nn.ReLU(True)]

    return nn.Sequential(
        *up(16, 32, 4, 1, 0),
        *up(32, 24, 4, 2, 1),
        *up(24, 16, 4, 2, 1),
        nn.ConvTranspose2d(16, 3, 4, 2, 1),
        nn.Tanh(),
    ), image(16, 1)


def discriminator() -> tuple[nn.Module, Any]:
    sn = nn.utils.parametrizations.spectral_norm
    return nn.Sequential(
        sn(conv(3, 16, stride=2)),
        nn.LeakyReLU(0.2),
        sn(conv(16, 24, stride=2)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        sn(nn.Linear(24 * 64, 1)),
    ), image()


def _spatial_transformer(self: Net, x: Tensor) -> Tensor:
    theta = self.locate(x).view(-1, 2, 3)
    grid = F.affine_grid(theta, [x.shape[0], 3, 32, 32], align_corners=False)
    return self.rest(F.grid_sample(self.first(x), grid, align_corners=False))


def spatial_transformer() -> tuple[nn.Module, Any]:
    return Net(
        _spatial_transformer,
        first=block(3, 12),
        locate=nn.Sequential(block(3, 8, stride=4), head(8, 6)),
        rest=head(12),
    ), image()


def _functional(self: Net, x: Tensor) -> Tensor:
    x = (x - self.mean) / self.std
    x = F.relu(F.conv2d(x, self.w1, self.b1, stride=2, padding=1))
    x = F.batch_norm(x, self.rm, self.rv, self.g, self.b)
    x = x + self.position
    x = F.conv2d(x, self.w2, padding=1).relu()
    return F.linear(x.view(x.shape[0], 20 * 16 * 16), self.w3)


def functional() -> tuple[nn.Module, Any]:
    return Net(
        _functional,
        mean=torch.zeros(1, 3, 1, 1),
        std=torch.ones(1, 3, 1, 1),
        w1=weight(16, 3, 3, 3),
        b1=weight(16),
        rm=torch.randn(16),
        rv=torch.rand(16) + 0.5,
        g=weight(16),
        b=weight(16),
        position=weight(1, 16, 16, 16),
        w2=weight(20, 16, 3, 3),
        w3=weight(10, 20 * 256),
    ), image()


def _tricks(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    x = x.clone()
    x[:, :16] += self.part(x[:, 16:].clone())
    a, b, c, d = torch.split(x, [8, 8, 8, 8], 1)
    y = torch.stack([a + b, c * d], 2).flatten(1, 2)
    z = torch.zeros_like(y)
    z[:, 4:] = y[:, 4:]
    p, q = z.unbind(2)[0], y.roll(1, 2)
    mask = (q > 0).to(q.dtype)
    return self.head(q.masked_fill(mask == 0, 0.1) + p[:, :, None] + y.cumsum(1))


def tricks() -> tuple[nn.Module, Any]:
    return Net(_tricks, first=conv(3, 32), part=conv(16, 16, 1), head=head(16)), image()


def _patches(self: Net, x: Tensor) -> Tensor:
    x = self.first(x)
    b, c, h, w = x.shape
    p = F.unfold(x, 3, padding=1).view(b, c, 9, h * w)
    weights = self.weights(x).view(b, 1, 9, h * w).softmax(2)
    y = (p * weights).sum(2).view(b, c, h, w)
    tiles = y.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5)
    return self.last(self.tile(tiles.reshape(b, 64, c * 16)).mean(1))


def patches() -> tuple[nn.Module, Any]:
    return Net(
        _patches,
        first=block(3, 12),
        weights=conv(12, 9, 1),
        tile=nn.Linear(192, 20),
        last=nn.Linear(20, 10),
    ), image()


VISION: dict[str, Kind] = {
    one.__name__: one
    for one in (
        unet,
        segmenter,
        super_resolution,
        autoencoder,
        vae,
        wavenet,
        tcn,
        speech_commands,
        volume,
        resnext,
        shufflenet,
        gates,
        ghost,
        inception,
        densenet,
        hourglass,
        pyramid,
        siamese,
        image_and_vector,
        style_transfer,
        odd_layers,
        maxout,
        octave,
        generator,
        discriminator,
        spatial_transformer,
        functional,
        tricks,
        patches,
    )
}
