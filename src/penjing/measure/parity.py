"""Parity: how far an artifact's outputs are from the network's, and whether rounding explains it.

A file and its network add the same values in different orders before they round, so now and then a
value is rounded to the next integer. Penjing compares the network with and without quantization to
see how much such steps matter. Two networks that round independently are about sqrt(2) times as far
from each other as each is from the network without quantization. If a file is more than twice as
far away, it doesn't compute what the network computes.
"""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves

from penjing.contract import Array, Parity, Session, as_arrays
from penjing.network import Network
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.qparams import qparams_in
from penjing.tasks.targets import are_classes
from penjing.tasks.task import Batches, as_call

EXPLAINED = 2.0  # times what quantization changes
INEXACT = {"float32": 1e-3, "float16": 2e-2}
"""The difference that a float type's own inexactness explains, relative to an output's size."""
NOTHING = 1e-12  # the difference that is explained for an output that is always zero


def parity(
    network: Network,
    session: Session,
    batches: Batches,
    samples: int = 1000,
    floats: str = "float32",
) -> Parity:
    """Run both on the same samples and compare all outputs. NaN never counts as equal.

    Args:
        network: the network.
        session: the artifact.
        batches: held-out data.
        samples: stop after so many samples.
        floats: the float type of the artifact.
    """
    exact = unrounded(network) if any(True for _ in qparams_in(network)) else None
    outputs: list[_Output] = []
    seen, same, rounding_kept, decides = 0, 0, 0, True
    for inputs, targets in batches:
        wanted = _outputs(network, inputs)
        without = wanted if exact is None else _outputs(exact, inputs)
        given = [np.asarray(leaf) for leaf in tree_leaves(session.run(as_arrays(inputs)))]
        outputs = outputs or [_Output() for _ in wanted]
        for output, *three in zip(outputs, wanted, given, without, strict=True):
            output.add(*three)
        decides = decides and given[0].ndim == 2 and given[0].shape[1] > 1
        decides = decides and are_classes(targets)  # boxes and forecasts are no decisions
        if decides:
            choice = wanted[0].argmax(1)
            same += int((choice == given[0].argmax(1)).sum())
            rounding_kept += int((choice == without[0].argmax(1)).sum())
        seen += len(given[0])
        if seen >= samples:
            break
    count = max(sum(output.count for output in outputs), 1)
    return Parity(
        seen,
        max((output.worst for output in outputs), default=0.0),
        float(sum(output.total for output in outputs) / count),
        same / seen if decides else None,
        wilson(same, seen) if decides else None,
        departure=max((output.departure(INEXACT[floats]) for output in outputs), default=0.0),
        rounded_decisions=rounding_kept / seen if decides and exact is not None else None,
    )


def departs(agreement: Parity, floats: str = "float32") -> str:
    """Why rounding doesn't explain how far a file is from its network; empty if it does.

    Either an output is too far away, or significantly more decisions differ than quantization
    itself changes.
    """
    if not agreement.departure <= 1:
        return (
            f"its outputs differ from the network's by {agreement.departure:.1f} times as much as "
            f"rounding explains (by {agreement.max_difference:.3g} at most, {agreement.samples} "
            "samples)"
        )
    if agreement.same_decisions is None or floats != "float32":
        return ""
    kept = 1.0 if agreement.rounded_decisions is None else agreement.rounded_decisions
    most = 1 - wilson(round((1 - agreement.same_decisions) * agreement.samples), agreement.samples)
    if most < wilson(round(kept * agreement.samples), agreement.samples):
        return (
            f"{agreement.same_decisions:.1%} of its decisions agree with the network's, but "
            f"rounding alone keeps {kept:.1%} ({agreement.samples} samples)"
        )
    return ""


class _Output:
    """One output over all samples: its differences, and the squares of what explains them."""

    def __init__(self) -> None:
        self.worst, self.total, self.count = 0.0, 0.0, 0
        self.apart, self.rounding, self.size = 0.0, 0.0, 0.0

    def add(self, wanted: Array, given: Array, without: Array) -> None:
        gap = np.abs(wanted.astype(np.float64) - given)
        gap = np.where(np.isfinite(gap), gap, np.inf)
        self.worst = max(self.worst, float(gap.max(initial=0.0)))
        self.total += float(gap.sum())
        self.count += gap.size
        self.apart += float(np.square(gap).sum())
        self.rounding += float(np.square(wanted.astype(np.float64) - without).sum())
        self.size += float(np.square(wanted.astype(np.float64)).sum())

    def departure(self, inexact: float) -> float:
        """The root mean square of the difference, divided by that of what rounding explains."""
        share = math.sqrt(1 / max(self.count, 1))
        explained = max(
            EXPLAINED * math.sqrt(self.rounding) * share,
            inexact * math.sqrt(self.size) * share,
            NOTHING,
        )
        return math.sqrt(self.apart) * share / explained


def _outputs(network: Network, inputs: Any) -> list[Array]:
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        leaves = tree_leaves(network(*args, **kwargs))
    return [leaf.cpu().numpy() for leaf in leaves]


def wilson(successes: int, trials: int, confidence: float = 0.95) -> float:
    """The one-sided lower confidence bound of a share.

    Source: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference",
    1927.

    >>> round(wilson(1000, 1000), 4)
    0.9973
    """
    z = NormalDist().inv_cdf(confidence)
    share = successes / trials
    middle = share + z * z / (2 * trials)
    spread = z * math.sqrt(share * (1 - share) / trials + z * z / (4 * trials * trials))
    return (middle - spread) / (1 + z * z / trials)
