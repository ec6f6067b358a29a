"""A network on disk, without pickle: the plans that made it, and its weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import nn

from penjing.contract import Plan
from penjing.errors import InputError, UnsafeError
from penjing.files import require_writable_folder, write_atomically
from penjing.network.capture import capture
from penjing.network.edit import carry_out
from penjing.network.network import Network

FORMAT = 2


def save(network: Network, folder: Path | str) -> None:
    """Write `network.json` (source, plans) and `weights.safetensors` into `folder`.

    Raises:
        MachineError: the folder can't be written.
    """
    folder = Path(folder)
    require_writable_folder(folder)
    tensors = {name: one.detach().cpu().clone() for name, one in network.state_dict().items()}
    plans = [plan.to_json() for plan in network.history]
    write_atomically(folder / "weights.safetensors", safetensors.torch.save(tensors))
    record = {"format": FORMAT, "source": network.source, "plans": plans}
    write_atomically(folder / "network.json", json.dumps(record, indent=1, allow_nan=False))


def restore(folder: Path | str, model: nn.Module, example: Any) -> Network:
    """Capture `model` again, replay the plans that `save` wrote, and load the weights.

    Args:
        model: the original, of the same class and sizes; its weights don't matter.
        example: as for `capture`.

    Raises:
        InputError: files missing, from a newer penjing, or of another network.
        UnsafeError: the weights file is not a sound safetensors file.
    """
    folder = Path(folder)
    try:
        record = json.loads((folder / "network.json").read_text())
        weights = (folder / "weights.safetensors").read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"no saved network in {folder}: {error.filename} is missing") from error
    except ValueError as error:
        raise UnsafeError(f"{folder / 'network.json'} is not valid JSON: {error}") from error
    if record.get("format") != FORMAT:
        raise InputError(
            f"{folder} has format {record.get('format')}; this penjing reads {FORMAT}: upgrade it"
        )
    try:
        tensors = safetensors.torch.load(weights)
    except safetensors.SafetensorError as error:
        raise UnsafeError(f"{folder / 'weights.safetensors'} is damaged: {error}") from error
    network = capture(model, example, source=record["source"])
    for plan in record["plans"]:
        network = carry_out(network, Plan.from_json(plan))
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()]
        raise InputError(
            f"{folder} holds another network's weights: {' '.join(lines)[:300]}"
        ) from error
    return network
