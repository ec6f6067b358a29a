"""Share: give the weights of a layer a few values, which a codebook holds."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, fx

from penjing.arith.codebooks import assigned_in_turn, code_bits, k_means, nearest
from penjing.arith.least_squares import NormalEquations
from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network, carry_out
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.held import MOST_VALUES, held
from penjing.network.analysis.rows import rows_read, why_not_solved
from penjing.network.graph.layers import Layer
from penjing.network.graph.qparams import own_bias
from penjing.passes.conditions import Condition
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.passes.structure.sparse.weights import Choice, own_weights
from penjing.tasks.task import Task

SCOPES = ("layer", "channel")
ASSIGNMENTS = ("nearest", "rate")
PASSES_OVER = 2  # over a layer with "rate": the bits of the second follow from the first


@dataclass(frozen=True)
class Share(InTurn):
    """Let the weights of each layer share a few values.

    K-means finds the values v_K, from evenly spaced ones on, and each weight w_OI.. becomes one of
    them. The zeros that `Sparsify` made stay zero, and zero is then one of the values. Equal
    weights stay equal in every later pass: `Tune` trains the shared values, with the mean of their
    members' gradients, and `Compensate`, `Gptq` and `Reconstruct` leave the layers alone.

    With the assignment "nearest", each weight takes the nearest value, and no data is needed. With
    "rate", the weights of a row are assigned one after the other at the least

        (w - v)^2 / [A^-1]_jj + rate u bits(v)

    A is the second moment of the layer's inputs, or their covariance if a bias takes the mean
    error. bits(v) is -log2 of how often v occurs. u is the mean of the first term over the nearest
    values, so a bit may cost `rate` times the error that rounding to the nearest makes anyway. The
    error that remains is pushed onto the weights that are still to come. If `rate` is above 0, zero
    is always one of the values.

    Sharing pays where the bytes of the file matter: the ONNX file stores the codes in 1 to 8 bits
    and a codebook, and looks the weights up when it is loaded, so it isn't faster. A quantized
    network gains nothing before its integers are coded.

    Attributes:
        values: the largest number of distinct values, zero included, 2 to 256.
        per: `"layer"`, one codebook for each layer, or `"channel"`, one for each output channel.
        assignment: `"nearest"` or `"rate"`.
        rate: for "rate", what a bit is worth, 0 or more. 0 looks at the error alone.
        samples: for "rate", the number of training samples, 2 or more. Fewer are used if their
            activations wouldn't fit into memory.
        damping: for "rate", what is added to the diagonal of A, as a share of its mean, in (0, 1).
        layers: names of layers, or prefixes of names, to take; all layers if there are none.
        skip: names of layers, or prefixes of names, to leave alone.

    Raises:
        InputError: an option is out of range, `layers` or `skip` names an unknown layer, or
            `layers` one that can't be shared.

    Source: S. Han, H. Mao, W. Dally, "Deep Compression: Compressing Deep Neural Networks with
    Pruning, Trained Quantization and Huffman Coding", 2016; S. Wiedemann et al., "DeepCABAC: A
    Universal Compression Algorithm for Deep Neural Networks", 2020 (rate); E. Frantar et al.,
    "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", 2023 (the
    error moves on).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> share = penjing.passes.Share(values=8)
    >>> print(share.plan(network, task).summary)
    shares 8 values in each of 2 layers
    >>> shared = share(network, task)
    >>> len(shared.get_parameter("0.weight").unique())
    8
    """

    values: int = 16
    per: Literal["layer", "channel"] = "layer"
    assignment: Literal["nearest", "rate"] = "nearest"
    rate: float = 0.5
    samples: int = 512
    damping: float = 0.01
    layers: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.SHARED})
    doing: ClassVar[str] = "sharing values in"

    def __post_init__(self) -> None:
        whole = isinstance(self.values, int) and not isinstance(self.values, bool)
        if not whole or not 2 <= self.values <= MOST_VALUES:
            raise InputError(f"values must be 2 to {MOST_VALUES}; found {self.values}")
        for name, allowed in (("per", SCOPES), ("assignment", ASSIGNMENTS)):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}"
                )
        if not (math.isfinite(self.rate) and self.rate >= 0):
            raise InputError(f"rate must be 0 or more; found {self.rate}")
        if self.samples < 2 or not 0 < self.damping < 1:
            raise InputError(
                f"samples must be 2 or more and damping in (0, 1); found {self.samples} and "
                f"{self.damping}"
            )
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def requires(self) -> frozenset[Condition]:
        """No rounding yet, and samples for "rate"."""
        calibration = {Condition.CALIBRATION} if self.assignment == "rate" else set()
        return frozenset({Condition.FLOAT, *calibration})

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """List the layers; the values themselves are found while the plan is carried out."""
        choice = self._choice(network)
        names = dict.fromkeys(choice.layers, "values")
        where = "each output channel of " if self.per == "channel" else "each of "
        summary = f"shares {self.values} values in {where}{counted(len(names), 'layer')}"
        parts = [(node.name,) for node in choice.nodes] if self.assignment == "rate" else []
        if parts:
            summary += f", {self.on_samples(network)}"
        edits = [{"edit": "hold", "tensors": names}] if names else []
        return self._plan(edits, summary, choice.left, parts=parts)

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Share values on a copy: layer by layer on its inputs for "rate", else at once."""
        if self.assignment == "rate":
            return super().apply(network, plan, task, progress)
        new = copy.deepcopy(network).eval()
        tensors = plan.edits[0]["tensors"] if plan.edits else {}
        with torch.no_grad():
            for name in tensors:
                weight = new.get_parameter(name)
                rows = [_to_nearest(row, self._values(row)) for row in self._rows(weight)]
                weight.copy_(torch.cat(rows).view_as(weight))
        return carry_out(new, plan)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Share values in one layer, given its inputs."""
        marks = held(network)

        def work(layer: fx.Node) -> fx.Node:
            with torch.no_grad():
                self._assign(student, layer, Layer(layer).weight_name in marks)
            return layer

        return work

    def _choice(self, network: Network) -> Choice:
        marks = held(network)

        def why(node: fx.Node, at_end: bool) -> str:
            name = Layer(node).weight_name
            weight = network.tensor(name)
            if marks.get(name) == "values" and self._count(weight) <= self.values:
                return "it has that few values already"
            wanted = self.assignment == "rate"
            return why_not_solved(node, weight[0].numel()) if wanted else ""

        return own_weights(network, self.layers, self.skip, why)

    def _count(self, weight: Tensor) -> int:
        """The distinct values of the codebook that has most of them."""
        return max(len(_distinct(row)) for row in self._rows(weight.detach()))

    def _rows(self, weight: Tensor) -> list[Tensor]:
        """What has a codebook of its own: each row, or the whole weight as one."""
        rows = weight.flatten(1)
        return list(rows) if self.per == "channel" else [rows.flatten()]

    def _values(self, numbers: Tensor, zero: bool = False) -> Tensor:
        """The values for some numbers, ascending; exactly zero if a number is, or if `zero`."""
        others = numbers[numbers != 0]
        if len(others) == len(numbers) and not zero:
            return k_means(numbers, self.values)
        if not len(others):
            return numbers.new_zeros(1)
        return _distinct(torch.cat([numbers.new_zeros(1), k_means(others, self.values - 1)]))

    def _assign(self, student: ActivationCache, layer: fx.Node, sparse: bool) -> None:
        """Share values in one layer by error and rate, in place."""
        network = student.network
        weight = network.tensor(Layer(layer).weight_name)
        groups, bias = Layer(layer).groups, own_bias(layer)
        systems = [NormalEquations(weight[0].numel(), 0) for _ in range(groups)]
        for x in student.value(Layer(layer).data):
            for system, part in zip(
                systems, rows_read(layer, weight, x).chunk(groups, 1), strict=True
            ):
                system.add(part, part[:, :0])
        common = None if self.per == "channel" else self._values(weight.flatten(), self.rate > 0)
        parts, shifts = [], []
        for system, old in zip(systems, weight.flatten(1).chunk(groups), strict=True):
            moments = system.xx / max(system.rows, 1)
            moments = moments if bias is None else system.covariances()[0]
            support = old != 0 if sparse else None
            parts.append(self._coded(old, self._damped(moments), support, common))
            shifts.append((old - parts[-1]).double() @ (system.x / max(system.rows, 1)))
        weight.copy_(torch.cat(parts).view_as(weight))
        if bias is not None:
            offset = network.tensor(str(bias.target))
            offset += torch.cat(shifts).to(offset.dtype)

    def _damped(self, moments: Tensor) -> Tensor:
        size = moments.diagonal().mean().clamp_min(1e-30)
        return moments + self.damping * size * torch.eye(len(moments), dtype=moments.dtype)

    def _coded(
        self, old: Tensor, moments: Tensor, support: Tensor | None, common: Tensor | None
    ) -> Tensor:
        """The rows of a group, with values from `common` or from codebooks of their own."""
        rows = [self._values(row, self.rate > 0) if common is None else common for row in old]
        most = max(map(len, rows))
        table = torch.stack([torch.cat([row, row[-1:].expand(most - len(row))]) for row in rows])
        sizes = torch.linalg.inv(moments).diagonal()
        near = torch.stack([nearest(row, values) for row, values in zip(old, table, strict=True)])
        error = (old - table.gather(1, near)).double().square() / sizes
        price = self.rate * float(error.mean())
        codes, bits = near, code_bits(near, most)
        for _ in range(PASSES_OVER):
            codes = assigned_in_turn(old, moments, table, bits, price, support)
            bits = code_bits(codes[codes >= 0], most)
        new = table.gather(1, codes.clamp_min(0))
        return new if support is None else new * support


def _to_nearest(numbers: Tensor, values: Tensor) -> Tensor:
    """The nearest values; zero stays zero, and no other number becomes zero beside zeros."""
    if not bool((numbers == 0).any()) or len(values) == 1:
        return values[nearest(numbers, values)]
    others = values[values != 0]
    return torch.where(numbers == 0, 0.0, others[nearest(numbers, others)])


def _distinct(numbers: Tensor) -> Tensor:
    values: Tensor = torch.unique(numbers)
    return values
