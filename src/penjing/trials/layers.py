"""Layers: what each layer of the original became in the answer, and what time it takes in each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass

from penjing.contract import Json


@dataclass(frozen=True)
class LayerFigures:
    """One layer in one file.

    Attributes:
        channels: its outputs; None for what isn't a convolution or a linear layer.
        params, macs: of its operators, for one sample.
        latency_ms: its share of the file's time, by the runtime's own profiler; None if that tells
            nothing of it, as where the runtime computes it together with a neighbour.
    """

    channels: int | None = None
    params: int = 0
    macs: int = 0
    latency_ms: float | None = None


@dataclass(frozen=True)
class Layer:
    """A layer before and after, by its name in the original network.

    Attributes:
        operator: such as `"conv2d"`; empty for what a runtime calls its operators without weights.
        before: in the original's file; None if it isn't there.
        after: in the answer's file; None if it is gone.
    """

    name: str
    operator: str
    before: LayerFigures | None = None
    after: LayerFigures | None = None

    @property
    def is_gone(self) -> bool:
        """Whether a layer with weights is no longer there."""
        return self.after is None and bool(self.operator)

    @property
    def is_narrower(self) -> bool:
        """Whether it has fewer outputs than before."""
        if self.before is None or self.after is None:
            return False
        before, after = self.before.channels, self.after.channels
        return before is not None and after is not None and after < before


@dataclass(frozen=True)
class Layers:
    """All layers, in the order of the original network, and what to know about the figures.

    >>> Layers.from_json(Layers(notes=("nobody tells",)).to_json()).notes
    ('nobody tells',)
    """

    rows: tuple[Layer, ...] = ()
    notes: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        return {"rows": [asdict(row) for row in self.rows], "notes": list(self.notes)}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Layers:
        """Read what `to_json` wrote."""
        rows = (
            Layer(row["name"], row["operator"], _figures(row["before"]), _figures(row["after"]))
            for row in data["rows"]
        )
        return cls(tuple(rows), tuple(data["notes"]))


def _figures(data: Mapping[str, Json] | None) -> LayerFigures | None:
    return None if data is None else LayerFigures(**data)
