"""Small networks of many kinds that read words, tokens and series."""

from __future__ import annotations

import math
from typing import Any

import torch
from kinds_vision import Kind, Net, weight
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, HEADS, LENGTH = 24, 4, 10


def tokens(width: int = WIDTH, length: int = LENGTH) -> Tensor:
    return torch.randn(2, length, width)


def words(vocabulary: int = 50, length: int = LENGTH) -> Tensor:
    return torch.randint(vocabulary, (2, length))


def heads(x: Tensor, count: int = HEADS) -> Tensor:
    return x.view(x.shape[0], x.shape[1], count, -1).transpose(1, 2)


def joined(x: Tensor) -> Tensor:
    return x.transpose(1, 2).flatten(2)


def projections(width: int = WIDTH, **others: int) -> dict[str, nn.Module]:
    return {name: nn.Linear(width, others.get(name, width)) for name in ("q", "k", "v", "o")}


def _lstm(self: Net, x: Tensor) -> Tensor:
    y, (h, c) = self.rnn(self.table(x))
    return self.head(torch.cat([y[:, -1], h[-1], c[-1]], 1))


def lstm() -> tuple[nn.Module, Any]:
    return Net(
        _lstm,
        table=nn.Embedding(50, 12),
        rnn=nn.LSTM(12, 16, 2, batch_first=True),
        head=nn.Linear(48, 4),
    ), words()


def _bilstm(self: Net, x: Tensor) -> Tensor:
    y, h = self.rnn(x.transpose(0, 1))[0], self.start(x[:, 0])
    y = self.second(y, torch.stack([h, h]))[0]
    scores = self.score(y).softmax(0)
    return self.head((y * scores).sum(0))


def bilstm_attention() -> tuple[nn.Module, Any]:
    return Net(
        _bilstm,
        rnn=nn.LSTM(12, 10, bidirectional=True),
        start=nn.Linear(12, 14),
        second=nn.GRU(20, 14, bidirectional=True),
        score=nn.Linear(28, 1),
        head=nn.Linear(28, 4),
    ), tokens(12)


def _seq2seq(self: Net, source: Tensor, target: Tensor) -> Tensor:
    memory, state = self.encoder(self.table(source))
    y, _ = self.decoder(self.table(target), state)
    scores = torch.bmm(y, self.key(memory).transpose(1, 2)).softmax(-1)
    return self.head(torch.tanh(self.mix(torch.cat([y, torch.bmm(scores, memory)], -1))))


def seq2seq() -> tuple[nn.Module, Any]:
    return Net(
        _seq2seq,
        table=nn.Embedding(50, 12),
        encoder=nn.GRU(12, 16, 2, batch_first=True),
        decoder=nn.GRU(12, 16, 2, batch_first=True),
        key=nn.Linear(16, 16),
        mix=nn.Linear(32, 20),
        head=nn.Linear(20, 50),
    ), (words(), words(50, 7))


def _unrolled(self: Net, x: Tensor) -> Tensor:
    h = torch.zeros(x.shape[0], 16)
    c = torch.zeros(x.shape[0], 16)
    for step in range(4):
        h, c = self.cell(x[:, step], (h, c))
    return self.head(self.gru(h, c))


def cells() -> tuple[nn.Module, Any]:
    return Net(
        _unrolled, cell=nn.LSTMCell(12, 16), gru=nn.GRUCell(16, 16), head=nn.Linear(16, 4)
    ), tokens(12)


def _text_cnn(self: Net, x: Tensor) -> Tensor:
    e = self.table(x).transpose(1, 2)
    found = [one(e).relu() for one in self.convs]
    found = [F.max_pool1d(one, one.shape[2]).squeeze(2) for one in found]
    return self.head(torch.cat(found, 1))


def text_cnn() -> tuple[nn.Module, Any]:
    convs = nn.ModuleList(nn.Conv1d(12, 8, k) for k in (2, 3, 4))
    return Net(_text_cnn, table=nn.Embedding(50, 12), convs=convs, head=nn.Linear(24, 4)), words()


def encoder() -> tuple[nn.Module, Any]:
    layer = nn.TransformerEncoderLayer(WIDTH, HEADS, 40, batch_first=True)
    return Net(
        lambda self, x: self.head(self.layers(self.table(x) + self.positions).mean(1)),
        table=nn.Embedding(50, WIDTH),
        positions=weight(LENGTH, WIDTH),
        layers=nn.TransformerEncoder(layer, 2),
        head=nn.Linear(WIDTH, 4),
    ), words()


