"""Quantize: round weights and activations to integers, with scales chosen on calibration data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import fx

from penjing.arith.quantizer import RangeMethod, weight_ends, weight_scales
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.graph.layers import CONVOLUTIONS, Layer, layers_of
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.names import is_in, require_names
from penjing.passes.rounding.alone import Alone, owners
from penjing.passes.rounding.calibration import Calibration, calibrated
from penjing.passes.rounding.weights import (
    ends,
    rounding,
    why_not,
    with_bits,
    with_overflow_fix,
)
from penjing.tasks.task import Task

WIDTHS = (2, 3, 4, 5, 6, 7, 8)


@dataclass(frozen=True)
class Quantize(Pass):
    """Quantize weights (symmetric, per channel) and activations (per tensor).

    With a scale s, a zero point z and integers q, the pass rounds x to x':

        q = clamp(round(x / s) + z, low, high)        x' = (q - z) s

    A weight w_OI.. gets one scale per output channel, s_O, and z = 0. Each activation gets one
    scale and one zero point, which the pass chooses on calibration samples. Batch norms are folded
    first. Rounding takes place where runtimes fuse it: at the inputs and outputs of convolutions,
    linear layers, sums, concatenations and pools, and behind a ReLU rather than before it.
    Operators that only move values keep the quantization parameters of their input. The parts of a
    concatenation share them, unless a reader would then get much coarser values.

    The tables of embeddings and the matrices of recurrent layers (GRU, LSTM, RNN) get eight bits
    and a scale for each row. Only a file's weights become smaller by that: values that an embedding
    gives, and all that goes around in a recurrent layer, stay in float.

    The resulting network still computes with real numbers, so other passes can refine the rounding
    and `Tune` can train it. A runtime stores the integers when the network is exported.

    Quantizing pays where the runtime has integer kernels for the device, and where a smaller file
    matters. It needs a network that isn't quantized, and, unless `activations` is None, training
    samples for calibration. A fit and an export set the options from `outputs` on as the
    runtime requires.

    Attributes:
        weights: the bits of weights, 2 to 8.
        activations: the bits of the inputs of layers, 2 to 8, or None to quantize weights only.
            Sums, pools, concatenations and the inputs of the first and the last layer keep 8.
        ends: the smallest number of bits for the weights of the first and the last layer, 2 to 8.
        layers: bits by name of a layer, or prefix of a name, in place of `weights`; 0 leaves the
            layer in float. An embedding or a recurrent layer may be named too; it has eight
            otherwise.
        scales: `"channel"`, one scale for each output channel, or `"tensor"`.
        group: in linear layers, the number of inputs that share a scale, 2 or more; only with
            `activations=None`.
        ranges: how to choose the range of an activation: `"mse"` (least squared error),
            `"percentile"` or `"minmax"`.
        samples: the number of training samples for calibration, 2 or more.
        percentile: the upper percentile for `"percentile"`, 50 to 100.
        skip: names of layers, or prefixes of names, to leave in float.
        int16: names of layers, or prefixes of names, whose results get 16 bits in place of 8, and
            with them sums, products, concatenations and other operators that read them, up to the
            next layer. The layers' weights keep their bits. For runtimes that have kernels for
            that; see `penjing.runtimes.Runtime`.
        outputs: round the outputs of layers and concatenations even if no reader computes on
            integers. Some runtimes run a layer on integers only if its output is rounded too.
        elementwise: round the outputs of activation functions and products of rounded values, for
            NPUs that compute on integers only. The outputs of sigmoid and tanh are rounded over
            their whole possible range.
        split_silu: write SiLU as x sigmoid(x), for runtimes that have integer kernels only for
            these two operators.
        symmetric: choose ranges of activations that reach as far below zero as above, for runtimes
            without zero points. An activation behind a ReLU then has half as many levels.
        overflow_fix: enlarge weight scales just enough that x86 processors without VNNI compute
            the same integers as all others, although they add pairs of products in 16 bits (see
            `penjing.arith.saturation`). The notes of the plan say what was changed. It isn't
            needed where all kernels add in 32 bits.
        recurrent: round the matrices of recurrent layers. A runtime that would have to turn the
            integers into real numbers in each inference has them in float.

    Raises:
        InputError: an option is out of range or names an unknown layer, or the calibration data has
            another shape or values that aren't finite.

    Source: B. Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2018.

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> quantize = penjing.passes.Quantize()
    >>> print(quantize.plan(network, task).summary)
    quantizes the weights of 2 layers to 8 bits and 2 activations to 8 bits
    >>> quantized = quantize(network, task)
    >>> (quantized(data.x) - network(data.x)).abs().max().item() < 0.1
    True
    """

    weights: int = 8
    activations: int | None = 8
    ends: int = 8
    layers: Mapping[str, int] = field(default_factory=dict)
    scales: Literal["channel", "tensor"] = "channel"
    group: int | None = None
    ranges: RangeMethod = "mse"
    samples: int = 512
    percentile: float = 99.99
    skip: tuple[str, ...] = ()
    int16: tuple[str, ...] = ()
    outputs: bool = False
    elementwise: bool = False
    split_silu: bool = False
    symmetric: bool = False
    overflow_fix: bool = True
    recurrent: bool = True

    def __post_init__(self) -> None:
        widths: dict[str, Any] = {"weights": self.weights, "ends": self.ends}
        if self.activations is not None:
            widths["activations"] = self.activations
        for name, bits in (*widths.items(), *self.layers.items()):
            allowed = WIDTHS if name in widths else (0, *WIDTHS)
            if bits not in allowed:
                where = name if name in widths else f"layers[{name!r}]"
                zero = "" if name in widths else ", or 0 for float"
                raise InputError(
                    f"{where} must be 2 to 8 bits{zero}; found {bits}; use Binarize for one bit, "
                    "and Ternarize for weights of -1, 0 and 1"
                )
        if self.scales not in ("channel", "tensor"):
            raise InputError(f"scales must be 'channel' or 'tensor'; found {self.scales!r}")
        if self.group is not None and (self.group < 2 or self.activations is not None):
            raise InputError(
                f"group must be 2 or more and needs activations=None; found group={self.group} "
                f"and activations={self.activations}"
            )
        if self.ranges not in ("mse", "percentile", "minmax"):
            raise InputError(f"ranges must be mse, percentile or minmax; found {self.ranges!r}")
        if self.samples < 2:
            raise InputError(f"samples must be 2 or more to find ranges; found {self.samples}")
        if self.int16 and self.activations is None:
            raise InputError(
                f"int16 needs activations; found activations=None and int16={tuple(self.int16)}"
            )
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "int16", tuple(self.int16))
        object.__setattr__(self, "layers", dict(self.layers))

    @property
    def requires(self) -> frozenset[Condition]:
        """A network that isn't quantized, and training samples if activations get bits."""
        return calibrated(self.activations) | {Condition.FLOAT}

    @property
    def provides(self) -> frozenset[Condition]:
        """Quantized weights, and quantized activations if they get bits."""
        return rounding(True, self.activations is not None)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Fold batch norms on a copy, run the calibration samples, and choose every scale."""
        start: tuple[Mapping[str, Any], ...] = ({"edit": "fold_batch_norm"}, {"edit": "pool_means"})
        if self.split_silu:
            start += ({"edit": "split_silu"},)
        folded = carry_out(network, self._plan(start))
        widths, left_alone = self._widths(folded)
        alone = Alone.of(folded, self.skip, self.layers, self.recurrent)
        left_alone += alone.left
        if not widths and not alone.tensors:
            return self._plan(left_alone=left_alone)
        activations: dict[str, Any] = {}
        if self.activations is not None and widths:
            find = Calibration(
                self.activations, self.ranges, self.samples, self.percentile,
                self.outputs, self.elementwise, self.symmetric, self._wide(widths),
            )  # fmt: skip
            activations = find(folded, task, list(widths), left_alone)
        weights = {node.name: self._weight(folded, node, bits) for node, bits in widths.items()}
        edit = {"edit": "fake_quantize", "activations": activations, "weights": weights}
        edits = (*start, *([edit] if widths else []), *alone.edits(folded))
        summary = alone.summary(self._summary(widths, activations) if widths else "")
        plan = self._plan(edits, summary, left_alone)
        return with_overflow_fix(plan, network) if self.overflow_fix else plan

    def _widths(self, network: Network) -> tuple[dict[fx.Node, int], list[LeftAlone]]:
        """The bits of each layer's weights, and the layers that stay in float."""
        nodes = layers_of(network)
        names = [str(node.meta["layer"]) for node in nodes]
        known = [*names, *dict.fromkeys(owners(network).values())]
        require_names("skip", self.skip, known)
        require_names("layers", tuple(self.layers), known)
        require_names("int16", self.int16, names)
        widths: dict[fx.Node, int] = {}
        left = []
        for node, layer in zip(nodes, names, strict=True):
            named = [bits for name, bits in self.layers.items() if is_in(layer, name)]
            if any(is_in(layer, name) for name in self.skip):
                left.append(LeftAlone(layer, "it is listed in skip"))
            elif named and not named[-1]:
                left.append(LeftAlone(layer, "it has 0 bits in layers"))
            elif why := why_not(node):
                left.append(LeftAlone(layer, why))
            else:
                usual = max(self.weights, self.ends) if node in ends(nodes) else self.weights
                widths[node] = named[-1] if named else usual
        return widths, left

    def _wide(self, layers: Iterable[fx.Node]) -> list[fx.Node]:
        """The layers whose results get 16 bits."""
        return [
            node
            for node in layers
            if any(is_in(str(node.meta["layer"]), name) for name in self.int16)
        ]

    def _weight(self, network: Network, node: fx.Node, bits: int) -> dict[str, Any]:
        weight = network.tensor(Layer(node).weight_name).cpu()
        low, high = weight_ends(bits)
        group = self.group if node.target not in CONVOLUTIONS else None
        if group is not None and weight[0].numel() % group:
            group = None
        if self.scales == "tensor":
            scales = weight_scales(weight.reshape(1, -1), bits).expand(len(weight))
        else:
            scales = weight_scales(weight, bits, group)
        return {"scales": scales.tolist(), "low": low, "high": high}

    def _summary(self, widths: Mapping[fx.Node, int], activations: Mapping[str, Any]) -> str:
        summary = f"quantizes the weights of {with_bits('layer', list(widths.values()))}"
        if not activations:
            return f"{summary}; activations stay in float"
        bits = [(qparams["high"] - qparams["low"]).bit_length() for qparams in activations.values()]
        return f"{summary} and {with_bits('activation', bits)}"
