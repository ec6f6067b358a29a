"""Network: a captured graph with its parameters, as an `nn.Module`."""

from __future__ import annotations

import copy
import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network.graph.arguments import argument, set_argument
from penjing.network.graph.places import names_by_tensor, place_of, register_constants, stored

NAMES = re.compile(r"[\w +,:;/@=()\[\]<>|&*#~!?$%^'.-]+")
"""The characters that the name of a layer or a tensor may have. FX writes names into generated
Python, where a quotation mark, a backslash or a line break would end the name and start code."""
TRAINING_ARGUMENT = {
    torch.ops.aten.batch_norm.default: "training",
    torch.ops.aten.dropout.default: "train",
    torch.ops.aten.dropout_.default: "train",
    torch.ops.aten.feature_dropout.default: "train",
    torch.ops.aten.alpha_dropout.default: "train",
    torch.ops.aten.feature_alpha_dropout.default: "train",
    torch.ops.aten.lstm.input: "train",
    torch.ops.aten.gru.input: "train",
    torch.ops.aten.rnn_tanh.input: "train",
    torch.ops.aten.rnn_relu.input: "train",
}
"""Operators that behave differently in training, and the argument that switches the mode."""


class Network(nn.Module):
    """A model as a `torch.export` graph that can be called, trained, edited and exported.

    `penjing.capture` makes a network, and a pass makes a new one from it. A network is an
    `nn.Module`: it takes the arguments of the original model and returns outputs in the same
    structure. The keys of its `state_dict` are those of the model. `train()` and `eval()` switch
    batch norm and dropout.

    >>> import penjing
    >>> model = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2)).eval()
    >>> network: penjing.Network = penjing.capture(model, torch.zeros(2, 3))
    >>> inputs = torch.randn(5, 3)
    >>> torch.equal(network(inputs), model(inputs))
    True
    >>> list(network.state_dict()) == list(model.state_dict())
    True

    Attributes:
        graph: the operators. The `meta` of a node holds `layer`, the module path, and `source`,
            the `file.py:line` of the user's code.
        history: the plans that were carried out so far, in order.
        example: the inputs of one batch, as the task gives them.
        input_names: what the model's `forward` calls each input tensor, in the order of `example`.
    """

    def __init__(
        self,
        root: nn.Module,
        graph: fx.Graph,
        *,
        example: Any,
        input_names: tuple[str, ...],
        source: str | None = None,
        history: tuple[Plan, ...] = (),
    ) -> None:
        super().__init__()
        register_constants(root, graph)
        self._modules |= root._modules  # not as attributes: a layer may be called `tensor`
        self._parameters |= root._parameters
        self._buffers |= root._buffers
        self._non_persistent_buffers_set |= root._non_persistent_buffers_set
        names = names_by_tensor(self)
        for node in graph.nodes:  # all nodes of a tied tensor use its first name
            if node.op == "get_attr":
                node.target = names.get(id(self.attribute(node.target)), [node.target])[0]
        self.graph: fx.Graph
        self.example: Any
        self.input_names: tuple[str, ...]
        self.source: str | None
        self.history: tuple[Plan, ...]
        self._run: Callable[..., Any]
        vars(self).update(graph=graph, example=example, input_names=input_names)
        vars(self).update(source=source, history=history)
        self.compile_graph()
        self.train(False)

    def compile_graph(self) -> None:
        """Generate Python from the graph; call this after every edit of `graph`.

        Raises:
            InputError: a name of a layer or a tensor can't be written in Python.
        """
        self.graph.lint()
        for node in self.graph.nodes:
            name = node.target if node.op in ("get_attr", "call_module") else node.name
            if not NAMES.fullmatch(str(name)) or not node.name.isidentifier():
                raise InputError(f"the name {name!r} isn't allowed in a graph; rename the layer")
        info = getattr(self.graph._codegen, "pytree_info", None)
        if info is not None:
            self._in_spec, self._out_spec = info.in_spec, info.out_spec
        code = self.graph.python_code("self")
        namespace = dict(code.globals)
        exec(compile(code.src, "<penjing network>", "exec"), namespace)
        self._run = namespace["forward"]

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the model's outputs, in the model's own structure."""
        return self._run(_Names(self), *args, **kwargs)

    def structured(self, leaves: Any) -> Any:
        """The model's outputs in its own structure, from the values that the graph returns."""
        info = getattr(self.graph._codegen, "pytree_info", None)
        return leaves if info is None else pytree.tree_unflatten(leaves, info.out_spec)

    @contextmanager
    def evaluating(self) -> Iterator[None]:
        """A context in evaluation mode and without gradients; restores the mode afterwards."""
        mode = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(mode)

    def train(self, mode: bool = True) -> Network:
        """Switch batch norm and dropout to training or evaluation mode; returns the network."""
        super().train(mode)
        changed = False
        for node in self.graph.nodes:
            name = TRAINING_ARGUMENT.get(node.target)
            if name is None or _has_no_statistics(node):
                continue
            if argument(node, name) is not mode:
                set_argument(node, name, mode)
                changed = True
        if changed:
            self.compile_graph()
        return self

    @property
    def device(self) -> torch.device:
        """The device of the network's tensors, which is the same for all of them."""
        return next(itertools.chain(self.parameters(), self.buffers())).device

    def calls(self) -> Iterator[fx.Node]:
        """The nodes that call an operator, in order."""
        return (node for node in self.graph.nodes if node.op == "call_function")

    def tensor(self, name: str) -> torch.Tensor:
        """The parameter, buffer or constant of that name."""
        tensor = self.attribute(name)
        assert isinstance(tensor, torch.Tensor)
        return tensor

    def attribute(self, name: str) -> Any:
        """The tensor of that name, or the subgraph of a control-flow operator."""
        return place_of(self, name).value

    def __deepcopy__(self, memo: dict[int, Any]) -> Network:
        root = nn.Module()
        for name, child in self._modules.items():
            root._modules[name] = copy.deepcopy(child, memo)
        for name, parameter in self._parameters.items():
            root._parameters[name] = copy.deepcopy(parameter, memo)
        for name, buffer in self._buffers.items():
            root._buffers[name] = copy.deepcopy(buffer, memo)
        root._non_persistent_buffers_set = set(self._non_persistent_buffers_set)
        new = Network(
            root,
            _copy_graph(self.graph),
            example=self.example,
            input_names=self.input_names,
            source=self.source,
            history=self.history,
        )
        return new.train(self.training)


class _Names:
    """Looks up tensors and layers by name, even if the class has an attribute of that name."""

    __slots__ = ("_owner",)

    def __init__(self, owner: nn.Module) -> None:
        self._owner = owner

    def __getattr__(self, name: str) -> Any:
        value = stored(self._owner, name)
        is_layer = isinstance(value, nn.Module) and not isinstance(value, fx.GraphModule)
        return _Names(value) if is_layer else value


def _has_no_statistics(node: fx.Node) -> bool:
    """Whether a batch norm has no running statistics, and so uses the batch's in evaluation too."""
    is_norm = node.target is torch.ops.aten.batch_norm.default
    return is_norm and argument(node, "running_mean") is None


def _copy_graph(graph: fx.Graph) -> fx.Graph:
    """A copy that shares no nodes; `copy.deepcopy` would also copy the pytree specs."""
    new = fx.Graph(tracer_cls=graph._tracer_cls)
    outputs = new.graph_copy(graph, {}, return_output_node=True)
    assert isinstance(outputs, tuple)
    new.output(outputs[0]).meta = dict(outputs[1].meta)
    new.set_codegen(graph._codegen)
    for node in new.nodes:
        node.meta = dict(node.meta)
    return new
