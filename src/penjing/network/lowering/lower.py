"""Lowering: rewrite a network so that a runtime's converter accepts it."""

from __future__ import annotations

import copy

from penjing.errors import InputError
from penjing.network.edits.fold import pool_means
from penjing.network.graph.int16 import no_int16
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import shapes
from penjing.network.lowering.as_convolutions import write_as_convolutions
from penjing.network.lowering.choices import round_choices
from penjing.network.lowering.complex import without_complex
from penjing.network.lowering.form import Form
from penjing.network.lowering.integers import with_integers
from penjing.network.lowering.plain import write_plainly
from penjing.network.lowering.readers import dequantize_for_each_reader
from penjing.network.lowering.softmax import keep_softmax_real


def lowered(network: Network, form: Form) -> Network:
    """The network, rewritten without operators that converters don't accept.

    Complex numbers become real ones, the operators that `form` names become pools and convolutions,
    and quantized values become integers. If nothing changes, the network itself is returned.

    Raises:
        InputError: an operator on complex numbers can't be rewritten, or the result of an operator
            such as `stack` can't be rounded; the message names the operator. Or values have 16
            bits, which the form can't hold.
    """
    real = without_complex(network)
    if form.pools:
        real = copy.deepcopy(real)
        pool_means(real)
        real.compile_graph()
    if form.convolutions:
        real = write_as_convolutions(real, form.convolutions)
    if not form.int16 and (why := no_int16(real)):
        raise InputError(why[0])
    integers = with_integers(real, form)
    if form.choices:
        round_choices(integers, form)
    if form.real_softmax:
        keep_softmax_real(integers)
    if form.one_reader:
        dequantize_for_each_reader(integers)
    return write_plainly(integers, shapes(integers))