def decoder() -> tuple[nn.Module, Any]:
    layer = nn.TransformerDecoderLayer(WIDTH, HEADS, 40, norm_first=True, activation="gelu")
    mask = torch.full((7, 7), -math.inf).triu(1)

    def forward(self: Net, memory: Tensor, x: Tensor) -> Tensor:
        y = self.layers(
            self.table(x).transpose(0, 1), memory.transpose(0, 1), self.mask, tgt_is_causal=True
        )
        return self.head(y).transpose(0, 1)

    return Net(
        forward,
        table=nn.Embedding(50, WIDTH),
        layers=nn.TransformerDecoder(layer, 2),
        mask=mask,
        head=nn.Linear(WIDTH, 50),
    ), (tokens(), words(50, 7))


def transformer() -> tuple[nn.Module, Any]:
    def forward(self: Net, a: Tensor, b: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(b.shape[1])
        y = self.t(self.table(a), self.table(b), tgt_mask=mask, tgt_is_causal=True)
        return self.head(y)

    return Net(
        forward,
        table=nn.Embedding(50, WIDTH),
        t=nn.Transformer(WIDTH, HEADS, 1, 1, 40, batch_first=True),
        head=nn.Linear(WIDTH, 50),
    ), (words(), words(50, 7))


def attention_weights() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        padding = x[..., 0] > 5
        z, scores = self.a(self.up(y), x, x, key_padding_mask=padding)
        return self.head(z), scores

    attention = nn.MultiheadAttention(
        WIDTH, HEADS, kdim=20, vdim=20, batch_first=True, add_bias_kv=True
    )
    return Net(forward, up=nn.Linear(12, WIDTH), a=attention, head=nn.Linear(WIDTH, 4)), (
        tokens(20),
        tokens(12, 5),
    )


class Block(nn.Module):
    """A pre-norm block of GPT, its mask and head count written in the code."""

    mask: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.qkv, self.o = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.register_buffer("mask", torch.tril(torch.ones(LENGTH, LENGTH))[None, None])

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.size()
        q, k, v = self.qkv(self.n1(x)).split(WIDTH, dim=2)
        q, k, v = (one.view(b, t, HEADS, c // HEADS).transpose(1, 2) for one in (q, k, v))
        scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(k.size(-1)))
        scores = scores.masked_fill(self.mask[:, :, :t, :t] == 0, float("-inf"))
        y = (F.softmax(scores, dim=-1) @ v).transpose(1, 2).contiguous().view(b, t, c)
        x = x + self.o(y)
        found: Tensor = x + self.down(F.gelu(self.up(self.n2(x)), approximate="tanh"))
        return found


def gpt() -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        position = torch.arange(x.shape[1])
        y = self.blocks(self.table(x) + self.positions(position))
        return self.head(self.norm(y))

    model = Net(
        forward,
        table=nn.Embedding(50, WIDTH),
        positions=nn.Embedding(16, WIDTH),
        blocks=nn.Sequential(Block(), Block()),
        norm=nn.LayerNorm(WIDTH),
        head=nn.Linear(WIDTH, 50, bias=False),
    )
    model.head.weight = model.table.weight
    return model, words()


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    a, b = x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]
    return x * cos + torch.cat((-b, a), dim=-1) * sin


def _make_llama(by_hand: bool) -> tuple[nn.Module, Any]:
    def forward(self: Net, x: Tensor) -> Tensor:
        x = self.table(x)
        y = self.n1(x)
        angle = torch.outer(torch.arange(x.shape[1]).float(), self.frequencies)
        cos, sin = torch.cat([angle, angle], -1).cos(), torch.cat([angle, angle], -1).sin()
        q, k, v = heads(self.q(y)), heads(self.k(y), 2), heads(self.v(y), 2)
        q, k = _rotate(q, cos, sin), _rotate(k, cos, sin)
        if by_hand:
            k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        x = x + self.o(joined(y))
        y = self.n2(x)
        return self.head(x + self.down(F.silu(self.gate(y)) * self.up(y)))

    return Net(
        forward,
        table=nn.Embedding(50, WIDTH),
        n1=nn.RMSNorm(WIDTH),
        n2=nn.RMSNorm(WIDTH),
        **projections(k=12, v=12),
        gate=nn.Linear(WIDTH, 40),
        up=nn.Linear(WIDTH, 40),
        down=nn.Linear(40, WIDTH),
        head=nn.Linear(WIDTH, 50),
        frequencies=1 / 100 ** (torch.arange(3) / 3),
    ), words()


def llama() -> tuple[nn.Module, Any]:
    return _make_llama(True)


def grouped_queries() -> tuple[nn.Module, Any]:
    return _make_llama(False)


def _expanded_keys(self: Net, x: Tensor) -> Tensor:
    q, k, v = heads(self.q(x)), heads(self.k(x), 2), heads(self.v(x), 2)
    b, n, t, d = k.shape
    k, v = (one[:, :, None].expand(b, n, 2, t, d).reshape(b, n * 2, t, d) for one in (k, v))
    return self.head(self.o(joined(F.scaled_dot_product_attention(q, k, v))))


def repeated_keys() -> tuple[nn.Module, Any]:
    return Net(_expanded_keys, **projections(k=12, v=12), head=nn.Linear(WIDTH, 4)), tokens()


def _alibi(self: Net, x: Tensor) -> Tensor:
    t = torch.arange(x.shape[1])
    bias = (t[None] - t[:, None]).abs()[None] * self.slopes[:, None, None]
    index = (t[None] - t[:, None]) + LENGTH - 1
    table = self.relative(index).permute(2, 0, 1)
    scores = heads(self.q(x)) @ heads(self.k(x)).transpose(-1, -2) / 6**0.5 + bias + table
    return self.head(self.o(joined(scores.softmax(-1) @ heads(self.v(x)))).mean(1))


def position_biases() -> tuple[nn.Module, Any]:
    return Net(
        _alibi,
        **projections(),
        slopes=2.0 ** -torch.arange(1, 5),
        relative=nn.Embedding(2 * LENGTH, HEADS),
        head=nn.Linear(WIDTH, 4),
    ), tokens()


def _bert(self: Net, x: Tensor, mask: Tensor) -> Tensor:
    y = self.n0(self.table(x) + self.positions.weight[: x.shape[1]] + self.kinds.weight[0])
    wall = (1.0 - mask[:, None, None].float()) * -1e4
    q, k, v = heads(self.q(y)), heads(self.k(y)), heads(self.v(y))
    scores = (q @ k.transpose(-1, -2) / math.sqrt(6) + wall).softmax(-1)
    z = (scores @ v).permute(0, 2, 1, 3).contiguous()
    y = self.n1(y + self.o(z.view(z.shape[0], LENGTH, WIDTH)))
    y = self.n2(y + self.down(F.gelu(self.up(y))))
    return self.head(torch.tanh(self.pool(y[:, 0])))


def bert() -> tuple[nn.Module, Any]:
    norms = {name: nn.LayerNorm(WIDTH) for name in ("n0", "n1", "n2")}
    return Net(
        _bert,
        **projections(),
        **norms,
        table=nn.Embedding(50, WIDTH, padding_idx=0),
        positions=nn.Embedding(16, WIDTH),
        kinds=nn.Embedding(2, WIDTH),
        up=nn.Linear(WIDTH, 40),
        down=nn.Linear(40, WIDTH),
        pool=nn.Linear(WIDTH, WIDTH),
        head=nn.Linear(WIDTH, 3),
    ), {"x": words(), "mask": torch.randint(2, (2, LENGTH))}


def _perceiver(self: Net, x: Tensor) -> Tensor:
    latent = self.latents.unsqueeze(0).repeat(x.shape[0], 1, 1)
    for _ in range(2):  # the same weights, twice
        latent = latent + self.cross(self.nq(latent), self.nk(x), self.nk(x))[0]
        latent = latent + self.mlp(self.nm(latent))
    return self.head(latent.mean(1))


def perceiver() -> tuple[nn.Module, Any]:
    cross = nn.MultiheadAttention(WIDTH, HEADS, kdim=16, vdim=16, batch_first=True)
    mlp = nn.Sequential(nn.Linear(WIDTH, 48), nn.GLU(), nn.Linear(24, WIDTH))
    return Net(
        _perceiver,
        latents=weight(6, WIDTH),
        cross=cross,
        mlp=mlp,
        nq=nn.LayerNorm(WIDTH),
        nk=nn.LayerNorm(16),
        nm=nn.LayerNorm(WIDTH),
        head=nn.Linear(WIDTH, 4),
    ), tokens(16)


def _mixer(self: Net, x: Tensor) -> Tensor:
    x = self.patch(x).flatten(2).transpose(1, 2)
    x = x + self.t2(F.gelu(self.t1(self.n1(x).transpose(1, 2)))).transpose(1, 2)
    return self.head((x + self.c2(F.gelu(self.c1(self.n2(x))))).mean(1))


def mixer() -> tuple[nn.Module, Any]:
    return Net(
        _mixer,
        patch=nn.Conv2d(3, WIDTH, 8, 8),
        n1=nn.LayerNorm(WIDTH),
        t1=nn.Linear(16, 20),
        t2=nn.Linear(20, 16),
        n2=nn.LayerNorm(WIDTH),
        c1=nn.Linear(WIDTH, 40),
        c2=nn.Linear(40, WIDTH),
        head=nn.Linear(WIDTH, 4),
    ), torch.randn(2, 3, 32, 32)


def _gmlp(self: Net, x: Tensor) -> Tensor:
    u, v = F.gelu(self.up(self.n1(x))).chunk(2, dim=-1)
    v = F.conv1d(self.n2(v), self.space, self.bias)
    return self.head((x + self.down(u * v)).mean(1))


def gmlp() -> tuple[nn.Module, Any]:
    return Net(
        _gmlp,
        n1=nn.LayerNorm(WIDTH),
        up=nn.Linear(WIDTH, 40),
        n2=nn.LayerNorm(20),
        space=weight(LENGTH, LENGTH, 1),
        bias=weight(LENGTH),
        down=nn.Linear(20, WIDTH),
        head=nn.Linear(WIDTH, 4),
    ), tokens()


def _scan(self: Net, x: Tensor) -> Tensor:
    u, f, r = torch.split(self.w(x), 16, -1)
    f, r = f.sigmoid(), r.sigmoid()
    state, found = x.new_zeros(x.shape[0], 16), []
    for step in range(x.shape[1]):
        state = f[:, step] * state + (1 - f[:, step]) * u[:, step]
        found.append(r[:, step] * torch.tanh(state))
    return self.head(torch.stack(found, 1).amax(1))


def recurrence_unrolled() -> tuple[nn.Module, Any]:
    return Net(_scan, w=nn.Linear(12, 48), head=nn.Linear(16, 4)), tokens(12)


def _state_space(self: Net, x: Tensor) -> Tensor:
    x, z = self.up(x).chunk(2, -1)
    x = F.silu(self.conv(x.transpose(1, 2))[..., :LENGTH]).transpose(1, 2)
    delta, b, c = torch.split(self.p(x), [4, 6, 6], -1)
    delta = F.softplus(self.dt(delta))
    a = torch.exp(delta[..., None] * -torch.exp(self.a))
    state = torch.zeros(x.shape[0], 32, 6)
    found = []
    for t in range(LENGTH):
        state = a[:, t] * state + delta[:, t, :, None] * b[:, t, None] * x[:, t, :, None]
        found.append((state * c[:, t, None]).sum(-1))
    y = torch.stack(found, 1) + x * self.d
    return self.head(self.down(y * F.silu(z)).mean(1))


def state_space() -> tuple[nn.Module, Any]:
    return Net(
        _state_space,
        up=nn.Linear(12, 64),
        conv=nn.Conv1d(32, 32, 4, padding=3, groups=32),
        p=nn.Linear(32, 16),
        dt=nn.Linear(4, 32),
        a=weight(32, 6),
        d=weight(32),
        down=nn.Linear(32, 12),
        head=nn.Linear(12, 4),
    ), tokens(12)


def _by_einsum(self: Net, x: Tensor) -> Tensor:
    q, k, v = (torch.einsum("btc,chd->bthd", x, w) for w in (self.wq, self.wk, self.wv))
    scores = torch.einsum("bthd,bshd->bhts", q, k).softmax(-1)
    y = torch.einsum("bhts,bshd->bthd", scores, v)
    return self.head(torch.einsum("bthd,hdc->btc", y, self.wo).mean(1))


def einsum_attention() -> tuple[nn.Module, Any]:
    return Net(
        _by_einsum,
        wq=weight(12, 4, 6),
        wk=weight(12, 4, 6),
        wv=weight(12, 4, 6),
        wo=weight(4, 6, 20),
        head=nn.Linear(20, 4),
    ), tokens(12)


SEQUENCE: dict[str, Kind] = {
    one.__name__: one
    for one in (
        lstm,
        bilstm_attention,
        seq2seq,
        cells,
        text_cnn,
        encoder,
        decoder,
        transformer,
        attention_weights,
        gpt,
        llama,
        grouped_queries,
        repeated_keys,
        position_biases,
        bert,
        perceiver,
        mixer,
        gmlp,
        recurrence_unrolled,
        state_space,
        einsum_attention,
    )
}
