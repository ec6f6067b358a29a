"""Small networks of kinds that no model zoo lists: tables, graphs, fields, experts, queries.

`KINDS` names them all, those of `kinds_vision` and `kinds_sequence` too: a function of no
arguments each, which gives the network and a batch of two.
"""

from __future__ import annotations

from typing import Any

import torch
from kinds_sequence import SEQUENCE, tokens
from kinds_vision import VISION, Kind, Net, block, conv, image, weight
from torch import Tensor, nn
from torch.nn import functional as F


def _dlrm(self: Net, dense: Tensor, sparse: Tensor) -> Tensor:
    x = self.bottom(dense)
    parts = [x] + [table(sparse[:, k]) for k, table in enumerate(self.tables)]
    stacked = torch.stack(parts, 1)
    products = torch.bmm(stacked, stacked.transpose(1, 2))
    rows, columns = torch.tril_indices(4, 4, -1)
    return self.top(torch.cat([x, products[:, rows, columns]], 1)).sigmoid()


def dlrm() -> tuple[nn.Module, Any]:
    return Net(
        _dlrm,
        bottom=nn.Sequential(nn.Linear(13, 32), nn.ReLU(), nn.Linear(32, 8)),
        tables=nn.ModuleList(nn.Embedding(20, 8) for _ in range(3)),
        top=nn.Sequential(nn.Linear(14, 24), nn.ReLU(), nn.Linear(24, 1)),
    ), (torch.randn(2, 13), torch.randint(20, (2, 3)))


def wide_and_deep() -> tuple[nn.Module, Any]:
    def forward(self: Net, numbers: Tensor, kinds: Tensor) -> Tensor:
        deep = torch.cat([numbers, self.table(kinds).flatten(1)], 1)
        crossed = numbers * self.cross(numbers) + numbers
        return self.wide(crossed) + self.deep(deep)

    deep = nn.Sequential(nn.Linear(22, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 1))
    return Net(
        forward,
        table=nn.Embedding(20, 4),
        cross=nn.Linear(10, 10),
        wide=nn.Linear(10, 1),
        deep=deep,
    ), {"numbers": torch.randn(2, 10), "kinds": torch.randint(20, (2, 3))}


def graph() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = (self.adjacency @ self.one(x)).relu()
        x = torch.einsum("vw,bwc->bvc", self.adjacency, self.two(x)).relu()
        return self.head(x.max(1).values)

    adjacency = torch.rand(9, 9).softmax(-1)
    return Net(
        forward,
        one=nn.Linear(5, 16),
        two=nn.Linear(16, 20),
        head=nn.Linear(20, 3),
        adjacency=adjacency,
    ), torch.randn(2, 9, 5)


def graph_attention() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        b, n, _ = x.shape
        h = self.w(x).view(b, n, 4, 6)
        left, right = (h * self.a1).sum(-1), (h * self.a2).sum(-1)
        scores = F.leaky_relu(left[:, :, None] + right[:, None], 0.2)
        scores = scores.masked_fill(~self.edges[None, :, :, None], -1e9).softmax(2)
        y = torch.einsum("bijh,bjhd->bihd", scores, h).reshape(b, n, 24)
        return self.head(F.elu(y).mean(1))

    return Net(
        forward,
        w=nn.Linear(5, 24),
        a1=weight(1, 1, 4, 6),
        a2=weight(1, 1, 4, 6),
        edges=torch.rand(9, 9) > 0.3,
        head=nn.Linear(24, 3),
    ), torch.randn(2, 9, 5)


def messages() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.up(x).relu()
        sent = self.edge(torch.cat([x[:, self.source], x[:, self.target]], -1)).relu()
        got = torch.zeros_like(x[..., :1]).expand(-1, -1, 20).clone()
        got = got.index_add(1, self.target, sent)
        return self.head((x + self.node(got)).sum(1))

    return Net(
        forward,
        up=nn.Linear(5, 16),
        edge=nn.Linear(32, 20),
        node=nn.Linear(20, 16),
        source=torch.randint(9, (14,)),
        target=torch.randint(9, (14,)),
        head=nn.Linear(16, 3),
    ), torch.randn(2, 9, 5)


