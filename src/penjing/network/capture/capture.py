"""Capture: turn a user's `nn.Module` into a Network with `torch.export`."""

from __future__ import annotations

import copy
import inspect
import math
import os
import sys
from typing import Any

import torch
from torch import fx, nn
from torch.utils import _pytree as pytree

from penjing.errors import InputError
from penjing.network.axes.rules import rule_of
from penjing.network.capture.decompose import break_up
from penjing.network.capture.exporting import exported
from penjing.network.capture.numbers import fold_numbers
from penjing.network.capture.spectra import spell_out_spectra
from penjing.network.graph.arguments import argument, read_by
from penjing.network.graph.network import Network
from penjing.network.graph.surgery import become
from penjing.tasks.task import as_call

ATTENTION = torch.ops.aten.scaled_dot_product_attention.default
EVEN_SPLITS = {
    torch.ops.aten.chunk.default,
    torch.ops.aten.split.Tensor,
    torch.ops.aten.unsafe_split.Tensor,
    torch.ops.aten.tensor_split.sections,
}
VIEWS = {torch.ops.aten.view.default, torch.ops.aten._unsafe_view.default}
CHECKS = {
    torch.ops.aten._assert_tensor_metadata.default,
    torch.ops.aten._assert_scalar.default,
    torch.ops.aten.sym_constrain_range_for_size.default,
}
SPELLED_OUT = EVEN_SPLITS | VIEWS | CHECKS
"""Operators that `capture` itself rewrites or removes."""


def capture(model: nn.Module, example: Any, source: str | None = None) -> Network:
    """Capture a model as a `Network` that accepts any batch size.

    `torch.export` traces the model in evaluation mode. The model itself stays unchanged, and the
    network holds copies of its tensors. Copies are contiguous, even where the model uses another
    memory format such as `channels_last`, because exported files know no strides.

    Args:
        model: any `nn.Module` that `torch.export` can trace, with dense float32 weights.
        example: the inputs of one batch of at least two samples: a tensor, a tuple of tensors
            (positional arguments) or a dict of tensors (keyword arguments), batch first.
        source: how to find the task again, such as `"mytask.py"`; `save` stores it.

    Returns:
        A new network in evaluation mode, whose `state_dict` has the keys of the model's.

    Raises:
        CaptureError: the model can't be traced, for example because its control flow depends on the
            data or its code fixes the batch size.
        InputError: the example holds fewer than two samples or something else than tensors, the
            model has no parameters, or a weight isn't dense or isn't finite.

    Source: PyTorch's `torch.export`; see J. Ansel et al., "PyTorch 2: Faster Machine Learning
    Through Dynamic Python Bytecode Transformation and Graph Compilation", 2024.

    >>> network = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    >>> network(torch.zeros(5, 3)).shape
    torch.Size([5, 2])
    >>> sorted(network.state_dict())
    ['bias', 'weight']
    """
    args, kwargs = as_call(example)
    leaves = pytree.tree_leaves((args, kwargs))
    if not leaves or any(not isinstance(x, torch.Tensor) for x in leaves) or leaves[0].dim() == 0:
        raise InputError(
            "the example inputs must be tensors, and the first dimension of the first one must be "
            f"the batch; found {[type(x).__name__ for x in leaves]}"
        )
    if leaves[0].shape[0] < 2:
        raise InputError(
            f"the example has a batch size of {leaves[0].shape[0]}; give at least two samples, so "
            "that the batch size can stay variable"
        )
    _require_usable(model)
    example = pytree.tree_map(_dense, example)
    name = type(model).__name__
    program = exported(model, *as_call(example))
    fold_numbers(program, name)
    spell_out_spectra(program)
    break_up(program, lambda target: rule_of(target) is not None or target in SPELLED_OUT)
    _spell_out(program)
    names = _input_names(model, *as_call(example))
    network = copy.deepcopy(
        Network(program, program.graph, example=example, input_names=names, source=source)
    )
    for tensor in (*network.parameters(), *network.buffers()):
        tensor.data = _dense(tensor.data)
    return network


def _dense(tensor: torch.Tensor) -> torch.Tensor:
    """A contiguous copy, also in dimensions of size one."""
    return tensor.clone(memory_format=torch.contiguous_format)


