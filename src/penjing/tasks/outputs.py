"""Outputs: what a model may return, and what is said of anything else."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from penjing.errors import InputError

WANTED = "a tensor, or a tuple, list or dict of tensors"


def require_tensors(outputs: Any, place: str = "") -> None:
    """Raise InputError for outputs that are anything but tensors in tuples, lists and dicts.

    A `ModelOutput` of transformers is a dict, which leaves out what is None.

    >>> require_tensors({"logits": Tensor(), "hidden_states": (Tensor(), Tensor())})
    >>> require_tensors({"logits": Tensor(), "loss": None})
    Traceback (most recent call last):
    penjing.errors.InputError: the model's output loss is None; leave it out

    Args:
        outputs: what the model returned.
        place: where in its outputs that is.
    """
    if isinstance(outputs, Tensor):
        return
    if isinstance(outputs, dict | list | tuple) and outputs:
        named = outputs.items() if isinstance(outputs, dict) else enumerate(outputs)
        for key, part in named:
            require_tensors(part, f"{place}.{key}" if place else str(key))
        return
    if outputs is None and place:
        raise InputError(f"the model's output {place} is None; leave it out")
    raise InputError(f"the model {of_another_type(type(outputs).__name__)}")


def of_another_type(kind: str) -> str:
    """What to say of a model that returns something which may hold tensors in a way of its own.

    >>> of_another_type("DynamicCache")
    'returns DynamicCache beside its tensors; set model.config.use_cache = False'

    Args:
        kind: the name of its class.
    """
    if kind.endswith("Cache"):  # as the language models of transformers do, for the next token
        return f"returns {kind} beside its tensors; set model.config.use_cache = False"
    return f"returns {kind}; it must return {WANTED}"