def edge_list() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor, edges: Tensor, temperature: Tensor) -> Tensor:
        source, target = edges
        for layer in self.layers:
            x = layer(x).relu()
            x = x + torch.zeros_like(x).index_add(0, target, x[source])
        return self.head(x) / temperature

    layers = nn.ModuleList([nn.Linear(5, 16), nn.Linear(16, 20)])
    return Net(forward, layers=layers, head=nn.Linear(20, 3)), (
        torch.randn(9, 5),
        torch.randint(9, (2, 14)),
        torch.tensor(2.0),
    )


def points() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        f = self.local(x.transpose(1, 2))
        whole = f.max(2, keepdim=True)[0].repeat(1, 1, x.shape[1])
        return self.head(torch.cat([f, whole], 1)).transpose(1, 2)

    local = nn.Sequential(nn.Conv1d(3, 16, 1), nn.BatchNorm1d(16), nn.ReLU(), nn.Conv1d(16, 24, 1))
    return Net(
        forward,
        local=local,
        head=nn.Sequential(nn.Conv1d(48, 20, 1), nn.ReLU(), nn.Conv1d(20, 4, 1)),
    ), torch.randn(2, 15, 3)


def experts() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        gate = self.gate(x).softmax(-1)
        found = torch.stack([one(x) for one in self.experts], -2)
        return self.head((found * gate.unsqueeze(-1)).sum(-2))

    def expert() -> nn.Module:
        return nn.Sequential(nn.Linear(12, 20), nn.ReLU(), nn.Linear(20, 16))

    return Net(
        forward,
        gate=nn.Linear(12, 4),
        experts=nn.ModuleList(expert() for _ in range(4)),
        head=nn.Linear(16, 3),
    ), torch.randn(2, 12)


def packed_experts() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        scores, chosen = self.gate(x).softmax(-1).topk(2, -1)
        gate = torch.zeros(x.shape[0], 4).scatter(1, chosen, scores)
        hidden = torch.einsum("bi,eio->beo", x, self.w1).relu()
        return self.head(torch.einsum("beo,eod,be->bd", hidden, self.w2, gate))

    return Net(
        forward,
        gate=nn.Linear(12, 4),
        w1=weight(4, 12, 20),
        w2=weight(4, 20, 16),
        head=nn.Linear(16, 3),
    ), torch.randn(2, 12)


def splines() -> tuple[nn.Module, Any]:
    def layer(x: Tensor, w: Tensor, s: Tensor, knots: Tensor) -> Tensor:
        basis = torch.exp(-((x[..., None] - knots) ** 2))
        return F.linear(F.silu(x), w) + torch.einsum("bik,oik->bo", basis, s)

    def forward(self: Net, x: Tensor) -> Tensor:
        return layer(layer(x, self.w1, self.s1, self.knots), self.w2, self.s2, self.knots)

    return Net(
        forward,
        w1=weight(16, 6),
        s1=weight(16, 6, 5),
        w2=weight(3, 16),
        s2=weight(3, 16, 5),
        knots=torch.linspace(-1, 1, 5),
    ), torch.randn(2, 6)


def hypernetwork() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor, z: Tensor) -> Tensor:
        w = self.make(z).view(-1, 16, 12)
        y = torch.bmm(w, x.unsqueeze(2)).squeeze(2) + self.bias(z)
        mixed = (self.attention(z).softmax(-1)[:, :, None, None] * self.kernels).sum(1)
        return self.head(torch.matmul(y.relu()[:, None], mixed)[:, 0])

    make = nn.Sequential(nn.Linear(5, 20), nn.ReLU(), nn.Linear(20, 192))
    return Net(
        forward,
        make=make,
        bias=nn.Linear(5, 16),
        attention=nn.Linear(5, 3),
        kernels=weight(3, 16, 14),
        head=nn.Linear(14, 3),
    ), (torch.randn(2, 12), torch.randn(2, 5))


def dynamic_convolution() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        b, _, h, w = x.shape
        x = self.first(x)
        kernels = self.make(x.mean((2, 3))).view(b * 16, 1, 3, 3)
        y = F.conv2d(x.reshape(1, b * 16, h, w), kernels, padding=1, groups=b * 16)
        return self.head(y.view(b, 16, h, w).relu().mean((2, 3)))

    return Net(forward, first=conv(3, 16), make=nn.Linear(16, 144), head=nn.Linear(16, 3)), image()


