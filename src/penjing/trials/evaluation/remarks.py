"""Remarks: what users should know of a file's size: weights in float, and unrolled recurrences."""

from __future__ import annotations

from penjing.contract import some_of
from penjing.network import Network
from penjing.network.graph.arguments import read_by
from penjing.network.graph.qparams import SCALES, scale_names
from penjing.network.graph.recurrent import RECURRENT
from penjing.runtimes.contract import Runtime

LEAST_SHARE = 0.1
"""Of a file, that its weights in float take, for them to be named."""


def remarks(network: Network, runtime: Runtime, file_bytes: int | None) -> list[str]:
    """What makes a file large although its network is quantized, or although it is small.

    Args:
        network: the candidate's.
        runtime: whose file it is.
        file_bytes: the file's size; None if there is no file.
    """
    if file_bytes is None:
        return []
    said = []
    recurrent = any(node.target in RECURRENT for node in network.calls())
    floats = 4 * sum(parameter.numel() for parameter in network.parameters())
    if recurrent and runtime.unrolls and file_bytes > floats:
        said.append(
            "the file has a copy of the recurrent layer's operators for each step, and so takes "
            f"{_kilo(file_bytes)} kB, more than the {_kilo(floats)} kB of the weights in float"
        )
    sizes = _in_float(network)
    if sum(sizes.values()) >= LEAST_SHARE * file_bytes:
        largest = sorted(sizes, key=lambda name: -sizes[name])
        stay = "stays" if len(sizes) == 1 else "stay"
        total = _kilo(sum(sizes.values()))
        said.append(f"{some_of(largest)} {stay} in float: {total} of {_kilo(file_bytes)} kB")
    return said


def _in_float(network: Network) -> dict[str, int]:
    """The bytes of each weight that isn't quantized, by name; none of a network in float."""
    rounded = {
        str(read_by(node).target)
        for node in network.calls()
        if node.target in SCALES and read_by(node).op == "get_attr"
    }
    if not rounded and not any(node.target in SCALES for node in network.calls()):
        return {}
    others = rounded | scale_names(network)
    parameters = dict(network.named_parameters())
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    return {
        name: 4 * parameters[name].numel()
        for name in sorted(read - others)
        if name in parameters and parameters[name].dim() > 1
    }


def _kilo(size: int) -> str:
    return f"{size / 1000:.0f}"
