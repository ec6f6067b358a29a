"""How a model is called and how its outputs are handed back, which any runtime must keep."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch.utils import _pytree as pytree

from penjing.contract import Array, Input
from penjing.network import Network
from penjing.network.graph.qparams import value_qparams, weight_qparams
from penjing.tasks.task import as_call, batch_dims, count


def one_sample(example: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The example's call with its first sample alone."""
    call = as_call(example)
    dims = batch_dims(call, 0)

    def cut(tensor: torch.Tensor) -> torch.Tensor:
        return tensor[:1] if dims[id(tensor)] else tensor

    sample: tuple[tuple[Any, ...], dict[str, Any]] = pytree.tree_map(cut, call)
    return sample


def not_by_sample(network: Network) -> list[str]:
    """One line for each output that a file which is run sample by sample can't give."""
    args, kwargs = as_call(network.example)
    with torch.no_grad():
        outputs = network(*args, **kwargs)
    samples = count(network.example)
    return [
        f"output {position} of shape {list(output.shape)} has no entry for each of {samples} "
        "samples, and this runtime's files are run sample by sample"
        for position, output in enumerate(pytree.tree_leaves(outputs))
        if not output.dim() or len(output) != samples
    ]


def not_in_eight_bits(network: Network, runtime: str) -> list[str]:
    """What a runtime can't hold that has 8-bit values and one scale for each output channel of a
    weight, one line each."""
    problems = []
    narrow = [qparams for qparams in value_qparams(network) if qparams.bits < 8]
    if narrow:
        problems.append(
            f"{len(narrow)} values have {min(qparams.bits for qparams in narrow)} bits; {runtime} "
            "keeps values in 8: activations=8, or None"
        )
    grouped = [
        str(layer.meta["layer"])
        for layer, qparams in weight_qparams(network).items()
        if network.tensor(qparams.scale).dim() > 1
    ]
    if grouped:
        problems.append(
            f"weights of {', '.join(grouped[:3])} have scales by group; {runtime} has them by "
            "output channel: leave out group"
        )
    return problems


def numbered(what: str, count: int) -> list[str]:
    """Names for inputs or outputs that have none.

    >>> numbered("output", 3)
    ['output', 'output1', 'output2']
    """
    return [f"{what}{place or ''}" for place in range(count)]


def output_names(structure: Any, count: int) -> list[str]:
    """What the outputs are called: the keys of the dict that the model returns, or numbers.

    An output within an output gets its place behind that one's name.

    >>> output_names({"dict": {"logits": "tensor", "states": {"tuple": ["tensor", "tensor"]}}}, 3)
    ['logits', 'states_0', 'states_1']

    Args:
        structure: as `structure_of` tells it.
        count: how many there are.
    """
    if isinstance(structure, list):
        return structure
    if not isinstance(structure, dict):
        return numbered("output", count)
    names: list[str] = []
    for key, part in _parts(structure):
        top = key if "dict" in structure else f"output{key if key != '0' else ''}"
        for place in _places(part):
            name = "_".join([top, *place])
            while name in names:
                name += "_"
            names.append(name)
    return names


def _parts(structure: dict[str, Any]) -> list[tuple[str, Any]]:
    (parts,) = structure.values()
    named = parts.items() if isinstance(parts, dict) else enumerate(parts)
    return [(str(key), part) for key, part in named]


def _places(structure: Any) -> list[list[str]]:
    """The way to each tensor of a structure, in order."""
    if structure == "tensor":
        return [[]]
    return [[key, *place] for key, part in _parts(structure) for place in _places(part)]


def structure_of(outputs: Any) -> Any:
    """How outputs are put together, as plain data that a file can hold.

    `"tensor"`, `"tuple"` or the names of a dict; where such things are within each other, tuples
    are `{"tuple": [..]}` and dicts are `{"dict": {name: ..}}`, with a `"tensor"` for each tensor.
    """
    if not isinstance(outputs, dict | list | tuple):
        return "tensor"
    parts = outputs.values() if isinstance(outputs, dict) else outputs
    if any(isinstance(part, dict | list | tuple) for part in parts):
        return _nested(outputs)
    return list(outputs) if isinstance(outputs, dict) else "tuple"


def _nested(outputs: Any) -> Any:
    if isinstance(outputs, dict):
        return {"dict": {str(name): _nested(part) for name, part in outputs.items()}}
    if isinstance(outputs, list | tuple):
        return {"tuple": [_nested(part) for part in outputs]}
    return "tensor"


def in_order(inputs: Any, takes: Sequence[Input]) -> list[Array]:
    """One batch's inputs, given in any way that a session takes, in the order of the model's.

    Raises:
        ValueError: they are fewer or more.
    """
    if isinstance(inputs, dict):
        return [inputs[wanted.name] for wanted in takes]
    values = list(inputs) if isinstance(inputs, tuple) else [inputs]
    if len(values) != len(takes):
        raise ValueError(f"{len(values)} inputs came, the file takes {len(takes)}")
    return values


def by_sample(
    run: Callable[[list[Array]], Sequence[Array]],
    values: Sequence[Array],
    batched: Sequence[bool],
) -> list[Array]:
    """The outputs of a batch, its samples run one by one.

    A device, where no one knows which inputs have an entry for each sample, goes by shapes instead
    (`penjing.device.runner.OfOneSample`).

    Args:
        run: takes one sample's inputs, batch first.
        batched: of each input, whether it has an entry for each sample.
    """
    count = next(len(value) for value, cut in zip(values, batched, strict=True) if cut)
    samples = (
        run(
            [value[k : k + 1] if cut else value for value, cut in zip(values, batched, strict=True)]
        )
        for k in range(count)
    )
    return [np.concatenate(parts) for parts in zip(*samples, strict=True)]


def handed_back(outputs: Sequence[Array], structure: Any) -> Any:
    """The outputs in the structure that `structure_of` told of.

    >>> handed_back(["a", "b"], {"tuple": ["tensor", {"dict": {"boxes": "tensor"}}]})
    ('a', {'boxes': 'b'})
    """
    if isinstance(structure, list):
        return dict(zip(structure, outputs, strict=True))
    if isinstance(structure, dict):
        return _rebuilt(iter(outputs), structure)
    return outputs[0] if structure == "tensor" else tuple(outputs)


def _rebuilt(outputs: Iterator[Array], structure: Any) -> Any:
    if structure == "tensor":
        return next(outputs)
    parts = {key: _rebuilt(outputs, part) for key, part in _parts(structure)}
    return parts if "dict" in structure else tuple(parts.values())