def nerf() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor, direction: Tensor) -> dict[str, Tensor]:
        angles = x[..., None] * self.bands
        e = torch.cat([x, angles.sin().flatten(-2), angles.cos().flatten(-2)], -1)
        h = self.a(e).relu()
        h = self.b(torch.cat([e, h], -1)).relu()
        color = self.color(torch.cat([self.feature(h), direction], -1).relu())
        return {"density": F.softplus(self.density(h)), "color": color.sigmoid()}

    return Net(
        forward,
        bands=2.0 ** torch.arange(4),
        a=nn.Linear(27, 32),
        b=nn.Linear(59, 32),
        density=nn.Linear(32, 1),
        feature=nn.Linear(32, 24),
        color=nn.Linear(27, 3),
    ), (torch.randn(2, 7, 3), torch.randn(2, 7, 3))


def fourier() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.up(x)
        x = self.norm(x + torch.fft.fft(torch.fft.fft(x, dim=-1), dim=-2).real)
        y = torch.fft.rfft(x, dim=1)
        y = torch.einsum("bkc,kco->bko", y, torch.view_as_complex(self.w))
        return self.head(torch.fft.irfft(y, n=10, dim=1).mean(1))

    return Net(
        forward,
        up=nn.Linear(12, 16),
        norm=nn.LayerNorm(16),
        w=weight(6, 16, 14, 2),
        head=nn.Linear(14, 3),
    ), tokens(12)


def spectral_operator() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.up(x)
        y = torch.fft.rfft2(x)
        z = torch.zeros_like(y)
        z[:, :, :5, :5] = torch.einsum("bixy,ioxy->boxy", y[:, :, :5, :5], self.w)
        x = F.gelu(torch.fft.irfft2(z, s=(16, 16)) + self.skip(x))
        return self.down(x)

    w = nn.Parameter(torch.randn(12, 12, 5, 5, dtype=torch.cfloat) * 0.1)
    return Net(forward, up=conv(2, 12, 1), w=w, skip=conv(12, 12, 1), down=conv(12, 1, 1)), image(
        2, 16
    )


def tabnet() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.norm(x)
        prior = torch.ones_like(x)
        total: Tensor | float = 0.0
        d, a = torch.split(self.first(x), [8, 6], 1)
        for k in range(2):
            mask = (self.attend[k](a) * prior).softmax(-1)
            prior = prior * (1.3 - mask)
            h = F.glu(self.shared(x * mask))
            h = (h + F.glu(self.own[k](h))) * 0.5**0.5
            d, a = h[:, :8], h[:, 8:]
            total = total + d.relu()
        return self.head(total)

    return Net(
        forward,
        norm=nn.BatchNorm1d(12),
        first=nn.Linear(12, 14),
        shared=nn.Linear(12, 28),
        attend=nn.ModuleList(nn.Linear(6, 12) for _ in range(2)),
        own=nn.ModuleList(nn.Linear(14, 28) for _ in range(2)),
        head=nn.Linear(8, 3),
    ), torch.randn(2, 12)


def capsules() -> tuple[nn.Module, Any]:
    def squash(x: Tensor) -> Tensor:
        n: Tensor = x.norm(dim=-1, keepdim=True)
        return x * n / (1 + n**2)

    def forward(self: Net, x: Tensor) -> Tensor:
        u = squash(self.primary(F.relu(self.first(x))).view(x.shape[0], -1, 8))
        votes = torch.einsum("bid,ijde->bije", u, self.w)
        logits = torch.zeros(x.shape[0], 128, 5)
        for _ in range(2):
            v = squash((logits.softmax(2)[..., None] * votes).sum(1))
            logits = logits + (votes * v[:, None]).sum(-1)
        lengths: Tensor = v.norm(dim=-1)
        return lengths

    return Net(
        forward, first=conv(1, 16), primary=conv(16, 16, 3, stride=2), w=weight(128, 5, 8, 6)
    ), (image(1, 16))


def _detr(self: Net, x: Tensor) -> dict[str, Tensor]:
    f = self.back(x)
    h, w = f.shape[-2:]
    position = (
        torch.cat(
            [
                self.column[:w].unsqueeze(0).repeat(h, 1, 1),
                self.row[:h].unsqueeze(1).repeat(1, w, 1),
            ],
            dim=-1,
        )
        .flatten(0, 1)
        .unsqueeze(0)
    )
    memory = self.proj(f).flatten(2).transpose(1, 2) + position
    y = self.t(memory, self.queries.unsqueeze(0).repeat(x.shape[0], 1, 1))
    return {"logits": self.classes(y), "boxes": self.boxes(y).sigmoid()}


