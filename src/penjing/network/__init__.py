"""The network: captured once, edited as a graph, saved without pickle."""

from penjing.network.capture import capture
from penjing.network.edit import carry_out
from penjing.network.groups import Axes, Group, find_axes
from penjing.network.network import Network
from penjing.network.save import restore, save
from penjing.network.shrink import mask

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
