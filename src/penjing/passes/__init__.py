"""Passes: each method of compression a file."""

from penjing.passes.binarize import Binarize
from penjing.passes.compensate import Compensate
from penjing.passes.contract import Pass
from penjing.passes.correct_bias import CorrectBias
from penjing.passes.equalize import Equalize
from penjing.passes.gptq import Gptq
from penjing.passes.merge import Merge
from penjing.passes.mixed_precision import MixedPrecision
from penjing.passes.prune import PruneChannels
from penjing.passes.quantize import Quantize
from penjing.passes.reconstruct import Reconstruct
from penjing.passes.ternarize import Ternarize
from penjing.passes.tune import Tune

PASSES: dict[str, type[Pass]] = {
    "Binarize": Binarize,
    "Compensate": Compensate,
    "CorrectBias": CorrectBias,
    "Equalize": Equalize,
    "Gptq": Gptq,
    "Merge": Merge,
    "MixedPrecision": MixedPrecision,
    "PruneChannels": PruneChannels,
    "Quantize": Quantize,
    "Reconstruct": Reconstruct,
    "Ternarize": Ternarize,
    "Tune": Tune,
}
"""Name to pass."""

__all__ = [
    "PASSES",
    "Binarize",
    "Compensate",
    "CorrectBias",
    "Equalize",
    "Gptq",
    "Merge",
    "MixedPrecision",
    "Pass",
    "PruneChannels",
    "Quantize",
    "Reconstruct",
    "Ternarize",
    "Tune",
]
