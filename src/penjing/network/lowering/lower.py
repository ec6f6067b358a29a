"""Lowering: a network as a runtime's converter takes it, on one way down."""

from __future__ import annotations

import copy

from penjing.network.edits.fold import pool_means
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.lowering.as_convolutions import write_as_convolutions
from penjing.network.lowering.choices import round_choices
from penjing.network.lowering.complex import without_complex
from penjing.network.lowering.form import Form
from penjing.network.lowering.integers import with_integers
from penjing.network.lowering.plain import write_plainly


def lowered(network: Network, form: Form) -> Network:
    """The network in real numbers and integers, without what converters don't take.

    Real numbers take the place of complex ones, pools and convolutions that of the operators that
    the form names, and integers that of whatever is rounded. The network itself may come back.

    Raises:
        InputError: an operator of complex numbers that can't be written in reals, or a choice that
            can't be rounded; the message names it.
    """
    real = without_complex(network)
    if form.pools:
        real = copy.deepcopy(real)
        pool_means(real)
        real.compile_graph()
    if form.convolutions:
        real = write_as_convolutions(real, form.convolutions)
    integers = with_integers(real, form)
    if form.choices:
        round_choices(integers, form)
    return write_plainly(integers, shapes(integers))
