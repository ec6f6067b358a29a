"""Schemes: the ways to quantize that a search tries, by name, and how each can be changed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

from penjing.passes import Equalize, Gptq, MixedPrecision, Pass, Quantize, Tune

Passes = tuple[Pass, ...]

INT8 = "int8"
"""The name of the first scheme. Pruned networks are called so with any scheme of eight bits."""
SCHEMES: dict[str, Passes] = {
    INT8: (Quantize(),),
    "int8 by percentile": (Quantize(ranges="percentile"),),
    "int8 equalized": (Equalize(), Quantize()),
}
"""Without training. They are tried in this order until one keeps the budget. The last pass of each
is a `Quantize`, or refines one."""

ALONE = "int8 weights"
WEIGHTS_ALONE: Passes = (Quantize(activations=None),)
"""For a small file whose values stay in float: of a network with recurrent layers, whose values
come around, or of one that can't stand their rounding."""

INT4 = "int4 weights"
MIXED = MixedPrecision(uniform=4, loss="squares")
"""How widths are found by layer; `uniform` is what is looked for."""
FEWER_BITS: dict[str, Passes] = {
    INT4: (Quantize(weights=4), Gptq()),
    **{
        f"weights of {quarters / 4:g} bits": (replace(MIXED, uniform=quarters / 4), Gptq())
        for quarters in range(9, 32)
    },
}
"""For small files, once eight bits keep the budget: four bits in all layers, and widths by layer
that take as many bytes as so many bits in all layers would. Activations keep eight bits, so
runtimes still compute with the same integers, just as fast."""


def label_of(scheme: str) -> str:
    """What a scheme is called in the title of a pruned network."""
    return scheme if scheme in FEWER_BITS or scheme == ALONE else INT8


def in_float(recipe: Passes, layers: Sequence[str]) -> Passes:
    """The recipe, changed so that these layers stay in float."""

    def changed(step: Pass) -> Pass:
        if isinstance(step, Quantize):
            return replace(step, layers={**step.layers, **dict.fromkeys(layers, 0)})
        if isinstance(step, MixedPrecision):
            return replace(step, skip=(*step.skip, *layers))
        return step

    return tuple(map(changed, recipe))


def in_int16(recipe: Passes, layers: Sequence[str]) -> Passes:
    """The recipe, changed so that the results of these layers get 16 bits."""
    return tuple(
        replace(step, int16=(*step.int16, *layers)) if isinstance(step, Quantize) else step
        for step in recipe
    )


def again(passes: Passes) -> str:
    """How often a network was tuned since it was last cut, for the title of its file; empty if
    once.

    >>> again((Tune(), Tune())), again((Tune(), Equalize(), Tune()))
    (' tuned twice', '')
    """
    last = list(itertools.takewhile(lambda step: isinstance(step, Tune), reversed(passes)))
    times = {1: "", 2: " tuned twice"}
    return times.get(len(last), f" tuned {len(last)} times")
