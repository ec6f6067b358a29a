"""The network: captured once with `torch.export`, edited as a graph, and saved without pickle."""

from penjing.network.axes.groups import Axes, Group, find_axes
from penjing.network.capture.capture import capture
from penjing.network.edits.carry_out import carry_out
from penjing.network.edits.shrink import mask
from penjing.network.graph.network import Network
from penjing.network.save import restore, save

__all__ = [
    "Axes",
    "Group",
    "Network",
    "capture",
    "carry_out",
    "find_axes",
    "mask",
    "restore",
    "save",
]
