"""Additive: a figure of a file, such as its time, as a sum over the operators of its network.

No runtime has to tell the time of a layer. Variants of the network are measured as files, and the
sum is fitted to them. So it works in every runtime, and on a device over SSH too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import nnls

from penjing.contract import Json
from penjing.errors import InputError

MOST_ERROR = 0.10
"""How far a figure of a network that the model wasn't made from may be off."""
PRIOR = 0.02
"""How much a kind of operator resists being unlike the others, relative to one file's time."""
FEATURES = 3
Features = Mapping[str, NDArray[np.float64]]
"""By kind of operator, three figures, the first of which is how many there are."""


@dataclass(frozen=True)
class Additive:
    """A figure of a network's file as a sum over its operators, relative to the original's.

    Operators of kind k with the features f_1, f_2 and f_3 add a_k f_1 + b_k f_2 + c_k f_3. The
    coefficients are at least 0, and those of a kind that was seen rarely are close to the average
    over all kinds.

    Attributes:
        coefficients: by kind, of each feature.
        default: likewise for a kind that no file had.
        errors: for each network that the model wasn't made from, predicted over measured, less 1.
    """

    coefficients: Mapping[str, tuple[float, ...]]
    default: tuple[float, ...]
    errors: tuple[float, ...] = ()

    @classmethod
    def fit(cls, networks: Sequence[Features], figures: Sequence[float], held_out: int) -> Additive:
        """Fit a model to the figures of networks' files.

        Args:
            networks: their features, see `penjing.search.predict.operators`.
            figures: of each, in any unit.
            held_out: how many of them, the last ones, only check the model.
        """
        count = len(networks) - held_out
        model = cls._of(networks[:count], figures[:count])
        return model.checked(networks[count:], figures[count:])

    @classmethod
    def _of(cls, networks: Sequence[Features], figures: Sequence[float]) -> Additive:
        """Non-negative least squares on relative figures: the average over all kinds first, then
        each kind, drawn toward that average."""
        kinds = sorted({kind for network in networks for kind in network})
        measured = np.asarray(figures, np.float64)
        none = np.zeros(FEATURES)
        rows = np.array([[network.get(kind, none) for kind in kinds] for network in networks])
        relative = rows / measured[:, None, None]
        scale = np.maximum(relative.sum(1).mean(0), 1e-12)
        average = nnls(relative.sum(1) / scale, np.ones(len(measured)))[0] / scale
        usual = np.maximum(average, 1e-3 / (FEATURES * scale))
        shares = (relative.mean(0) * usual).ravel()
        weight = PRIOR * np.sqrt(np.maximum(shares, 1e-9))
        matrix = np.vstack([
            (relative * usual).reshape(len(measured), -1),
            np.diag(weight),
        ])  # fmt: skip
        fitted = nnls(matrix, np.concatenate([np.ones(len(measured)), weight]))[0]
        values = fitted.reshape(len(kinds), FEATURES) * usual
        return cls(
            {kind: tuple(map(float, row)) for kind, row in zip(kinds, values, strict=True)},
            tuple(map(float, average)),
        )

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        return {
            "coefficients": {kind: list(row) for kind, row in self.coefficients.items()},
            "default": list(self.default), "errors": list(self.errors),
        }  # fmt: skip

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Additive:
        """Read what `to_json` wrote.

        Raises:
            ValueError, KeyError, TypeError, AttributeError: it wasn't that.
        """
        rows = {kind: tuple(map(float, row)) for kind, row in data["coefficients"].items()}
        default, errors = (tuple(map(float, data[name])) for name in ("default", "errors"))
        if not all(len(row) == FEATURES and min(row) >= 0 for row in (*rows.values(), default)):
            raise ValueError(f"not {FEATURES} numbers for each kind of operator")
        return cls(rows, default, errors)

    def predict(self, network: Features) -> float:
        """The figure of a network's file."""
        return sum(
            float(np.dot(self.coefficients.get(kind, self.default), values))
            for kind, values in network.items()
        )

    def checked(self, networks: Sequence[Features], figures: Sequence[float]) -> Additive:
        """The same model with its errors for networks that it wasn't made from."""
        errors = (
            self.predict(network) / figure - 1
            for network, figure in zip(networks, figures, strict=True)
        )
        return replace(self, errors=tuple(errors))

    @property
    def is_additive(self) -> bool:
        """Whether no figure is off by more than 10 %."""
        return all(abs(error) <= MOST_ERROR for error in self.errors)

    def require_additive(self, figure: str) -> None:
        """Refuse a model that doesn't predict networks that it wasn't made from.

        Args:
            figure: what it predicts, in the plural.

        Raises:
            InputError: one is off by more than 10 %.
        """
        if not self.is_additive:
            worst = max(self.errors, key=abs)
            raise InputError(
                f"{figure} of whole files don't add up: a network that the model wasn't made "
                f"from is predicted {worst:+.0%} off, and at most {MOST_ERROR:.0%} is allowed"
            )