def detr() -> tuple[nn.Module, Any]:
    return Net(
        _detr,
        back=nn.Sequential(block(3, 16, stride=4), block(16, 32, stride=2)),
        proj=conv(32, 24, 1),
        row=weight(10, 12),
        column=weight(10, 12),
        queries=weight(6, 24),
        t=nn.Transformer(24, 4, 1, 1, 40, batch_first=True),
        classes=nn.Linear(24, 5),
        boxes=nn.Sequential(nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 4)),
    ), image()


def keypoints() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        heat = self.heat(self.up(self.back(x)))
        b, k, h, w = heat.shape
        p = heat.view(b, k, -1).softmax(-1).view(b, k, h, w)
        across = (p.sum(2) * torch.linspace(-1, 1, w)).sum(-1)
        down = (p.sum(3) * torch.linspace(-1, 1, h)).sum(-1)
        return torch.stack([across, down], -1)

    return Net(
        forward,
        back=nn.Sequential(block(3, 16, stride=2), block(16, 24, stride=2)),
        up=nn.ConvTranspose2d(24, 16, 4, 2, 1),
        heat=conv(16, 7, 1),
    ), image()


def _window(self: Net, x: Tensor) -> Tensor:
    b, c, h, w = x.shape
    p = x.reshape(b, c, h // 8, 8, w // 8, 8).permute(0, 2, 4, 3, 5, 1).reshape(b, 16, 192)
    y = self.embed(p)
    y = torch.cat([self.token.repeat(b, 1, 1), y], dim=1) + self.positions
    qkv = self.qkv(self.norm(y)).view(b, 17, 3, 4, 6).permute(2, 0, 3, 1, 4)
    z = F.scaled_dot_product_attention(qkv[0], qkv[1], qkv[2])
    y = y + self.gamma * self.o(z.permute(0, 2, 1, 3).reshape(b, 17, 24))
    return self.head(self.final(y)[:, 0])


def patch_transformer() -> tuple[nn.Module, Any]:
    return Net(
        _window,
        embed=nn.Linear(192, 24),
        token=weight(1, 1, 24),
        positions=weight(1, 17, 24),
        norm=nn.LayerNorm(24),
        qkv=nn.Linear(24, 72),
        gamma=weight(24),
        o=nn.Linear(24, 24),
        final=nn.LayerNorm(24),
        head=nn.Linear(24, 10),
    ), image()


def metric_learning() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        e = F.normalize(self.embed(x), dim=-1)
        cosine = F.linear(e, F.normalize(self.centres))
        return (
            cosine * self.scale.exp(),
            torch.cdist(e, self.anchors),
            F.cosine_similarity(e[:, None], self.anchors[None], dim=-1),
        )

    return Net(
        forward,
        embed=nn.Sequential(nn.Linear(12, 32), nn.ReLU(), nn.Linear(32, 16)),
        centres=weight(5, 16),
        anchors=weight(4, 16),
        scale=weight(1),
    ), torch.randn(2, 12)


def quantized_codes() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        z = self.encode(x).permute(0, 2, 3, 1)
        flat = z.reshape(-1, 12)
        far = (
            flat.pow(2).sum(1, keepdim=True) - 2 * flat @ self.codes.t() + self.codes.pow(2).sum(1)
        )
        near = self.codes[far.argmin(1)].view(z.shape)
        return self.decode((z + (near - z).detach()).permute(0, 3, 1, 2))

    decode = nn.Sequential(nn.ConvTranspose2d(12, 16, 2, 2), nn.ReLU(), conv(16, 3))
    return Net(
        forward,
        encode=nn.Sequential(block(3, 16, stride=2), conv(16, 12, 1)),
        codes=weight(20, 12),
        decode=decode,
    ), image()


def diffusion() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor, t: Tensor) -> Tensor:
        angle = t[:, None].float() * self.bands[None]
        e = self.time(torch.cat([angle.sin(), angle.cos()], -1))
        h = self.c1(F.silu(self.n1(self.first(x)))) + self.e1(F.silu(e))[:, :, None, None]
        b, c, hh, w = h.shape
        q, k, v = self.qkv(self.n2(h)).reshape(b, 3, c, hh * w).unbind(1)
        scores = torch.einsum("bci,bcj->bij", q, k) * c**-0.5
        h = h + torch.einsum("bij,bcj->bci", scores.softmax(-1), v).reshape(b, c, hh, w)
        return self.last(torch.cat([h, self.first(x)], 1))

    return Net(
        forward,
        bands=torch.exp(-torch.arange(4.0)),
        time=nn.Linear(8, 20),
        first=conv(3, 16),
        n1=nn.GroupNorm(4, 16),
        c1=conv(16, 24),
        e1=nn.Linear(20, 24),
        n2=nn.GroupNorm(4, 24),
        qkv=conv(24, 72, 1),
        last=conv(40, 3),
    ), (image(3, 16), torch.randint(100, (2,)))


