"""Save: write a network to disk without pickle, as the plans that made it and its weights.

The files may come from someone else, so `restore` checks everything before it uses it. The text
must be strict JSON. The plans must pass `penjing.network.edits.checking.allowed`. The weights must
have the hash that the text gives, must be finite, and must match the network that the plans make in
names, shapes and types.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError, first_line
from penjing.files import read_regular, require_writable_folder, sha256_of, write_atomically
from penjing.network.capture.capture import capture
from penjing.network.edits.carry_out import carry_out
from penjing.network.edits.checking.allowed import plans_from
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import fake_values
from penjing.strict_json import parse

FORMAT, OLDEST = 4, 3
"""The formats that can be read. Since format 4, plans list their parts."""
KEYS = {"format", "source", "plans", "weights_sha256"}


def save(network: Network, folder: Path | str) -> None:
    """Save a network in a folder, so that `restore` can read it.

    The folder gets two files. `network.json` holds the source of the task, the plans that were
    carried out and the SHA-256 of the weights. `weights.safetensors` holds the weights. Neither
    holds code.

    Args:
        network: the network.
        folder: the folder; it is created if it doesn't exist.

    Raises:
        MachineError: the folder can't be written.

    >>> import pathlib, tempfile
    >>> folder = pathlib.Path(tempfile.mkdtemp())
    >>> save(capture(nn.Linear(3, 2), torch.zeros(2, 3)), folder)
    >>> sorted(path.name for path in folder.iterdir())
    ['network.json', 'weights.safetensors']
    """
    folder = Path(folder)
    require_writable_folder(folder)
    tensors = {name: tensor.detach().cpu().clone() for name, tensor in network.state_dict().items()}
    plans = [plan.to_json() for plan in network.history]
    weights = safetensors.torch.save(tensors)
    write_atomically(folder / "weights.safetensors", weights)
    record = {
        "format": FORMAT, "source": network.source, "plans": plans,
        "weights_sha256": sha256_of(weights),
    }  # fmt: skip
    write_atomically(folder / "network.json", json.dumps(record, indent=1, allow_nan=False))


def restore(folder: Path | str, model: nn.Module, example: Any) -> Network:
    """Read a network that `save` wrote.

    The function captures `model`, carries out the saved plans on it and loads the saved weights.

    Args:
        folder: the folder that `save` wrote.
        model: a model of the class and the sizes of the original; its weights don't matter.
        example: inputs of one batch, as for `capture`.

    Raises:
        InputError: a file is missing, or its format is of another version of penjing.
        UnsafeError: a file is damaged, or holds something that `save` doesn't write: an unknown
            edit, plans for another network, or weights that weren't saved or aren't finite.

    >>> import tempfile
    >>> network = capture(nn.Linear(3, 2), torch.zeros(2, 3))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save(network, folder)
    ...     again = restore(folder, nn.Linear(3, 2), torch.zeros(2, 3))
    >>> torch.equal(again.get_parameter("weight"), network.get_parameter("weight"))
    True
    """
    folder = Path(folder)
    record, weights = _read(folder)
    plans = plans_from(record["plans"], str(folder / "network.json"))
    tensors = _tensors(folder, record, weights)
    network = _replayed(folder, capture(model, example, source=record["source"]), plans)
    _require_same(folder, network.state_dict(), tensors)
    network.load_state_dict(tensors)
    return network


def _read(folder: Path) -> tuple[dict[str, Any], bytes]:
    """The content of `network.json`, and the bytes of the weights."""
    try:
        text = read_regular(folder / "network.json")
        weights = read_regular(folder / "weights.safetensors")
    except FileNotFoundError as error:
        raise InputError(f"no saved network in {folder}: {error.filename} is missing") from error
    what = str(folder / "network.json")
    record = parse(text, what)
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int:
        raise UnsafeError(f"{what} is not a network that penjing saved: it has no format number")
    if not OLDEST <= version <= FORMAT:
        better = "upgrade penjing" if version > FORMAT else "save the network again"
        reads = f"formats {OLDEST} to {FORMAT}"
        raise InputError(f"{folder} has format {version}; this penjing reads {reads}; {better}")
    if set(record) != KEYS:
        raise UnsafeError(f"{what} must have exactly the keys {', '.join(sorted(KEYS))}")
    if record["source"] is not None and not isinstance(record["source"], str):
        raise UnsafeError(f"{what} must give its source as a string or null")
    return record, weights


def _tensors(folder: Path, record: dict[str, Any], weights: bytes) -> dict[str, Tensor]:
    """Read the weights, after checking that they have the hash that the record gives."""
    what, digest = folder / "weights.safetensors", sha256_of(weights)
    if digest != record["weights_sha256"]:
        wanted = str(record["weights_sha256"])[:12]
        raise UnsafeError(
            f"{what} is damaged: sha256 {digest[:12]}, wanted {wanted}; save it again"
        )
    try:
        tensors: dict[str, Tensor] = safetensors.torch.load(weights)
    except (safetensors.SafetensorError, KeyError, ValueError, RuntimeError) as error:
        raise UnsafeError(f"{what} is damaged: {first_line(error)}") from error
    return tensors


def _replayed(folder: Path, network: Network, plans: tuple[Plan, ...]) -> Network:
    """Carry the plans out, and check that the resulting network can run."""
    try:
        for plan in plans:
            network = carry_out(network, plan)
    except (InputError, UnsafeError) as error:
        raise UnsafeError(f"{folder / 'network.json'}: {error}") from error
    try:
        fake_values(network)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UnsafeError(
            f"{folder / 'network.json'} describes a network that can't run: {first_line(error)}"
        ) from error
    return network


def _require_same(folder: Path, wanted: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Check that the weights have the network's names, shapes and types, and are finite."""
    file = folder / "weights.safetensors"
    what = f"{file} holds another network's weights"
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise UnsafeError(f"{what}: {name!r} is {'missing' if name in wanted else 'unknown'}")
    for name, tensor in weights.items():
        own = wanted[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise UnsafeError(
                f"{what}: {name!r} is {tensor.dtype} of {list(tensor.shape)}, wanted {own.dtype} "
                f"of {list(own.shape)}"
            )
        if not tensor.is_floating_point():
            continue
        infinite = bool((own.isinf() & (own == tensor)).any())  # such as a mask of -inf
        wrong = torch.isnan(tensor) if infinite else ~torch.isfinite(tensor)
        if bool(wrong.any()):
            raise UnsafeError(f"{file}: {name!r} has {int(wrong.sum())} NaN or infinite values")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UnsafeError(f"{file}: {name!r} has a negative variance")
