"""Exporting: trace a model with `torch.export` so that its batch size stays free."""

from __future__ import annotations

import inspect
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import fx, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.utils import _pytree as pytree

from penjing.errors import CaptureError
from penjing.network.capture.explain import Frames, explain, frames_of
from penjing.network.capture.undisturbed import undisturbed
from penjing.quiet import quiet
from penjing.tasks.task import batch_dims

Call = tuple[tuple[Any, ...], dict[str, Any]]
"""The positional and keyword arguments of a model."""


def exported(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> fx.GraphModule:
    """The model's graph, in evaluation mode, for any batch size; the model stays as it is.

    Raises:
        CaptureError: the model can't be traced.
    """
    fixed: list[Frames] = []
    with undisturbed(model):
        model.eval()
        try:
            with torch.no_grad(), quiet():
                program = _traced(model, (args, kwargs), fixed)
        except Exception as error:  # the user's code may raise anything
            raise CaptureError(explain(type(model).__name__, error, fixed)) from error
    return program.module(check_guards=False)


def _traced(model: nn.Module, call: Call, fixed: list[Frames]) -> torch.export.ExportedProgram:
    """Trace; if the code branches on the batch size, keep the branch that was taken.

    An operator such as `cdist` may branch on it. So does a model that compares the shape of its
    input with the one that it saw last, to keep its anchors: with the same batch once more, the
    sizes are equal, and equal only to that batch. So the model is shown a larger batch first.

    Args:
        fixed: where the batch size became a number is added here.
    """
    try:
        return _with_batch(model, call, torch.export.Dim("batch"))
    except Exception as error:
        if "Constraints violated" not in str(error):
            raise
        with _watching(fixed):
            program = _with_batch(model, call, torch.export.Dim.AUTO)
        if not _batch_is_free(program):
            args, kwargs = _larger(call)
            with suppress(Exception):  # it may take no other batch, which the first error says
                model(*args, **kwargs)
                program = _with_batch(model, call, torch.export.Dim.AUTO)
        if not _batch_is_free(program):
            raise
        return program


def _with_batch(model: nn.Module, call: Call, batch: Any) -> torch.export.ExportedProgram:
    args, kwargs = call
    given = inspect.signature(model.forward).bind(*args, **kwargs).arguments
    dims = batch_dims(call, batch)
    free = pytree.tree_map(lambda leaf: dims[id(leaf)], given)
    return torch.export.export(model, args, kwargs, dynamic_shapes=free)


def _larger(call: Call) -> Call:
    """The call with its first sample once more."""
    dims = batch_dims(call, 0)
    larger: Call = pytree.tree_map(
        lambda leaf: torch.cat([leaf, leaf[:1]]) if dims[id(leaf)] else leaf, call
    )
    return larger


def _batch_is_free(program: torch.export.ExportedProgram) -> bool:
    names = set(program.graph_signature.user_inputs)
    nodes = [
        node for node in program.graph.nodes if node.op == "placeholder" and node.name in names
    ]
    size = nodes[0].meta["val"].shape[0]
    return isinstance(size, torch.SymInt) and not size.node.expr.is_number


@contextmanager
def _watching(fixed: list[Frames]) -> Iterator[None]:
    """Note the stack whenever a free size becomes a number, which torch itself doesn't tell."""
    replace = ShapeEnv._set_replacement

    def noted(env: ShapeEnv, symbol: Any, target: Any, *rest: Any, **named: Any) -> Any:
        if target.is_number:
            calls = frames_of(traceback.extract_stack())[:-1]
            ours = max(place for place, (file, _) in enumerate(calls) if file == __file__)
            fixed.append(calls[ours + 1 :])
        return replace(env, symbol, target, *rest, **named)

    ShapeEnv._set_replacement = noted  # type: ignore[method-assign, assignment]
    try:
        yield
    finally:
        ShapeEnv._set_replacement = replace  # type: ignore[method-assign]
