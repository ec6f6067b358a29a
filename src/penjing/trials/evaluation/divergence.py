"""Divergence: whether a file computes something else than its network, from which layer on, and
the likely cause."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from penjing.contract import Artifact, Parity, some_of
from penjing.errors import DivergenceError
from penjing.measure.parity import departs, parity
from penjing.network import Network
from penjing.network.graph.layers import LAYERS
from penjing.processor import this_processor
from penjing.runtimes.contract import Runtime


def require_parity(
    agreement: Parity,
    network: Network,
    runtime: Runtime,
    artifact: Artifact,
    inputs: Any,
    floats: str = "float32",
) -> None:
    """Raise unless rounding explains how far a file is from the network that it was made from.

    Args:
        agreement: how far that is.
        inputs: of one batch, to find the layer with.

    Raises:
        DivergenceError: it doesn't; the message names the first layer and the likely cause.
    """
    why = departs(agreement, floats)
    if not why:
        return
    layer = first_divergence(network, runtime, inputs, floats)
    processor, layers = this_processor(), runtime.saturating(artifact)
    if layers and processor.adds_in_16_bits:
        cause = (
            f"{processor} has no VNNI, so sums of two products overflow 16 bits in "
            f"{some_of(layers)}; Quantize(overflow_fix=True) prevents that"
        )
    else:
        cause = f"{runtime.name} computes it differently on {processor}"
    where = f"the first layer that differs is {layer}" if layer else "no layer differs by itself"
    raise DivergenceError(
        f"{artifact.path.name} computes something else than its network: {why}; {where}; the "
        f"likely cause: {cause}"
    )


def first_divergence(
    network: Network, runtime: Runtime, inputs: Any, floats: str = "float32"
) -> str | None:
    """The first layer whose value in the runtime is further from the network's than rounding
    explains (`penjing.measure.parity`); None if there is none.

    A bisection: the graph is cut behind a layer, and that part is lowered (`floats` as
    `Runtime.lower` takes it) and run. It assumes that all layers behind the first that differs
    differ too.

    Args:
        inputs: of one batch; with more samples, smaller differences show.
    """
    layers = [node.name for node in network.graph.nodes if node.target in LAYERS]
    low, high = 0, len(layers)
    while low < high:
        middle = (low + high) // 2
        part = up_to(network, layers[middle])
        if _diverges(part, runtime, inputs, floats):
            high = middle
        else:
            low = middle + 1
    if low == len(layers):
        return None
    node = next(node for node in network.graph.nodes if node.name == layers[low])
    return str(node.meta.get("layer") or node.name)


def up_to(network: Network, name: str) -> Network:
    """The part of the network that computes the node of that name, or the ReLU or rounding behind
    it if nothing else reads the node."""
    new = copy.deepcopy(network)
    node = next(node for node in new.graph.nodes if node.name == name)
    while len(node.users) == 1:
        (user,) = node.users
        if user.op == "output" or len(user.all_input_nodes) > 2 or user.target in LAYERS:
            break
        others = [source for source in user.all_input_nodes if source is not node]
        if any(source.op != "get_attr" for source in others):
            break
        node = user
    return _ending_at(new, node)


def _ending_at(network: Network, node: fx.Node) -> Network:
    output = next(node for node in network.graph.nodes if node.op == "output")
    output.args = ((node,),)
    codegen: Any = network.graph._codegen
    codegen.pytree_info = codegen.pytree_info._replace(out_spec=pytree.tree_structure(0))
    network.graph.eliminate_dead_code()
    network.compile_graph()
    return network


def _diverges(network: Network, runtime: Runtime, inputs: Any, floats: str) -> bool:
    with tempfile.TemporaryDirectory() as folder:
        artifact = runtime.lower(network, Path(folder) / f"part{runtime.ending}", floats)
        session = runtime.load(artifact)
        meant = runtime.as_computed(network)
        agreement = parity(meant, session, [(inputs, torch.zeros(1))], floats=floats)
    return agreement.departure > 1
