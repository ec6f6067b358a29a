"""Passes: each method of compression a file."""

from penjing.passes.compensate import Compensate
from penjing.passes.contract import Pass
from penjing.passes.merge import Merge
from penjing.passes.mixed_precision import MixedPrecision
from penjing.passes.prune import PruneChannels
from penjing.passes.quantize import Quantize
from penjing.passes.reconstruct import Reconstruct
from penjing.passes.tune import Tune

PASSES: dict[str, type[Pass]] = {
    "Compensate": Compensate,
    "Merge": Merge,
    "MixedPrecision": MixedPrecision,
    "PruneChannels": PruneChannels,
    "Quantize": Quantize,
    "Reconstruct": Reconstruct,
    "Tune": Tune,
}
"""Name to pass."""

__all__ = [
    "PASSES",
    "Compensate",
    "Merge",
    "MixedPrecision",
    "Pass",
    "PruneChannels",
    "Quantize",
    "Reconstruct",
    "Tune",
]
