"""Factorize: write layers as two or three smaller ones of low rank."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, cast

import torch
from torch import Tensor, fx

from penjing.arith.kernel_factors import SCHEMES, why_not
from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.measure.costs import costs
from penjing.measure.latency_table import FUSED, LatencyTable
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.rows import why_not_solved
from penjing.network.edits.factorize import factor_nodes, misfit_of, why_not_factorized
from penjing.network.graph.layers import LAYERS, TRANSPOSED, Layer, layers_of
from penjing.network.graph.shapes import shapes
from penjing.passes.conditions import Condition
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.passes.names import is_in, require_names
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.channels.widths import Widths
from penjing.passes.structure.ranks.choices import (
    Choice,
    Cost,
    Sizes,
    as_lists,
    by_budget,
    by_energy,
    choices,
)
from penjing.passes.structure.ranks.fit import fit, weight_and_moment
from penjing.tasks.data import calibration
from penjing.tasks.task import Task

BASES = ("inputs", "outputs", "weights")
CHEAPER = {
    "macs": "have fewer MACs", "params": "have fewer parameters", "latency": "are faster"
}  # fmt: skip
ENERGY = 0.9


@dataclass(frozen=True)
class Factorize(InTurn):
    """Write convolutions and linear layers as two or three smaller layers of low rank.

    A layer with the weight w_OI and the inputs x_I becomes factors whose product w' has low rank.
    For a convolution x is a window, and I = C k k. The output changes least if they solve

        min over w' of rank R:  E|w x - w' x|^2 = |(w - w') S^(1/2)|^2,    S_II = E[x x^T]

    Four schemes write w': `"matrices"` (two linear layers, or two 1x1 convolutions), `"channel"`
    (k x k to R channels, then 1x1), `"spatial"` (k x 1 to R channels, then 1 x k), and `"tucker"`
    (1x1 to R channels, k x k to R' channels, then 1x1). If a bias or a batch norm can take the
    mean, x is centred. The errors of a channel count as much as the batch norm behind it scales
    them. The pass goes through the layers in the order of the graph: each is fitted to the outputs
    of the input network, on the inputs that it receives from the factors before it.

    A layer is taken only where its factors cost less. Fewer MACs need not be less time: two layers
    move more data than one, so it pays on wide layers first. With a table of measured times
    (`penjing.tools.alternatives.alternatives_table`), a layer is taken only where its factors were
    also more than 1 % faster, and without a budget the fastest are taken. Follow it with
    `Compensate`, which solves the last factor of each layer again, and with `Tune`.

    Attributes:
        energy: without `budget` and `ranks`, the share of E|w x|^2 that each layer keeps at least,
            in (0, 1]. The cheapest factors that keep it are taken.
        budget: a `Budget`, or a mapping of its fields, that says which share of the network's MACs,
            parameters or latency may remain. The energy lost, as a share of each layer's, is least
            in sum.
        ranks: by layer, its rank, or the two ranks of "tucker". Other layers stay as they are.
        scheme: `"auto"` chooses for each layer. Otherwise one of the four for all kernels larger
            than 1; linear layers and 1x1 convolutions always become two matrices.
        basis: `"inputs"` measures the error on the inputs, as above. `"outputs"` keeps the
            principal components of the outputs instead, for "channel" and "matrices" only.
            `"weights"` needs no data: S is the identity.
        multiple: ranks are multiples of this, 1 or more. Half a target's `channel_multiple` is a
            good value.
        skip: names of layers, or prefixes of them, to leave alone.
        samples: the number of training samples, 2 or more.
        table: measured times of layers and of their factors. A budget of latency has its own.

    Raises:
        InputError: an option is out of range, `skip` or `ranks` name an unknown layer, a rank is
            too large, the budget can't be reached, or the table is for another network.

    Source: X. Zhang, J. Zou, K. He, J. Sun, "Accelerating Very Deep Convolutional Networks for
    Classification and Detection", 2015 (outputs, and inputs that are approximated already); M.
    Jaderberg, A. Vedaldi, A. Zisserman, "Speeding up Convolutional Neural Networks with Low Rank
    Expansions", 2014 (spatial); Y.-D. Kim et al., "Compression of Deep Convolutional Neural
    Networks for Fast and Low Power Mobile Applications", 2016 (Tucker-2).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))
    >>> x = torch.randn(64, 4) @ torch.randn(4, 32)  # inputs of rank 4
    >>> data = penjing.Arrays(x, torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> factorize = penjing.passes.Factorize(0.999, samples=64)
    >>> print(factorize.plan(network, task).edits[0]["layers"])
    {'linear': {'scheme': 'matrices', 'ranks': [4]}}
    >>> smaller = factorize(network, task)
    >>> (smaller(data.x) - network(data.x)).abs().max().item() < 1e-2
    True
    """

    energy: float = ENERGY
    budget: Budget | None = None
    ranks: Mapping[str, int | Sequence[int]] = field(default_factory=dict)
    scheme: str = "auto"
    basis: str = "inputs"
    multiple: int = 1
    skip: tuple[str, ...] = ()
    samples: int = 512
    table: LatencyTable | None = None

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REDUCED})
    doing: ClassVar[str] = "factorizing"

    def __post_init__(self) -> None:
        object.__setattr__(self, "skip", tuple(self.skip))
        object.__setattr__(self, "budget", Budget.read(self.budget, Widths()))
        object.__setattr__(self, "ranks", as_lists(self.ranks))
        if not 0 < self.energy <= 1:
            raise InputError(f"energy must be in (0, 1], as the share to keep; found {self.energy}")
        if (self.energy != ENERGY) + (self.budget is not None) + bool(self.ranks) > 1:
            raise InputError("energy, budget and ranks each say how much to keep; give only one")
        object.__setattr__(self, "table", LatencyTable.read(self.table))
        if self.table is not None and (self.ranks or (self.budget and self.budget.table)):
            why = "ranks leave nothing to choose" if self.ranks else "the budget has its own"
            raise InputError(f"table has the times of factors, but {why}; give only one of them")
        times = self._times
        if times and all(scheme == FUSED for _, scheme, _, _ in times.alternatives):
            raise InputError(
                "the latency table has no times of factors; make one with "
                "penjing.tools.alternatives.alternatives_table"
            )
        if self.scheme not in ("auto", *SCHEMES):
            raise InputError(
                f"scheme must be one of auto, {', '.join(SCHEMES)}; found {self.scheme!r}"
            )
        if self.basis not in BASES:
            raise InputError(f"basis must be one of {', '.join(BASES)}; found {self.basis!r}")
        if self.basis == "outputs" and self.scheme in ("spatial", "tucker"):
            raise InputError(
                f"the scheme {self.scheme!r} has no principal components of outputs; use the basis "
                "'inputs', or the scheme 'channel'"
            )
        if self.multiple < 1 or self.samples < 2:
            raise InputError(
                f"multiple must be 1 or more and samples 2 or more; found {self.multiple} and "
                f"{self.samples}"
            )

    @property
    def requires(self) -> frozenset[Condition]:
        """A network in floating point, and calibration data unless the basis is "weights"."""
        data = frozenset() if self.basis == "weights" else frozenset({Condition.CALIBRATION})
        return frozenset({Condition.FLOAT}) | data

    @property
    def _times(self) -> LatencyTable | None:
        """The measured times, the budget's or those given without one."""
        return self.table or (self.budget.table if self.budget else None)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Find what each rank of each layer keeps and costs, and choose."""
        if self._times is not None:
            self._times.require_for(network)
        layers, left = self._layers(network)
        if self.ranks:
            taken = self._given(network, layers)
            return self._planned(network, taken, left, examined=False)
        falls: list[str] = [self.budget.what] if self.budget else []
        if self._times is not None:  # a table has noise: more MACs that seem faster aren't believed
            falls += ["latency", "macs"]
        falls = list(dict.fromkeys(falls or ["macs"]))
        options: dict[str, list[Choice]] = {}
        wholes: dict[str, Cost] = {}
        for name, sizes, weight, moment in self._examined(network, task, layers):
            progress(f"examining {_label(layers[name])}", len(options) / len(layers))
            wholes[name] = sizes.whole()
            schemes = self._schemes(sizes.weight)
            options[name] = choices(sizes, weight, moment, schemes, self.multiple, falls)
        chosen = self._chosen(network, options, wholes)
        cheaper = " and ".join(CHEAPER[cost] for cost in falls)
        enough = "that keep enough " if self.budget is None else ""
        whys = (f"no factors {enough}{cheaper}", "the budget is kept without it")
        left += [
            LeftAlone(_label(layers[name]), whys[self.budget is not None and bool(mine)])
            for name, mine in options.items()
            if not chosen[name]
        ]
        taken = {name: choice for name, choice in chosen.items() if choice}
        return self._planned(network, taken, left)

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Fit the factors of one layer, given the inputs that it has now."""
        before = copy.deepcopy(network).eval()
        original = ActivationCache(before, student.batches)
        draw = torch.Generator().manual_seed(0)

        def work(source: fx.Node, last: fx.Node) -> fx.Node:
            nodes = self.known(factor_nodes(source, last), last)
            with torch.no_grad():
                fit(nodes, original, student, self.basis == "outputs", draw)
            original.forget_before(original.nodes[last.name])
            return nodes[0]

        return work

    def _layers(self, network: Network) -> tuple[dict[str, fx.Node], list[LeftAlone]]:
        """The layers that may become factors, by node name, and the others with the reasons."""
        nodes = [node for node in network.calls() if node.target in LAYERS | TRANSPOSED.keys()]
        labels = [_label(node) for node in nodes]
        require_names("skip", self.skip, labels)
        require_names("ranks", self.ranks, labels)
        layers, left = {}, []
        for node in nodes:
            why = why_not_factorized(network, node)
            if not why and any(is_in(_label(node), name) for name in self.skip):
                why = "it is listed in skip"
            if not why and self.basis != "weights":
                unknowns = network.tensor(Layer(node).weight_name)[0].numel()
                why = why_not_solved(node, unknowns)
            if not why and not self.ranks:
                shape = network.tensor(Layer(node).weight_name).shape
                why = min((why_not(scheme, shape) for scheme in self._schemes(shape)), key=len)
            if why:
                left.append(LeftAlone(_label(node), why))
            else:
                layers[node.name] = node
        return layers, left

    def _given(self, network: Network, layers: Mapping[str, fx.Node]) -> dict[str, Choice]:
        """The factors that `ranks` asks for."""
        by_label = {_label(node): node for node in layers.values()}
        known = shapes(network)
        taken = {}
        for label, ranks in cast(Mapping[str, Sequence[int]], self.ranks).items():
            if label not in by_label:
                raise InputError(f"ranks names {label!r}, which can't be written as factors")
            node = by_label[label]
            sizes = _sizes(network, node, known, self._times)
            scheme = self._schemes(sizes.weight)[0]
            if len(ranks) == 2 and self.scheme == "auto":
                scheme = "tucker"
            if words := misfit_of(network, node, scheme, ranks):
                raise InputError(f"ranks of {label}: {words}")
            taken[node.name] = Choice(scheme, tuple(ranks), sizes.cost(scheme, ranks), 0.0)
        return taken

    def _schemes(self, shape: Sequence[int]) -> tuple[str, ...]:
        """The schemes that may be used for a weight."""
        if all(size == 1 for size in shape[2:]):
            return ("matrices",)
        if self.scheme != "auto":
            return (self.scheme,)
        return ("channel",) if self.basis == "outputs" else ("channel", "spatial", "tucker")

    def _examined(
        self, network: Network, task: Task, layers: Mapping[str, fx.Node]
    ) -> Iterator[tuple[str, Sizes, Tensor, Tensor | None]]:
        """Of each layer its name, its sizes, its weight and the second moment of its inputs."""
        known = shapes(network)
        if self.basis == "weights":
            for name, node in layers.items():
                weight = network.tensor(Layer(node).weight_name).detach().double().cpu()
                yield name, _sizes(network, node, known, self._times), weight, None
            return
        batches = list(calibration(task, self.in_memory(network)))
        cache = ActivationCache(copy.deepcopy(network).eval(), batches)
        draw = torch.Generator().manual_seed(0)
        for name, node in layers.items():
            same = cache.nodes[name]
            with torch.no_grad():
                weight, moment = weight_and_moment(cache, same, draw)
            cache.forget_before(same)
            yield name, _sizes(network, node, known, self._times), weight, moment

    def _chosen(
        self,
        network: Network,
        options: Mapping[str, Sequence[Choice]],
        wholes: Mapping[str, Cost],
    ) -> dict[str, Choice | None]:
        if self.budget is None:
            return {name: by_energy(mine, self.energy) for name, mine in options.items()}
        what, share = self.budget.what, self.budget.share
        whole = _whole(network, self._times).of(what)
        rest = whole - sum(cost.of(what) for cost in wholes.values())
        cheapest = [
            min([wholes[name].of(what), *(choice.cost.of(what) for choice in mine)])
            for name, mine in options.items()
        ]
        if rest + sum(cheapest) > share * whole * (1 + 1e-9):
            raise InputError(
                f"a budget of {share:.1%} of the {what} can't be reached: "
                f"{(rest + sum(cheapest)) / whole:.1%} remain with the smallest ranks of all "
                f"{len(options)} layers that can be factorized; skip fewer layers, or choose a "
                "smaller multiple"
            )
        return by_budget(options, wholes, share * whole - rest, what)

    def _planned(
        self,
        network: Network,
        taken: Mapping[str, Choice],
        left: Sequence[LeftAlone],
        examined: bool = True,
    ) -> Plan:
        """The plan that takes these choices; `examined` says whether it is known what they keep."""
        nodes = {node.name: node for node in layers_of(network)}
        known, whole = shapes(network), _whole(network, self._times)
        macs, params, ms, notes = whole.macs, whole.params, whole.ms, []
        for name, choice in taken.items():
            before = _sizes(network, nodes[name], known, self._times).whole()
            macs += choice.cost.macs - before.macs
            params += choice.cost.params - before.params
            ms += choice.cost.ms - before.ms
            ranks = " and ".join(map(str, choice.ranks))
            if self._times is not None:
                ranks += f", {choice.cost.ms:.4g} of {before.ms:.4g} ms"
            energy = f", keeps {choice.kept:.1%} of the energy" if examined else ""
            notes.append(
                f"{_label(nodes[name])}: {choice.scheme}, rank {ranks}, {choice.cost.macs:,} of "
                f"{before.macs:,} MACs{energy}"
            )
        summary = (
            f"factorizes {len(taken)} of {counted(len(nodes), 'layer')}: {whole.macs:,} to "
            f"{macs:,} MACs, {whole.params:,} to {params:,} parameters"
        )
        if self._times is not None:
            summary += f", {whole.ms:.4g} to {ms:.4g} ms by the latency table"
        shares = [choice.kept for choice in taken.values() if examined]
        if shares:
            summary += (
                f"; each keeps {min(shares):.1%} or more of its energy, "
                f"{sum(shares) / len(shares):.1%} on average"
            )
        listed = {
            name: {"scheme": choice.scheme, "ranks": list(choice.ranks)}
            for name, choice in taken.items()
        }
        edits = [{"edit": "factorize", "layers": listed}] if listed else []
        parts = []
        if self.basis != "weights":
            parts = [(Layer(nodes[name]).data.name, name) for name in taken]
        return self._plan(edits, summary, left, notes, parts)


def _label(node: fx.Node) -> str:
    return str(node.meta.get("layer") or node.name)


def _whole(network: Network, table: LatencyTable | None) -> Cost:
    """The cost of a network."""
    each = costs(network)
    ms = 0.0 if table is None else sum(table.whole().values())
    return Cost(sum(layer.macs for layer in each), sum(layer.params for layer in each), ms)


def _sizes(
    network: Network, node: fx.Node, known: Mapping[fx.Node, Any], table: LatencyTable | None
) -> Sizes:
    layer = Layer(node)
    weight = tuple(network.tensor(layer.weight_name).shape)
    before, after = known[layer.data], known[node]
    if not layer.dimensions:
        positions = (math.prod(after[1:-1]),)
        return Sizes(weight, positions, positions, _label(node), table)
    before, after = before[-layer.dimensions :], after[-layer.dimensions :]
    return Sizes(weight, before, after, _label(node), table)
