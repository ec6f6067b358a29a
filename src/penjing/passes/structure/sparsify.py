"""Sparsify: set single weights to zero, those whose loss costs least."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.measure import costs
from penjing.network import Network, carry_out
from penjing.network.analysis.held import STAY_EQUAL, held
from penjing.network.analysis.rows import why_not_solved
from penjing.network.graph.layers import Layer
from penjing.passes.conditions import Condition
from penjing.passes.contract import Pass, Progress
from penjing.passes.counted import counted
from penjing.passes.structure.channels.importance import gradients_of
from penjing.passes.structure.sparse.patterns import Pattern, masks
from penjing.passes.structure.sparse.surgeon import Surgery, curvatures
from penjing.passes.structure.sparse.weights import Choice, own_weights
from penjing.tasks.data import calibration
from penjing.tasks.task import Task

Criterion = Literal["l1", "l2", "l1+l2", "taylor", "obs"]
CRITERIA: tuple[str, ...] = get_args(Criterion)
SCOPES = ("global", "layer")
MOST_STEPS = 16


@dataclass(frozen=True)
class Sparsify(Pass):
    """Set single weights of convolutions and linear layers to zero.

    Each weight w_OI.. gets a score, and those with the lowest scores become zero. They stay zero in
    every later pass: `Tune` doesn't train them, `Compensate` solves for the others, and `Quantize`,
    `Gptq` and `Reconstruct` round them to zero. The criteria are

        l1, l2, l1+l2   |w|, w^2, |w| + w^2
        taylor          (w g)^2, with the mean gradient g of the loss
        obs             g_o w^2 / (2 [A^-1]_pp), optimal brain surgeon

    The first three give one and the same mask for single weights, since each grows with |w|; they
    differ for blocks. For "obs", A is the covariance of the layer's inputs and g_o the mean squared
    gradient of the network's outputs, combined at random, with respect to output channel o. The
    weights that stay are solved by least squares, w_S = A_SS^-1 (A w)_S, so that they take over as
    much as they can. On ResNet-20 without training, "obs" keeps far more accuracy than the others
    from 70 % zeros on. It needs unlabelled samples; "taylor" needs labels.

    The file becomes smaller once it is coded. Most runtimes compute with zeros as with any other
    number, so the network isn't faster. Exceptions are Ethos-U, whose compiler packs the weights,
    and OpenVINO's option for sparse weights. Follow the pass with `Compensate`, `Tune` or both,
    which measure the statistics of batch norms again.

    Attributes:
        sparsity: the share of the weights that become zero, in [0, 1); 0.5 if it isn't given. With
            a pattern N:M it is 1 - N / M.
        criterion: `"l1"`, `"l2"`, `"l1+l2"`, `"taylor"` or `"obs"`.
        scope: `"global"` ranks the weights of all layers together, and leaves at least a quarter of
            1 - sparsity in each of them. `"layer"` removes the same share of every layer.
        pattern: None for single weights; `"N:M"`, such as `"2:4"`, for at most N nonzero weights
            among M adjacent inputs; `"RxC"`, such as `"1x4"`, for blocks of R outputs and C inputs.
            In a convolution it holds for each tap.
        steps: the number of steps in which "taylor" and "obs" remove weights, 1 to 16. The scores
            are estimated anew for each. After k of n steps, sparsity (1 - (1 - k / n)^3) is gone.
        ends: the share of `sparsity` that the first and the last layer get, in [0, 1]. With a
            pattern N:M they are left alone unless it is 1.
        layers: names of layers, or prefixes of names, to take; all layers if there are none.
        skip: names of layers, or prefixes of names, to leave alone.
        samples: the number of training samples for "taylor" and "obs", 2 or more.
        damping: for "obs", what is added to the diagonal of A, as a share of its mean, in (0, 1).

    Raises:
        InputError: an option is out of range, `layers` or `skip` names an unknown layer, `layers`
            names one that can't be sparse, or the pattern fits no layer.

    Source: S. Han, J. Pool, J. Tran, W. Dally, "Learning both Weights and Connections for Efficient
    Neural Networks", 2015; P. Molchanov, A. Mallya, S. Tyree, I. Frosio, J. Kautz, "Importance
    Estimation for Neural Network Pruning", 2019 (taylor); B. Hassibi, D. Stork, "Second Order
    Derivatives for Network Pruning: Optimal Brain Surgeon", 1993; E. Frantar, D. Alistarh, "Optimal
    Brain Compression", 2022; M. Zhu, S. Gupta, "To Prune, or Not to Prune", 2017 (the steps).

    >>> import penjing, torch
    >>> from torch import nn
    >>> _ = torch.manual_seed(0)
    >>> model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(model, data.x[:2], train=data, test=data)
    >>> network = penjing.capture(model, task.example)
    >>> sparsify = penjing.passes.Sparsify(0.75, criterion="l1", ends=1)
    >>> print(sparsify.plan(network, task).summary)
    sets 144 of 192 weights in 2 layers to zero
    >>> sparse = sparsify(network, task)
    >>> sum(int((p == 0).sum()) for p in sparse.parameters())
    144
    """

    sparsity: float | None = None
    criterion: Criterion = "obs"
    scope: Literal["global", "layer"] = "global"
    pattern: str | None = None
    steps: int = 4
    ends: float = 0.5
    layers: tuple[str, ...] = ()
    skip: tuple[str, ...] = ()
    samples: int = 512
    damping: float = 0.01

    def __post_init__(self) -> None:
        _require_range("sparsity", self._share(), 0, 1, "[0, 1)")
        _require_range("ends", self.ends, 0, math.nextafter(1, 2), "[0, 1]")
        _require_range("damping", self.damping, 1e-12, 1, "(0, 1)")
        for name, allowed in (("criterion", CRITERIA), ("scope", SCOPES)):
            if getattr(self, name) not in allowed:
                raise InputError(
                    f"{name} must be one of {', '.join(allowed)}; found {getattr(self, name)!r}"
                )
        if not 1 <= self.steps <= MOST_STEPS or self.samples < 2:
            raise InputError(
                f"steps must be 1 to {MOST_STEPS} and samples 2 or more; found {self.steps} and "
                f"{self.samples}"
            )
        own = Pattern.read(self.pattern).share
        if own is not None and self.sparsity not in (None, own):
            raise InputError(
                f"pattern {self.pattern!r} sets the sparsity to {own}; found sparsity="
                f"{self.sparsity}; leave it out"
            )
        object.__setattr__(self, "layers", tuple(self.layers))
        object.__setattr__(self, "skip", tuple(self.skip))

    @property
    def requires(self) -> frozenset[Condition]:
        """No rounding yet; samples for "obs", and labels and gradients for "taylor"."""
        needs = {Condition.FLOAT}
        if self.criterion in ("taylor", "obs"):
            needs.add(Condition.CALIBRATION)
        if self.criterion == "taylor":
            needs |= {Condition.LABELS, Condition.GRADIENTS}
        return frozenset(needs)

    @property
    def provides(self) -> frozenset[Condition]:
        """A reduced structure, unless nothing goes."""
        return frozenset({Condition.REDUCED} if self._share() else ())

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Choose the layers, and, unless the criterion is "obs", the weights that go."""
        choice = self._choice(network)
        if not self._share():
            nothing = LeftAlone("the network", "a sparsity of 0 sets nothing to zero")
            return self._plan(left_alone=(nothing, *choice.left))
        shares = self._shares(choice)
        by_size = self.criterion == "obs"  # then only to see how many go
        scores = _magnitudes(network, choice) if by_size else self._scores(network, task, choice)
        kept = masks(scores, shares, Pattern.read(self.pattern), self.scope == "global")
        fresh = {
            name: int(((network.tensor(name) != 0).cpu() & ~mask).sum())
            for name, mask in kept.items()
        }
        anywhere = by_size and self.scope == "global" and any(fresh.values())
        names = {name: "zeros" for name, count in fresh.items() if count or anywhere}
        left = [
            LeftAlone(choice.layers[name], "it has that many zeros already")
            for name in kept
            if name not in names
        ]
        gone = sum(int((~mask).sum()) for mask in kept.values())
        every = sum(mask.numel() for mask in kept.values())
        summary = f"sets {gone} of {every} weights in {counted(len(kept), 'layer')} to zero"
        edits = [{"edit": "hold", "tensors": names}] if names else []
        left = [*choice.left, *left]
        return self._plan(edits, summary, left, self._notes(kept, choice) if names else ())

    def apply(
        self, network: Network, plan: Plan, task: Task, progress: Progress | None = None
    ) -> Network:
        """Remove the weights step by step on a copy, then carry the plan out on it."""
        new = copy.deepcopy(network).eval()
        if plan.edits:
            choice = self._choice(new)
            remove = self._operate if self.criterion == "obs" else self._remove
            remove(new, task, choice, progress)
        return carry_out(new, plan)

    def _share(self) -> float:
        own = Pattern.read(self.pattern).share
        return own if own is not None else 0.5 if self.sparsity is None else self.sparsity

    def _choice(self, network: Network) -> Choice:
        """The layers whose weights are ranked."""
        pattern, marks = Pattern.read(self.pattern), held(network)

        def why(node: fx.Node, at_end: bool) -> str:
            weight = network.tensor(Layer(node).weight_name)
            if at_end and (not self.ends or (pattern.stay is not None and self.ends < 1)):
                return "it is the first or the last layer"
            if marks.get(Layer(node).weight_name) == "values" and self.criterion == "obs":
                return STAY_EQUAL
            unsolved = why_not_solved(node, weight[0].numel()) if self.criterion == "obs" else ""
            return pattern.misfit(weight) or unsolved

        choice = own_weights(network, self.layers, self.skip, why)
        if self.pattern is not None and not choice.layers:
            reasons = "; ".join(f"{left.what}: {left.why}" for left in choice.left[:3])
            raise InputError(f"pattern {self.pattern!r} fits no layer of the network; {reasons}")
        return choice

    def _shares(self, choice: Choice) -> dict[str, float]:
        share = self._share()
        return {name: share * (self.ends if name in choice.ends else 1) for name in choice.layers}

    def _scores(self, network: Network, task: Task, choice: Choice) -> dict[str, Tensor]:
        """The scores of all criteria but "obs"; -1 where a weight is zero already."""
        if self.criterion == "taylor":
            gradients = gradients_of(network, task, self.samples, squared=False)
            weights = {name: network.tensor(name).detach() for name in choice.layers}
            return {
                name: torch.where(weight == 0, -1.0, (weight * gradients[name]).double().square())
                .detach()
                .cpu()
                for name, weight in weights.items()
            }
        return _magnitudes(network, choice, self.criterion)

    def _remove(
        self, network: Network, task: Task, choice: Choice, progress: Progress | None
    ) -> None:
        """Set weights to zero, in place; the others stay as they are."""
        steps = self.steps if self.criterion == "taylor" else 1
        shares, pattern = self._shares(choice), Pattern.read(self.pattern)
        for step in range(1, steps + 1):
            if progress is not None:
                progress(f"removing weights, step {step} of {steps}", (step - 1) / steps)
            scores = self._scores(network, task, choice)
            kept = masks(scores, shares, pattern, self.scope == "global", _ramp(step / steps))
            with torch.no_grad():
                for name, mask in kept.items():
                    weight = network.tensor(name)
                    weight.masked_fill_(~mask.to(weight.device), 0)

    def _operate(
        self, network: Network, task: Task, choice: Choice, progress: Progress | None
    ) -> None:
        """Set weights to zero and solve for the others, in place."""
        shares, pattern = self._shares(choice), Pattern.read(self.pattern)
        batches = list(calibration(task, costs.samples_in_memory(network, self.samples)))
        nodes = {Layer(node).weight_name: node for node in choice.nodes}
        measured = curvatures(network, batches, choice.nodes)
        layers = {
            name: Surgery(network, node, measured[node], self.damping)
            for name, node in nodes.items()
        }
        for step in range(1, self.steps + 1):
            if progress is not None:
                progress(f"removing weights, step {step} of {self.steps}", (step - 1) / self.steps)
            if step > 1:
                measured = curvatures(network, batches, choice.nodes)
            scores = {
                name: layer.scores(measured[nodes[name]].gains) for name, layer in layers.items()
            }
            done = _ramp(step / self.steps)
            kept = masks(scores, shares, pattern, self.scope == "global", done)
            for name, layer in layers.items():
                layer.keep(kept[name], again=step < self.steps)

    def _notes(self, kept: Mapping[str, Tensor], choice: Choice) -> list[str]:
        """The weights that stay in each layer, and an estimate of their size."""
        lots = [(int(mask.sum()), mask.numel()) for mask in kept.values()]
        if self.criterion == "obs" and self.scope == "global" and self.pattern is None:
            lots = [(sum(stay for stay, _ in lots), sum(every for _, every in lots))]
            counts = []
        else:
            counts = [
                f"{choice.layers[name]}: {int(mask.sum())} of {mask.numel()} weights stay"
                for name, mask in kept.items()
            ]
        bits = sum(every * _entropy(stay / every) + 32 * stay for stay, every in lots)
        dense = 4 * sum(every for _, every in lots)
        return [
            *counts,
            f"estimate: coded, these weights take {math.ceil(bits / 8)} bytes in place of {dense} "
            "(the entropy of the places, and 32 bits for each weight that stays)",
            "smaller, not faster: most runtimes compute with zeros as with other numbers; the "
            "compiler of Ethos-U packs them",
        ]


def _require_range(name: str, value: float, low: float, high: float, words: str) -> None:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if not number or not low <= value < high:
        raise InputError(f"{name} must be in {words}; found {value}")


def _magnitudes(network: Network, choice: Choice, criterion: str = "l1") -> dict[str, Tensor]:
    scores = {}
    for name in choice.layers:
        size = network.tensor(name).detach().abs().double().cpu()
        scores[name] = {"l1": size, "l2": size.square()}.get(criterion, size + size.square())
    return scores


def _ramp(done: float) -> float:
    """How much of the sparsity is reached after a share of the steps."""
    return 1 - (1 - done) ** 3


def _entropy(share: float) -> float:
    """The entropy of a yes or no of that probability, in bits."""
    return -sum(part * math.log2(part) for part in (share, 1 - share) if part > 0)
