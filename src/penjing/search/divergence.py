"""Divergence: from which layer on a runtime computes something else than the network."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import fx
from torch.utils import _pytree as pytree

from penjing.contract import as_arrays
from penjing.network import Network
from penjing.network.layers import LAYERS
from penjing.runtimes.contract import Runtime
from penjing.task import as_call


def first_divergence(
    network: Network, runtime: Runtime, inputs: Any, tolerance: float, floats: str = "float32"
) -> str | None:
    """The first layer whose value in the runtime is further than `tolerance` times the largest
    number of that value from the network's; None if there is none.

    The graph is cut behind a layer and that part is lowered (`floats` as `Runtime.lower` takes it)
    and run, for half of the layers that are left each time: it is assumed that what has gone astray
    stays so.
    """
    layers = [node.name for node in network.graph.nodes if node.target in LAYERS]
    low, high = 0, len(layers)
    while low < high:
        middle = (low + high) // 2
        part = up_to(network, layers[middle])
        if _diverges(part, runtime, inputs, tolerance, floats):
            high = middle
        else:
            low = middle + 1
    if low == len(layers):
        return None
    node = next(one for one in network.graph.nodes if one.name == layers[low])
    return str(node.meta.get("layer") or node.name)


def up_to(network: Network, name: str) -> Network:
    """The part of the network that works out what the node of that name gives, or the ReLU or
    rounding that alone reads it."""
    new = copy.deepcopy(network)
    node = next(one for one in new.graph.nodes if one.name == name)
    while len(node.users) == 1:
        (user,) = node.users
        if user.op == "output" or len(user.all_input_nodes) > 2 or user.target in LAYERS:
            break
        others = [one for one in user.all_input_nodes if one is not node]
        if any(one.op != "get_attr" for one in others):
            break
        node = user
    return _ending_at(new, node)


def _ending_at(network: Network, node: fx.Node) -> Network:
    output = next(one for one in network.graph.nodes if one.op == "output")
    output.args = ((node,),)
    codegen: Any = network.graph._codegen
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=pytree.tree_structure(0))
    network.graph.eliminate_dead_code()
    network.compile_graph()
    return network


def _diverges(
    network: Network, runtime: Runtime, inputs: Any, tolerance: float, floats: str
) -> bool:
    args, kwargs = as_call(inputs)
    with torch.no_grad():
        wanted = pytree.tree_leaves(network(*args, **kwargs))[0].numpy()
    with tempfile.TemporaryDirectory() as folder:
        artifact = runtime.lower(network, Path(folder) / f"part{runtime.ending}", floats)
        found = pytree.tree_leaves(runtime.load(artifact).run(as_arrays(inputs)))[0]
    apart = np.abs(wanted.astype(np.float64) - found)
    return not bool(np.all(apart <= tolerance * np.abs(wanted).max()))
