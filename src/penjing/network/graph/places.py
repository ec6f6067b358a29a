"""Places: where each tensor of a network is stored, and under which names.

A tensor is a parameter or a buffer of one of the network's modules. A tensor that the model keeps
as a plain attribute is made a buffer (`register_constants`), so that nothing needs to look
elsewhere. A tied tensor has several places.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, fx, nn


@dataclass(frozen=True)
class Place:
    """A module, and the name that a tensor has in it.

    Attributes:
        owner: the module.
        leaf: the name, without the path of the module.
    """

    owner: nn.Module
    leaf: str

    @property
    def value(self) -> Any:
        """What is stored there: a tensor, or the subgraph of a control-flow operator."""
        return stored(self.owner, self.leaf)

    def replace(self, tensor: Tensor) -> None:
        """Store another tensor of the same kind (parameter or buffer) there."""
        is_parameter = self.leaf in self.owner._parameters
        tensors: dict[str, Any] = self.owner._parameters if is_parameter else self.owner._buffers
        tensors[self.leaf] = tensor

    def register(self, tensor: Tensor, persistent: bool = True) -> None:
        """Store a parameter or a buffer there, in place of what was there before."""
        self.clear()
        if isinstance(tensor, nn.Parameter):
            self.owner._parameters[self.leaf] = tensor
        else:
            self.owner._buffers[self.leaf] = tensor
            if not persistent:
                self.owner._non_persistent_buffers_set.add(self.leaf)

    def clear(self) -> None:
        """Remove the parameter or the buffer that is stored there, if there is one."""
        for tensors in (self.owner._parameters, self.owner._buffers):
            tensors.pop(self.leaf, None)
        self.owner._non_persistent_buffers_set.discard(self.leaf)


def stored(owner: nn.Module, leaf: str) -> Any:
    """The tensor or the module of that name, even if the class has an attribute of that name."""
    for held in (owner._parameters, owner._buffers, owner._modules):
        if leaf in held:
            return held[leaf]
    return getattr(owner, leaf)


def place_of(root: nn.Module, name: str) -> Place:
    """The place that a name such as `layer.weight` means, whether or not a tensor is there.

    Raises:
        AttributeError: there is no such module.
    """
    owner, (*path, leaf) = root, name.split(".")
    for part in path:
        owner = stored(owner, part)
    return Place(owner, leaf)


def places(root: nn.Module) -> dict[str, Place]:
    """The places of all parameters and then of all buffers, under each of their names."""
    modules = list(root.named_modules(remove_duplicate=False))
    return {
        f"{path}.{leaf}".lstrip("."): Place(module, leaf)
        for kind in ("_parameters", "_buffers")
        for path, module in modules
        for leaf, tensor in getattr(module, kind).items()
        if tensor is not None
    }


def names_by_tensor(root: nn.Module) -> dict[int, list[str]]:
    """By identity of a tensor, all its names; a tied tensor has several."""
    names: dict[int, list[str]] = {}
    for name, place in places(root).items():
        names.setdefault(id(place.value), []).append(name)
    return names


def register_constants(root: nn.Module, graph: fx.Graph) -> None:
    """Make buffers of the tensors that the graph reads from plain attributes of a module.

    They aren't persistent: the model's `state_dict` doesn't have them.
    """
    for node in graph.nodes:
        if node.op == "get_attr":
            place = place_of(root, str(node.target))
            attributes = vars(place.owner)
            if place.value is attributes.get(place.leaf) and isinstance(place.value, Tensor):
                place.register(attributes.pop(place.leaf), persistent=False)
