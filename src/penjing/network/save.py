"""A network on disk, without pickle: the plans that made it, and its weights.

Whoever restores one may not have written it. So all of it is checked before it is used: the text is
strict JSON, the plans are let through by `penjing.network.edits.allowed`, and the weights are those
that the text names, finite, and of the names, shapes and types of the network that the plans give.
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
from penjing.network.edits.allowed import plans_from
from penjing.network.edits.carry_out import carry_out
from penjing.network.graph.network import Network
from penjing.network.graph.shapes import fake_values
from penjing.strict_json import parse

FORMAT, OLDEST = 4, 3
"""Since 4 plans tell their parts; what came before is read as well."""
KEYS = {"format", "source", "plans", "weights_sha256"}


def save(network: Network, folder: Path | str) -> None:
    """Write `network.json` (source, plans, hash of the weights) and `weights.safetensors` into
    `folder`.

    Raises:
        MachineError: the folder can't be written.
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
    """Capture `model` again, replay the plans that `save` wrote, and load the weights.

    Args:
        model: the original, of the same class and sizes; its weights don't matter.
        example: as for `capture`.

    Raises:
        InputError: files missing, or from another version of penjing.
        UnsafeError: a file is damaged, or holds what `save` doesn't write: plans of no edit or of
            another network, weights that are others than those saved, or not finite.
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
    """What `network.json` holds, and the bytes of the weights."""
    try:
        text = read_regular(folder / "network.json")
        weights = read_regular(folder / "weights.safetensors")
    except FileNotFoundError as error:
        raise InputError(f"no saved network in {folder}: {error.filename} is missing") from error
    what = str(folder / "network.json")
    record = parse(text, what)
    version = record.get("format") if isinstance(record, dict) else None
    if type(version) is not int:
        raise UnsafeError(f"{what} is not a network that penjing saved: it tells no format")
    if not OLDEST <= version <= FORMAT:
        better = "upgrade penjing" if version > FORMAT else "save the network again"
        reads = f"{OLDEST} to {FORMAT}"
        raise InputError(f"{folder} has format {version}; this penjing reads {reads}: {better}")
    if set(record) != KEYS:
        raise UnsafeError(f"{what} must have the keys {', '.join(sorted(KEYS))}")
    if record["source"] is not None and not isinstance(record["source"], str):
        raise UnsafeError(f"{what} must name its source by a string")
    return record, weights


def _tensors(folder: Path, record: dict[str, Any], weights: bytes) -> dict[str, Tensor]:
    """The weights, if they are the ones that the record tells of."""
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
    """The network once the plans are carried out, which can be computed from end to end."""
    try:
        for plan in plans:
            network = carry_out(network, plan)
    except (InputError, UnsafeError) as error:
        raise UnsafeError(f"{folder / 'network.json'}: {error}") from error
    try:
        fake_values(network)
    except (RuntimeError, TypeError, ValueError) as error:
        raise UnsafeError(
            f"{folder / 'network.json'} makes a network that can't run: {first_line(error)}"
        ) from error
    return network


def _require_same(folder: Path, wanted: dict[str, Tensor], weights: dict[str, Tensor]) -> None:
    """Check that the weights have the network's names, shapes and types, and are finite."""
    file = folder / "weights.safetensors"
    what = f"{file} holds another network's weights"
    for name in sorted(wanted.keys() ^ weights.keys()):
        raise UnsafeError(f"{what}: {name!r} is {'missing' if name in wanted else 'too much'}")
    for name, tensor in weights.items():
        own = wanted[name]
        if tensor.shape != own.shape or tensor.dtype != own.dtype:
            raise UnsafeError(
                f"{what}: {name!r} is {tensor.dtype} of {list(tensor.shape)}, wanted {own.dtype} "
                f"of {list(own.shape)}"
            )
        if not tensor.is_floating_point():
            continue
        infinite = bool((own.isinf() & (own == tensor)).any())  # as in a mask of infinities
        wrong = torch.isnan(tensor) if infinite else ~torch.isfinite(tensor)
        if bool(wrong.any()):
            raise UnsafeError(f"{file}: {name!r} holds {int(wrong.sum())} NaN or infinite values")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise UnsafeError(f"{file}: {name!r} holds a negative variance")