def forecaster() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        trend = F.avg_pool1d(F.pad(x.transpose(1, 2), (2, 2), mode="replicate"), 5, 1)
        season = x.transpose(1, 2) - trend
        mean, std = x.mean(1, keepdim=True), x.std(1, keepdim=True) + 1e-5
        backcast = ((x - mean) / std)[..., 0]
        total: Tensor | float = 0.0
        for one in self.blocks:
            theta = one(backcast)
            backcast, total = backcast - theta[:, :20], total + theta[:, 20:]
        assert isinstance(total, Tensor)  # there are blocks
        return (self.trend(trend) + self.season(season)).transpose(1, 2) + total[..., None]

    def one() -> nn.Module:
        return nn.Sequential(
            nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 24)
        )

    return Net(
        forward,
        trend=nn.Linear(20, 4),
        season=nn.Linear(20, 4),
        blocks=nn.ModuleList([one(), one()]),
    ), torch.randn(2, 20, 3)


def normalizing_flow() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> tuple[Tensor, Tensor]:
        log = torch.zeros(x.shape[0])
        for one in self.layers:
            a, b = x.chunk(2, -1)
            s, t = one(a).chunk(2, -1)
            x = torch.cat([b * torch.exp(torch.tanh(s)) + t, a], -1)
            log = log + torch.tanh(s).sum(-1)
        return x, log

    layers = nn.ModuleList(
        nn.Sequential(nn.Linear(4, 24), nn.ReLU(), nn.Linear(24, 8)) for _ in range(3)
    )
    return Net(forward, layers=layers), torch.randn(2, 8)


def dueling() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.body(x / 255.0)
        value, advantage = self.value(x), self.advantage(x)
        q = value + advantage - advantage.mean(1, keepdim=True)
        atoms = self.atoms(x).view(-1, 4, 11).softmax(-1)
        return q + (atoms * self.support).sum(-1)

    body = nn.Sequential(
        nn.Conv2d(4, 16, 8, 4),
        nn.ReLU(),
        nn.Conv2d(16, 24, 4, 2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(216, 32),
        nn.ReLU(),
    )
    return Net(
        forward,
        body=body,
        value=nn.Linear(32, 1),
        advantage=nn.Linear(32, 4),
        atoms=nn.Linear(32, 44),
        support=torch.linspace(-1, 1, 11),
    ), image(4, 36)


def bilinear_fusion() -> tuple[nn.Module, Any]:
    def forward(self: Net, a: Tensor, b: Tensor) -> Tensor:
        x, y = self.a(a).relu(), self.b(b).relu()
        outer = torch.einsum("bi,bj->bij", x, y).flatten(1)
        low = (self.p(x) * self.q(y)).view(-1, 6, 4).sum(2)
        low = torch.sign(low) * torch.sqrt(low.abs() + 1e-6)
        return self.head(torch.cat([outer, F.normalize(low), self.form(x, y)], 1))

    return Net(
        forward,
        a=nn.Linear(10, 8),
        b=nn.Linear(12, 6),
        p=nn.Linear(8, 24),
        q=nn.Linear(6, 24),
        form=nn.Bilinear(8, 6, 5),
        head=nn.Linear(59, 3),
    ), (torch.randn(2, 10), torch.randn(2, 12))


OTHER: dict[str, Kind] = {
    one.__name__: one
    for one in (
        dlrm,
        wide_and_deep,
        graph,
        graph_attention,
        messages,
        edge_list,
        points,
        experts,
        packed_experts,
        splines,
        hypernetwork,
        dynamic_convolution,
        nerf,
        fourier,
        spectral_operator,
        tabnet,
        capsules,
        detr,
        keypoints,
        patch_transformer,
        metric_learning,
        quantized_codes,
        diffusion,
        forecaster,
        normalizing_flow,
        dueling,
        bilinear_fusion,
    )
}

KINDS: dict[str, Kind] = {**VISION, **SEQUENCE, **OTHER}
