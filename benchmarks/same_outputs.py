"""What a network gives, and how far it is from what another network or a file gives."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch
from torch.utils import _pytree as pytree

from penjing.contract import as_arrays
from penjing.measure.parity import departs, parity
from penjing.network import Network
from penjing.network.graph.qparams import qparams_in
from penjing.runtimes.onnx.runtime import OnnxRuntime
from penjing.tasks.task import Batches, as_call

MOST = 1e-3
"""The largest difference, relative to the largest output, that counts as the same."""


def outputs_of(network: Any, x: Any) -> list[Any]:
    """All tensors that the network gives."""
    args, kwargs = as_call(x)
    return pytree.tree_leaves(network(*args, **kwargs))


def gap_of(found: list[Any], wanted: list[Any]) -> float:
    """The largest difference in any output, relative to that output's largest entry."""
    if [one.shape for one in found] != [one.shape for one in wanted]:
        raise ValueError(f"{len(found)} outputs, of other shapes than the {len(wanted)} wanted")
    gaps = [
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(found, wanted, strict=True)
        if other.is_floating_point()
    ]
    return max(gaps, default=0.0) if all(one == one for one in gaps) else float("nan")


def finite_outputs(network: Any, x: Any) -> list[Any]:
    """All tensors that the network gives.

    Raises:
        ValueError: one of them has NaN or infinite values.
    """
    with torch.no_grad():
        tensors = outputs_of(network, x)
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors):
        raise ValueError("outputs aren't finite")
    return tensors


def onnx_gap(network: Network, x: Any, batches: Batches = ()) -> float:
    """The largest difference between ONNX Runtime and torch, relative to the largest output.

    Args:
        network: the network.
        x: inputs of a batch.
        batches: where values are rounded, the data on which the difference must be one that
            rounding explains. A value near a border may go either way.

    Raises:
        ValueError: the difference is too large.
    """
    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxRuntime()
        session = runtime.load(runtime.lower(network, Path(folder) / "model.onnx"))
        found = pytree.tree_leaves(session.run(as_arrays(x)))
        rounded = bool(batches) and any(True for _ in qparams_in(network))
        why = departs(parity(network, session, batches)) if rounded else ""
    with torch.no_grad():
        gap = gap_of([torch.as_tensor(one) for one in found], outputs_of(network, x))
    if why or not (rounded or gap < MOST):
        raise ValueError(why or f"ONNX Runtime differs by {gap:.1e} of the largest output")
    return gap
