"""Signature: the inputs and outputs of a file, and the Python that fills and reads them."""

from __future__ import annotations

import json
import keyword
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import numpy as np

from penjing.contract import Json


@dataclass(frozen=True)
class TensorSpec:
    """One input or output of a file.

    >>> print(TensorSpec("image", ("batch", 3, 32, 32), "float32"))
    image: float32 [batch, 3, 32, 32]
    >>> print(TensorSpec("logits", (1, 10), "int8", 0.125, -14))
    logits: int8 [1, 10], value = 0.125 * (integer + 14)

    Attributes:
        name: what the model calls it.
        shape: a number for each size that is fixed, a name such as `"batch"` for each that is free.
        dtype: the type that the file takes or gives, as NumPy calls it.
        scale, zero_point: where these integers stand for real numbers,
            value = scale * (integer - zero_point); else None.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    scale: float | None = None
    zero_point: int | None = None

    def __str__(self) -> str:
        sizes = ", ".join(map(str, self.shape))
        return f"{self.name}: {self.dtype} [{sizes}]" + (
            f", value = {self._real}" if self._real else ""
        )

    @property
    def _real(self) -> str:
        """How its integers become real numbers; empty if they stand for none."""
        if self.scale is None or self.zero_point is None:
            return ""
        return f"{self.scale:.7g} * (integer{_shift(-self.zero_point)})"


@dataclass(frozen=True)
class Signature:
    """What a file takes and gives, in the order of the model's own inputs and outputs."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> dict[str, Json]:
        """Plain data."""
        data: dict[str, Json] = json.loads(json.dumps(asdict(self)))
        return data

    @property
    def variables(self) -> tuple[list[str], list[str]]:
        """For each input and each output, a name that a variable in Python may have."""
        taken: set[str] = set()
        names = [_variable(spec.name, taken) for spec in (*self.inputs, *self.outputs)]
        return names[: len(self.inputs)], names[len(self.inputs) :]

    def arrays(self) -> list[str]:
        """Lines of Python that make an array for each input, for the user to fill."""
        return [
            f"{name} = numpy.zeros({_example_shape(spec)}, "
            f'"{spec.dtype if spec.scale is None else "float32"}")'
            for name, spec in zip(self.variables[0], self.inputs, strict=True)
        ]

    def rounded(self) -> list[str]:
        """Lines of Python that round the inputs which the file takes as integers."""
        lines = []
        for name, spec in zip(self.variables[0], self.inputs, strict=True):
            if spec.scale is not None:
                limits = np.iinfo(spec.dtype)
                shift = _shift(spec.zero_point or 0)
                clipped = f"numpy.clip({name}, {limits.min}, {limits.max})"
                lines += [
                    f"{name} = numpy.rint({name} / {spec.scale:.9g}){shift}",
                    f'{name} = {clipped}.astype("{spec.dtype}")',
                ]
        return lines

    def real(self) -> list[str]:
        """Lines of Python that turn integer outputs into real numbers."""
        lines = []
        for name, spec in zip(self.variables[1], self.outputs, strict=True):
            if spec.scale is not None:
                shift = _shift(-(spec.zero_point or 0))
                lines.append(f'{name} = ({name}.astype("float32"){shift}) * {spec.scale:.9g}')
        return lines

    def fed(self) -> list[str]:
        """Lines of Python that call a dict of all inputs `inputs`."""
        pairs = zip(self.inputs, self.variables[0], strict=True)
        return ["inputs = {", *(f'    "{spec.name}": {name},' for spec, name in pairs), "}"]

    def taken(self, keys: Sequence[str] | None = None) -> list[str]:
        """Lines of Python that take each output out of what is called `results`.

        Args:
            keys: how each output is called there, if not by its name.
        """
        names = keys or [f'"{spec.name}"' for spec in self.outputs]
        return [
            f"{name} = results[{key}]" for name, key in zip(self.variables[1], names, strict=True)
        ]


def snippet(imports: Sequence[str], *parts: Sequence[str]) -> str:
    """A piece of Python: its imports, and the lines of each part."""
    lines = [line for part in parts for line in part]
    return "\n".join([*imports, "", *lines])


def settings_of(settings: Mapping[str, object]) -> list[str]:
    """Lines of Python that call a dict of plain values `settings`."""
    quoted = {
        key: f'"{value}"' if isinstance(value, str) else repr(value)
        for key, value in settings.items()
    }
    return ["settings = {", *(f'    "{key}": {value},' for key, value in quoted.items()), "}"]


def _example_shape(spec: TensorSpec) -> tuple[int, ...]:
    return tuple(size if isinstance(size, int) else 1 for size in spec.shape)


def _shift(number: int) -> str:
    """A number to be added, as one writes it behind what it is added to."""
    return f" {'-' if number < 0 else '+'} {abs(number)}" if number else ""


def _variable(name: str, taken: set[str]) -> str:
    """The name, made fit for a variable, and another than those taken."""
    made = re.sub(r"\W", "_", name, flags=re.ASCII) or "_"
    if made[0].isdigit() or keyword.iskeyword(made) or made in RESERVED:
        made = f"{made}_" if not made[0].isdigit() else f"_{made}"
    while made in taken:
        made += "_"
    taken.add(made)
    return made


RESERVED = {
    "numpy", "onnxruntime", "onnxruntime_qnn", "openvino", "torch", "Interpreter", "Runtime",
    "core", "devices", "inputs", "model", "options", "program", "providers", "results", "run",
    "library", "name", "path", "session", "settings", "tensors", "value",
}  # fmt: skip
"""What the snippets call their own things."""
