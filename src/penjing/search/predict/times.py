"""TimeModel: the time of a network in one runtime and precision, from the times of whole files.

No runtime has to tell the time of a layer. Variants of the network are timed as files, and the time
is fitted as a sum over operators. So it works in every runtime, and on a device over SSH too.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import nnls
from torch import fx

from penjing.errors import InputError
from penjing.measure.costs import mac_terms, operators
from penjing.network import Network
from penjing.network.edits.bypass import repeats
from penjing.network.graph.layers import LAYERS, Layer
from penjing.network.graph.shapes import shapes

MOST_ERROR = 0.10
"""How far a time of a network that the model wasn't made from may be off."""
PRIOR = 0.02
"""How much a kind of operator resists being unlike the others, relative to one file's time."""
BATCH_NORM = torch.ops.aten.batch_norm.default
FEATURES = 3
"""Of each kind of operator: how many there are, their MACs, and the values that they write."""
Features = Mapping[str, NDArray[np.float64]]


@dataclass(frozen=True)
class TimeModel:
    """The time of a network as a sum over its operators, relative to the original's.

    An operator of kind k with m MACs that writes v values takes a_k + b_k m + c_k v. A kind is an
    operator with its kernel, stride and groups, and the size of its image. The coefficients are at
    least 0, and those of a kind that was seen rarely are close to the average over all kinds.

    Attributes:
        coefficients: by kind, the time of one, of a MAC and of a value.
        default: likewise for a kind that no file had.
        errors: for each network that the model wasn't made from, predicted over measured, less 1.
    """

    coefficients: Mapping[str, tuple[float, ...]]
    default: tuple[float, ...]
    errors: tuple[float, ...] = ()

    @classmethod
    def fit(cls, networks: Sequence[Features], times: Sequence[float], held_out: int) -> TimeModel:
        """Fit a model to the times of networks.

        Args:
            networks: their features, see `features`.
            times: of each, in any unit.
            held_out: how many of them, the last ones, only check the model.
        """
        count = len(networks) - held_out
        model = cls._of(networks[:count], times[:count])
        errors = [
            model.predict(network) / time - 1
            for network, time in zip(networks[count:], times[count:], strict=True)
        ]
        return cls(model.coefficients, model.default, tuple(errors))

    @classmethod
    def _of(cls, networks: Sequence[Features], times: Sequence[float]) -> TimeModel:
        """Non-negative least squares on relative times: the average over all kinds first, and then
        each kind, drawn toward that average."""
        kinds = sorted({kind for network in networks for kind in network})
        measured = np.asarray(times, np.float64)
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

    def predict(self, network: Features) -> float:
        """The time of a network."""
        return sum(
            float(np.dot(self.coefficients.get(kind, self.default), values))
            for kind, values in network.items()
        )

    def require_additive(self) -> None:
        """Refuse a model that doesn't predict networks that it wasn't made from.

        Raises:
            InputError: a time is off by more than 10 %.
        """
        worst = max(self.errors, key=abs, default=0.0)
        if not abs(worst) <= MOST_ERROR:
            raise InputError(
                f"times of whole files don't add up: a network that the model of times wasn't made "
                f"from is predicted {worst:+.0%} off, and at most {MOST_ERROR:.0%} is allowed"
            )


def features(network: Network) -> Features:
    """By kind of operator, how many there are, their MACs, and the values they write; one sample.

    >>> import penjing
    >>> model = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1), torch.nn.ReLU())
    >>> known = features(penjing.capture(model, torch.zeros(2, 3, 4, 4)))
    >>> {kind: values.tolist() for kind, values in known.items()}
    {'conv2d 3x3 on 4x4': [1.0, 3456.0, 128.0], 'relu': [1.0, 0.0, 128.0]}
    """
    known = shapes(network)
    batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
    totals: dict[str, NDArray[np.float64]] = defaultdict(lambda: np.zeros(FEATURES))
    for node, _ in operators(network, known):
        dims = known[node]
        if not dims or isinstance(dims[0], tuple) or _is_free(node):
            continue
        macs = sum(math.prod(factors) for factors in mac_terms(node, known.__getitem__))
        kind = _kind(node, dims, known)
        totals[kind] += (1, macs / batch, math.prod(dims) / batch)
    return dict(totals)


def _is_free(node: fx.Node) -> bool:
    """Whether it is no operator in a file: a batch norm that becomes part of the layer before it,
    or a ReLU of a ReLU."""
    is_folded = node.target is BATCH_NORM and getattr(node.args[0], "target", None) in LAYERS
    return is_folded or repeats(node)


def _kind(node: fx.Node, dims: Sequence[int], known: Mapping[fx.Node, Any]) -> str:
    """What operators have in common whose times follow one formula."""
    name = str(node.target).removeprefix("aten.").split(".")[0].rstrip("_")
    if node.target not in LAYERS:
        return name
    layer = Layer(node)
    if not layer.dimensions:
        return name
    kernel, image = ("x".join(map(str, sizes)) for sizes in (known[layer.weight][2:], dims[2:]))
    words = [name, kernel, "in groups"] if layer.groups > 1 else [name, kernel]
    if max(layer.stride) > 1:
        words += ["with stride", "x".join(map(str, layer.stride))]
    return " ".join([*words, "on", image])