def _require_usable(model: nn.Module) -> None:
    """Raise InputError for a model without parameters, or with a tensor that can't be used."""
    constants = dict(model.named_buffers())
    tensors = [*model.named_parameters(), *constants.items()]
    if not any(True for _ in model.parameters()):
        raise InputError(f"{type(model).__name__} has no parameters; there is nothing to compress")
    for name, tensor in tensors:
        if tensor.is_meta:
            raise InputError(f"weight {name} is on the meta device; load the weights first")
        if tensor.layout is not torch.strided or tensor.is_quantized:
            kind = "quantized" if tensor.is_quantized else str(tensor.layout)
            undone = "dequantize()" if tensor.is_quantized else "to_dense()"
            raise InputError(
                f"weight {name} is a {kind} tensor; convert it to dense float32 with {undone}"
            )
        constant = name in constants and "running_" not in name  # masks may hold -inf
        wrong = torch.isnan(tensor) if constant else ~torch.isfinite(tensor)
        if tensor.is_floating_point() and bool(wrong.any()):
            bad = int(wrong.sum())
            raise InputError(
                f"weight {name} has NaN or infinite values ({bad} of {tensor.numel()}); repair the "
                "checkpoint"
            )
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise InputError(f"weight {name} holds a negative variance; repair the checkpoint")


def _input_names(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> tuple[str, ...]:
    """What `forward` calls each input tensor; a tensor within an argument gets its place behind
    the argument's name, as in `features_0`."""
    signature = inspect.signature(model.forward)
    given = signature.bind(*args, **kwargs).arguments
    names: dict[int, list[str]] = {}
    taken: set[str] = set()
    for (argument_key, *place), leaf in pytree.tree_leaves_with_path(dict(given)):
        argument_name = str(getattr(argument_key, "key", argument_key))
        is_open = signature.parameters[argument_name].kind is inspect.Parameter.VAR_KEYWORD
        parts = [str(getattr(key, "key", getattr(key, "idx", key))) for key in place]
        name = "_".join(parts if is_open else [argument_name, *parts])
        while name in taken:
            name += "_"
        taken.add(name)
        names.setdefault(id(leaf), []).append(name)
    return tuple(names[id(leaf)].pop(0) for leaf in pytree.tree_leaves((args, kwargs)))


def _spell_out(program: fx.GraphModule) -> None:
    """Reduce each node's metadata to its layer and source line, and write out implied constants.

    A `chunk` or an even `split` becomes a split by sizes. Attention gets the scale that it would
    derive from its width. Both then stay as trained when an axis shrinks. A view becomes a reshape,
    which accepts images in any memory format. A slice that takes all, as of the batch in
    `x[:, 2:]`, goes.
    """
    for node in list(program.graph.nodes):
        if node.target in CHECKS and not node.users:
            program.graph.erase_node(node)
            continue
        if node.target is torch.ops.aten.slice.Tensor and _takes_all(node):
            node.replace_all_uses_with(read_by(node))
            program.graph.erase_node(node)
            continue
        if node.target is ATTENTION and argument(node, "scale") is None:
            node.update_kwarg("scale", 1 / math.sqrt(int(read_by(node).meta["val"].shape[-1])))
        elif node.target in VIEWS:
            node.target = torch.ops.aten.reshape.default
        elif node.target in EVEN_SPLITS:
            dim = argument(node, "dim")
            sizes = [piece.shape[dim] for piece in node.meta["val"]]
            if all(isinstance(size, int) for size in sizes):
                by_sizes = torch.ops.aten.split_with_sizes.default
                become(node, by_sizes, read_by(node), sizes, dim)
    for node in program.graph.nodes:
        stack = list((node.meta.get("nn_module_stack") or {}).values())
        node.meta = {"layer": stack[-1][0] if stack else "", "source": _source(node.meta)}


def _takes_all(node: fx.Node) -> bool:
    start, end, step = (argument(node, name) for name in ("start", "end", "step"))
    return start in (None, 0) and end in (None, sys.maxsize) and step in (None, 1)


def _source(meta: dict[str, Any]) -> str:
    """The innermost line of the user's code in an exporter's stack trace, as `file.py:line`."""
    source = ""
    for line in str(meta.get("stack_trace") or "").splitlines():
        line = line.strip()
        if line.startswith('File "') and f"{os.sep}torch{os.sep}nn{os.sep}" not in line:
            path, number = line[6:].split('", line ', 1)
            source = f"{os.path.basename(path)}:{number.split(',')[0]}"
    return source
