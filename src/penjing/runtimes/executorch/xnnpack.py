"""How ExecuTorch writes a network for XNNPACK: the bytes of a `.pte` file of one sample.

XNNPACK fuses integers only where all sizes are known.
"""

from __future__ import annotations

import json
from typing import Any

import torch

from penjing.device.runner import ExecuTorchFile
from penjing.network import Network
from penjing.network.lowering.form import Form
from penjing.network.lowering.lower import lowered
from penjing.quiet import quiet
from penjing.runtimes.converters import converting
from penjing.runtimes.executorch.session import INTERFACE
from penjing.runtimes.executorch.xnnpack_form import for_xnnpack
from penjing.runtimes.interface import one_sample, structure_of
from penjing.tasks.task import as_call, batch_dims

FORM = Form(torch.int8, recurrence=(), convolutions=("moves",))


def for_one_sample(network: Network) -> bytes:
    """The file, in which XNNPACK has taken what it can, and which was loaded once.

    Raises:
        InputError: an operator that ExecuTorch lacks, which the message names; or the file can't be
            loaded, for XNNPACK checks only then what it took.
    """
    with network.evaluating(), quiet():
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
        from executorch.exir import to_edge_transform_and_lower

        told = interface(network)
        written = for_xnnpack(lowered(network, FORM))
        args, kwargs = one_sample(network.example)
        with converting("ExecuTorch"):
            exported = torch.export.export(written, args, kwargs)
            edge = to_edge_transform_and_lower(
                exported, partitioner=[XnnpackPartitioner()], constant_methods=told
            )
            content = bytes(edge.to_executorch().buffer)
            ExecuTorchFile([content])
    return content


def interface(network: Network) -> dict[str, Any]:
    """The method of a file that tells, as bytes of JSON, the names, shapes and types of the inputs
    of one sample, and how outputs are handed back."""
    args, kwargs = as_call(network.example)
    dims = batch_dims((args, kwargs), 0)
    leaves = torch.utils._pytree.tree_leaves((args, kwargs))
    inputs = [
        (name, [1, *leaf.shape[1:]] if dims[id(leaf)] else list(leaf.shape), str(leaf.dtype)[6:])
        for name, leaf in zip(network.input_names, leaves, strict=True)
    ]
    by_sample = [dims[id(leaf)] is not None for leaf in leaves]
    outputs = structure_of(_outputs(network))
    told = json.dumps({"inputs": inputs, "by_sample": by_sample, "outputs": outputs})
    return {INTERFACE: torch.tensor(list(told.encode()), dtype=torch.uint8)}


def _outputs(network: Network) -> Any:
    args, kwargs = as_call(network.example)
    with torch.no_grad():
        return network(*args, **kwargs)
