"""Passes: each method of compression a file."""

from penjing.passes.contract import Pass
from penjing.passes.rounding.binarize import Binarize
from penjing.passes.rounding.correct_bias import CorrectBias
from penjing.passes.rounding.equalize import Equalize
from penjing.passes.rounding.gptq import Gptq
from penjing.passes.rounding.mixed_precision import MixedPrecision
from penjing.passes.rounding.quantize import Quantize
from penjing.passes.rounding.reconstruct import Reconstruct
from penjing.passes.rounding.share import Share
from penjing.passes.rounding.ternarize import Ternarize
from penjing.passes.structure.compensate import Compensate
from penjing.passes.structure.drop import Drop
from penjing.passes.structure.factorize import Factorize
from penjing.passes.structure.fuse import Fuse
from penjing.passes.structure.merge import Merge
from penjing.passes.structure.prune import PruneChannels
from penjing.passes.structure.sparsify import Sparsify
from penjing.passes.training.tune import Tune
from penjing.tune.options import TuneOptions

PASSES: dict[str, type[Pass]] = {
    "Binarize": Binarize,
    "Compensate": Compensate,
    "CorrectBias": CorrectBias,
    "Drop": Drop,
    "Equalize": Equalize,
    "Factorize": Factorize,
    "Fuse": Fuse,
    "Gptq": Gptq,
    "Merge": Merge,
    "MixedPrecision": MixedPrecision,
    "PruneChannels": PruneChannels,
    "Quantize": Quantize,
    "Reconstruct": Reconstruct,
    "Share": Share,
    "Sparsify": Sparsify,
    "Ternarize": Ternarize,
    "Tune": Tune,
}
"""Name to pass."""

__all__ = [
    "PASSES",
    "Binarize",
    "Compensate",
    "CorrectBias",
    "Drop",
    "Equalize",
    "Factorize",
    "Fuse",
    "Gptq",
    "Merge",
    "MixedPrecision",
    "Pass",
    "PruneChannels",
    "Quantize",
    "Reconstruct",
    "Share",
    "Sparsify",
    "Ternarize",
    "Tune",
    "TuneOptions",
]
