"""Methods: what the advice tries of each family, as recipes."""

from __future__ import annotations

from dataclasses import dataclass

from penjing.network import Network
from penjing.network.analysis.blocks import find_blocks
from penjing.passes import (
    Compensate,
    Drop,
    Factorize,
    Gptq,
    Pass,
    PruneChannels,
    Quantize,
    Share,
    Sparsify,
)
from penjing.passes.structure.channels.budget import Budget

INTEGERS = "8-bit integers"
SAMPLES = 256
"""Training samples for least squares and for ranks."""
VALUES = 16
"""Distinct values of a layer whose weights are shared."""


@dataclass(frozen=True)
class Method:
    """A method at one strength.

    Attributes:
        family: the kind of method, as users look for it.
        title: what is done.
        passes: the recipe, without the rounding that comes last.
        rounded: whether the rounding of the fastest uncut file follows.
        in_first: whether the file is for the target's first runtime, and not the fastest.
        trains: whether such a network is trained afterwards.
        impossible: why it can't be tried; empty if it can.
    """

    family: str
    title: str
    passes: tuple[Pass, ...] = ()
    rounded: bool = True
    in_first: bool = False
    trains: bool = True
    impossible: str = ""


def methods(network: Network, multiple: int) -> list[Method]:
    """What to try beside integers, the most promising for speed first.

    >>> import penjing, torch
    >>> network = penjing.capture(torch.nn.Linear(8, 4), torch.zeros(2, 8))
    >>> [method.family for method in methods(network, 4)][:2]
    ['blocks removed', 'channels removed']
    """
    return [
        *_blocks(network),
        *(_channels(share, multiple) for share in (0.25, 0.5)),
        Method("low rank", "factors of 0.6 of the MACs", _factors()),
        Method("sparse weights", "half of the weights zero", (_zeros(), _solve())),
        Method(
            "shared weights", f"{VALUES} values a layer", (Share(VALUES),), False, in_first=True,
            trains=False,
        ),
        Method("fewer bits", "4-bit weights", _four_bits(), rounded=False, trains=False),
    ]  # fmt: skip


def _blocks(network: Network) -> list[Method]:
    """A quarter of the blocks."""
    family = "blocks removed"
    count = sum(block.alike for block in find_blocks(network))
    if count < 2:
        why = "the network has no two blocks whose input and output have one shape"
        return [Method(family, "a quarter of the blocks gone", impossible=why)]
    blocks = max(1, round(count / 4))
    title = f"{blocks} of {count} blocks gone"
    cut = Drop(blocks=blocks, importance="cosine", samples=SAMPLES)
    return [Method(family, title, (cut, _solve()))]


def _channels(share: float, multiple: int) -> Method:
    title = f"{share:.0%} of the channels gone".replace("%", " %")
    cut = PruneChannels(share, importance="l1+l2", multiple=multiple, skip_mixed=True)
    return Method("channels removed", title, (cut, _solve()))


def _factors() -> tuple[Pass, ...]:
    return (Factorize(budget=Budget("macs", 0.6), samples=SAMPLES),)


def _four_bits() -> tuple[Pass, ...]:
    return (Quantize(weights=4), Gptq(samples=SAMPLES))


def _zeros() -> Sparsify:
    return Sparsify(0.5, criterion="l1", steps=1)


def _solve() -> Compensate:
    return Compensate(samples=SAMPLES)
