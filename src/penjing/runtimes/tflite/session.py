"""A `.tflite` file in LiteRT's interpreter: real numbers in and out, whatever the file takes."""

from __future__ import annotations

from typing import Any

from penjing.contract import Input
from penjing.device.runner import LiteRtFile
from penjing.errors import InputError, first_line
from penjing.quiet import quiet_below
from penjing.runtimes import notes
from penjing.runtimes.interface import by_sample, handed_back, in_order
from penjing.runtimes.tflite import file as tflite_file


class LiteRtSession:
    """A file loaded from bytes, so that it can open no other file.

    The file holds one sample, so a batch is run sample by sample. Where the file takes or gives
    integers, the session rounds the inputs and returns real numbers.

    Raises:
        InputError: the interpreter can't load it.
    """

    def __init__(self, content: bytes, threads: int = 1) -> None:
        known = tflite_file.noted(tflite_file.read(content))
        self.file = _opened(content, threads)
        takes, gives = self.file.inputs, len(self.file.gives)
        as_the_model: list[dict[str, Any]] = [
            {"name": name, "dtype": kind, "batched": True} for name, _, kind in takes
        ]
        self.structure = "tensor" if gives == 1 else "tuple"
        if known is not None:
            told = known if isinstance(known, dict) else {}
            self.structure = notes.structure(told.get("outputs"), gives)
            as_the_model = notes.named_inputs(told.get("inputs"), len(takes))
        self.batched = [bool(entry["batched"]) for entry in as_the_model]
        self.inputs = [
            Input(entry["name"], shape, entry["dtype"])
            for entry, (_, shape, _) in zip(as_the_model, takes, strict=True)
        ]

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`."""
        outputs = by_sample(self.file.sample, in_order(inputs, self.inputs), self.batched)
        return handed_back(outputs, self.structure)


def _opened(content: bytes, threads: int = 1) -> LiteRtFile:
    try:
        with quiet_below():
            return LiteRtFile([content], threads)
    except Exception as error:
        raise InputError(f"LiteRT can't load this file: {first_line(error)}") from error


def delegated(content: bytes) -> set[int]:
    """The places of the operators that the interpreter gave to its delegate, XNNPACK.

    A delegate's node stands for all that is computed between its inputs and its outputs.
    """
    nodes = _opened(content).interpreter._get_ops_details()
    maker = {
        int(output): node
        for node in nodes
        if node["op_name"] != "DELEGATE"
        for output in node["outputs"]
    }
    places: set[int] = set()
    for delegate in (node for node in nodes if node["op_name"] == "DELEGATE"):
        given = set(map(int, delegate["inputs"]))
        waiting = list(map(int, delegate["outputs"]))
        while waiting:
            tensor = waiting.pop()
            if tensor in given or tensor not in maker or int(maker[tensor]["index"]) in places:
                continue
            places.add(int(maker[tensor]["index"]))
            waiting += map(int, maker[tensor]["inputs"])
    return places
