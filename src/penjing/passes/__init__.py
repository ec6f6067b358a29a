"""The passes: one method of compression a file."""

from penjing.passes.compensate import Compensate
from penjing.passes.contract import Pass
from penjing.passes.int8 import Int8
from penjing.passes.merge import Merge
from penjing.passes.prune import PruneChannels
from penjing.passes.tune import Tune

PASSES: dict[str, type[Pass]] = {
    "Compensate": Compensate,
    "Int8": Int8,
    "Merge": Merge,
    "PruneChannels": PruneChannels,
    "Tune": Tune,
}
"""Name to pass."""

__all__ = ["PASSES", "Compensate", "Int8", "Merge", "Pass", "PruneChannels", "Tune"]
