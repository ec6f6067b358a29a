"""Parity: how far an artifact's outputs are from the network's."""

from __future__ import annotations

import math
from statistics import NormalDist

import numpy as np
import torch

from penjing.contract import Parity, Session, as_arrays
from penjing.network import Network
from penjing.task import Batches, as_call


def parity(network: Network, session: Session, batches: Batches, samples: int = 1000) -> Parity:
    """Run both on the same samples and compare every output; NaN equals nothing.

    Args:
        batches: held-out data.
        samples: stop once this many were compared.
    """
    worst, total, count, seen, same = 0.0, 0.0, 0, 0, 0
    decides = True
    with torch.no_grad():
        for inputs, _ in batches:
            args, kwargs = as_call(inputs)
            wanted = torch.utils._pytree.tree_leaves(network(*args, **kwargs))
            found = torch.utils._pytree.tree_leaves(session.run(as_arrays(inputs)))
            for one, other in zip(wanted, found, strict=True):
                gap = np.abs(one.cpu().numpy().astype(np.float64) - other)
                gap = np.where(np.isfinite(gap), gap, np.inf)
                worst, total, count = (
                    max(worst, float(gap.max())),
                    total + gap.sum(),
                    count + gap.size,
                )
            decides = decides and found[0].ndim == 2
            if decides:
                same += int((wanted[0].cpu().numpy().argmax(1) == found[0].argmax(1)).sum())
            seen += len(found[0])
            if seen >= samples:
                break
    mean = float(total / max(count, 1))
    if not decides:
        return Parity(seen, worst, mean, None)
    return Parity(seen, worst, mean, same / seen, wilson(same, seen))


def wilson(successes: int, trials: int, confidence: float = 0.95) -> float:
    """One-sided lower bound of a share.

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
