"""Int16: which networks have values of 16 bits, and who can't take them."""

from __future__ import annotations

from penjing.network.graph.network import Network
from penjing.network.graph.qparams import value_qparams


def no_int16(network: Network, runtime: str = "this runtime") -> list[str]:
    """Why a runtime that has no values of 16 bits can't take a network; empty if it has none."""
    wide = sum(qparams.is_wide for qparams in value_qparams(network))
    if not wide:
        return []
    return [
        f"{wide} values have 16 bits; {runtime} keeps values in 8: leave out int16 of Quantize, or "
        "take litert, or ethosu for an Ethos-U55 or U65"
    ]
