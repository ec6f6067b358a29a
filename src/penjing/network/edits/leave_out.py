"""Leave out: remove a part of a concatenation, and what every later tensor has for it."""

from __future__ import annotations

from collections.abc import Sequence

from penjing.errors import InputError
from penjing.network.analysis.blocks import without
from penjing.network.axes.groups import find_axes
from penjing.network.edits.shrink import take
from penjing.network.graph.arguments import argument, set_argument
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import erase
from penjing.network.graph.tensors import drop_unused


def leave_out(network: Network, values: Sequence[str]) -> None:
    """Remove values that are only concatenated with others, in place.

    The channels of such a value vanish from every tensor behind it, as if all of them had been
    pruned, and what was computed only for the value is removed.

    Args:
        network: the network.
        values: the names of the nodes.

    Raises:
        InputError: a value is read by something other than a concatenation, or something would be
            left without channels.
    """
    for name in values:
        node = next((node for node in network.graph.nodes if node.name == name), None)
        axes = find_axes(network)
        keep = None if node is None else without(axes, node)
        if node is None or keep is None:
            raise InputError(f"{name!r} isn't a part of concatenations that can be left out")
        take(network, axes, keep)
        for reader in list(node.users):
            parts = [part for part in argument(reader, "tensors") if part is not node]
            if len(parts) > 1:
                set_argument(reader, "tensors", parts)
            else:
                reader.replace_all_uses_with(parts[0])
                network.graph.erase_node(reader)
        erase(node)
        drop_unused(network)
