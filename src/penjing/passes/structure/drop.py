"""Drop: cut out blocks that cost little loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import fx

from penjing.contract import LeftAlone, Plan
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.analysis.activation_cache import ActivationCache
from penjing.network.analysis.blocks import Block, find_blocks
from penjing.network.analysis.lineage import all_indices
from penjing.passes.conditions import Condition
from penjing.passes.contract import Progress
from penjing.passes.counted import counted
from penjing.passes.in_turn import InTurn, Work
from penjing.passes.names import is_in
from penjing.passes.structure.blocks.costs import BlockCosts
from penjing.passes.structure.channels.budget import Budget
from penjing.passes.structure.cut_losses import RIDGE, CutLosses
from penjing.passes.structure.solve import Solve
from penjing.tasks.task import Task

IMPORTANCES = ("loss", "cosine")
REPLACEMENTS = ("nothing", "linear")


@dataclass(frozen=True)
class Drop(InTurn):
    """Cut out residual branches, gates, stages and activations: the network gets less deep.

    Blocks are found from the graph: a sum can lose one of its two operands, a product its gate, a
    concatenation one of its parts, and a network what lies between two values through which
    everything passes. Activation functions go where the layers around them then are one layer with
    fewer MACs, such as the two of a transformer's MLP. Where both ends have one
    shape, nothing replaces the block. With `replace="linear"`, a linear map y = W x + b of the
    block's input takes its place, solved by least squares; blocks that change the shape can then be
    cut as well.

    Blocks go one by one, each time the one that adds the least loss for what it saves. The loss is
    measured on training samples after the layers behind the cut have been solved again for the
    outputs of the uncut network. It is measured again after every removal, in the order of the
    latest figures, until the best block is still the best (lazy evaluation). The pass itself only
    cuts: `Compensate` behind it solves all layers again, and `Tune` trains them.

    Dropping pays where the time goes with the number of layers: at batch 1 a block takes its time
    with it, in every runtime and precision. The plan says for each block what it costs and saves.

    Attributes:
        blocks: how many blocks to remove, 1 or more; at least one that could go must stay.
        budget: replaces `blocks`: a `Budget`, or a mapping of its fields, that says which share of
            the MACs, the parameters or the measured latency may remain.
        names: replaces `blocks`: the blocks to remove, by the names that the plan gives.
        importance: `"loss"`, or `"cosine"`: 1 - cos(input, output) of a block, averaged over
            samples. That takes one run of the network, and no labels.
        replace: `"nothing"` or `"linear"`.
        skip: names of blocks, or of modules that hold them, to leave alone.
        samples: the number of training samples, 2 or more. Fewer are used if their activations
            wouldn't fit into memory.
        rows: the largest number of positions that enter one linear system while losses are
            measured; 2 or more.

    Raises:
        InputError: an option is out of range, `names` or `skip` names an unknown block, no block
            would be left, or the budget can't be reached.

    Source: X. Men et al., "ShortGPT: Layers in Large Language Models are More Redundant Than You
    Expect", 2024 (the cosine); D. Shopkhoev et al., "ReplaceMe: Network Simplification via Depth
    Pruning and Transformer Block Linearization", 2025 (the linear map); J. Leskovec et al.,
    "Cost-effective Outbreak Detection in Networks", 2007 (lazy evaluation).

    >>> import penjing, torch
    >>> _ = torch.manual_seed(0)
    >>> class Residual(torch.nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.first = torch.nn.Linear(8, 16)
    ...         self.blocks = torch.nn.ModuleList(torch.nn.Linear(16, 16) for _ in range(3))
    ...         self.last = torch.nn.Linear(16, 4)
    ...     def forward(self, x):
    ...         x = self.first(x)
    ...         for block in self.blocks:
    ...             x = x + block(x).relu()
    ...         return self.last(x)
    >>> data = penjing.Arrays(torch.randn(64, 8), torch.arange(64) % 4)
    >>> task = penjing.Task(Residual(), data.x[:2], train=data, test=data)
    >>> network = penjing.capture(task.model, task.example)
    >>> drop = penjing.passes.Drop(names=("blocks.1",))
    >>> print(drop.plan(network, task).summary)
    removes 1 of 3 blocks: blocks.1
    >>> len(list(drop(network, task).parameters())) - len(list(network.parameters()))
    -2
    """

    blocks: int = 1
    budget: Budget | None = None
    names: tuple[str, ...] = ()
    importance: str = "loss"
    replace: str = "nothing"
    skip: tuple[str, ...] = ()
    samples: int = 1024
    rows: int = 20_000

    provides: ClassVar[frozenset[Condition]] = frozenset({Condition.REDUCED})
    doing: ClassVar[str] = "solving"

    def __post_init__(self) -> None:
        if self.blocks < 1:
            raise InputError(f"blocks must be 1 or more; found {self.blocks}")
        if self.importance not in IMPORTANCES:
            raise InputError(
                f"importance must be {' or '.join(IMPORTANCES)}; found {self.importance!r}"
            )
        if self.replace not in REPLACEMENTS:
            raise InputError(f"replace must be {' or '.join(REPLACEMENTS)}; found {self.replace!r}")
        if self.samples < 2 or self.rows < 2:
            raise InputError(
                f"samples and rows must be 2 or more; found {self.samples} and {self.rows}"
            )
        for name in ("names", "skip"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        object.__setattr__(self, "budget", Budget.of(self.budget))
        given = [self.blocks != Drop.blocks, self.budget is not None, bool(self.names)]
        if sum(given) > 1:
            raise InputError("blocks, budget and names all say how much to remove; give only one")

    @property
    def requires(self) -> frozenset[Condition]:
        """A float network; samples, unless blocks are named; labels where the loss decides."""
        needed = {Condition.FLOAT}
        if self.replace == "linear" or not self.names:
            needed.add(Condition.CALIBRATION)
        if self.importance == "loss" and not self.names:
            needed.add(Condition.LABELS)
        return frozenset(needed)

    def decide(self, network: Network, task: Task, progress: Progress) -> Plan:
        """Choose the blocks, one after the other."""
        blocks, left = self._candidates(network)
        if not blocks:
            return self._plan(left_alone=left)
        prices = BlockCosts(network, self.budget)
        if self.names:
            chosen, notes = self._named(blocks), list[str]()
        else:
            chosen, notes = _Choice(self, network, task, blocks, prices).made(progress)
        if not chosen:
            return self._plan(left_alone=left)
        maps = [block.end for block in chosen if self.by_map(block)]
        return self._plan(
            _edits(network, chosen, maps),
            f"removes {len(chosen)} of {counted(len(blocks), 'block')}: "
            f"{', '.join(block.name for block in chosen)}",
            left,
            [*notes, prices.said(chosen)],
            [(end,) for end in sorted(maps, key=[node.name for node in network.graph.nodes].index)],
        )

    def begin(self, network: Network, student: ActivationCache, teacher: ActivationCache) -> Work:
        """Solve the linear map that replaces a block, for the output of the block."""
        whole = all_indices(student.network)
        uncut = ActivationCache(network, student.batches)
        draw = torch.Generator().manual_seed(0)

        def work(layer: fx.Node) -> fx.Node:
            with torch.no_grad():
                solve = Solve(student.network, layer, whole, uncut, student, draw)
                solve.run(self.rows, RIDGE)
            uncut.forget_before(layer)
            return layer

        return work

    def _candidates(self, network: Network) -> tuple[list[Block], list[LeftAlone]]:
        """The blocks that may go, and those that may not."""
        chosen, left = [], []
        every = find_blocks(network)
        for name in (*self.skip, *self.names):
            if not any(is_in(block.name, name) for block in every):
                what = "skip" if name in self.skip else "names"
                known = ", ".join(block.name for block in every) or "none"
                raise InputError(
                    f"{what} has {name!r}, but the network has no such block; it has {known}"
                )
        for block in every:
            if any(is_in(block.name, name) for name in self.skip):
                left.append(LeftAlone(block.name, "it is listed in skip"))
            elif not block.alike and block.kind in ("branch", "stage") and self.replace != "linear":
                why = "its output has another shape than its input; a linear map could replace it"
                left.append(LeftAlone(block.name, why))
            else:
                chosen.append(block)
        if not every:
            left.append(LeftAlone("the network", "no value could stand for a later one"))
        return chosen, left

    def _named(self, blocks: list[Block]) -> list[Block]:
        chosen: list[Block] = []
        for name in self.names:
            exactly = [block for block in blocks if block.name == name]
            inside = [block for block in blocks if is_in(block.name, name)]
            for block in exactly or inside:
                if _stands(block, chosen):
                    chosen.append(block)
        _require_one_stays(len(chosen), blocks)
        return chosen

    def by_map(self, block: Block) -> bool:
        """Whether a linear map replaces a block."""
        return self.replace == "linear" and block.kind not in ("activation", "part")


def _edits(network: Network, chosen: list[Block], maps: list[str]) -> list[dict[str, Any]]:
    """The edits that cut the blocks out: activation functions first, since blocks may hold them."""
    nodes = {node.name: node for node in network.graph.nodes}
    fused = {block.end: block.start for block in chosen if block.kind == "activation"}
    functions = [name for block in chosen for name in block.functions]
    read = {name: nodes[name].all_input_nodes[0].name for name in functions}
    parts = [block.end for block in chosen if block.kind == "part"]
    values = {block.end: block.start for block in chosen if block.end not in (*fused, *parts)}
    edits: list[dict[str, Any]] = [{"edit": "leave_out", "values": parts}] if parts else []
    if fused:
        edits.append({"edit": "bypass", "values": read, "maps": []})
        edits.append({"edit": "fuse", "layers": fused, "front": True})
    if values:
        edits.append({"edit": "bypass", "values": values, "maps": maps})
    return edits


class _Choice:
    """Removes blocks one by one, the one that adds the least loss for what it saves first."""

    def __init__(
        self, drop: Drop, network: Network, task: Task, blocks: list[Block], prices: BlockCosts
    ) -> None:
        self.drop, self.blocks, self.prices = drop, blocks, prices
        if drop.budget is None:
            _require_one_stays(drop.blocks, blocks)
        self.losses = CutLosses(network, task, blocks, drop.samples, drop.rows)
        self.begun = self.losses.loss if drop.importance == "loss" else 0.0
        self.unlikeness = {block: self.losses.unlikeness(block) for block in blocks}
        self.latest: dict[Block, float] = {}

    def made(self, progress: Progress) -> tuple[list[Block], list[str]]:
        """The blocks to remove in this order, and a note for each block that could go."""
        chosen: list[Block] = []
        cost: dict[Block, float] = {}
        left = list(self.blocks)
        first = {}
        for number, block in enumerate(left):
            progress(f"measuring the loss without {block.name}", 0.5 * number / len(left))
            first[block] = self._loss(block)
        self.latest = dict(first)
        while left and not self._enough(chosen):
            progress(f"removed {counted(len(chosen), 'block')}", 0.5 + 0.5 * self._done(chosen))
            if len(left) == 1 and len(chosen) == len(self.blocks) - 1:
                break
            block = self._best(left, fresh=not chosen)
            cost[block] = self.latest[block]
            if self.drop.importance == "loss":
                self.losses.accept(block, self.drop.by_map(block))
            chosen.append(block)
            left = [other for other in left if other is not block and _stands(other, chosen)]
        if not self._enough(chosen):
            raise InputError(self._unreached(chosen))
        notes = [
            f"{block.name}: {self._said(block, cost.get(block, first[block]))}"
            + ("" if block in cost else "; it stays")
            for block in (*chosen, *(block for block in self.blocks if block not in cost))
        ]
        return chosen, notes

    def _enough(self, chosen: list[Block]) -> bool:
        if self.drop.budget is None:
            return len(chosen) >= self.drop.blocks
        return self.prices.left(chosen) <= self.drop.budget.share

    def _unreached(self, chosen: list[Block]) -> str:
        """That not as much can go as was asked for, in words."""
        if self.drop.budget is not None:
            return self.prices.unreached(chosen)
        return (
            f"{counted(self.drop.blocks, 'block')} can't go: once {len(chosen)} have gone, the "
            "others went with them, or are the last one; remove fewer"
        )

    def _done(self, chosen: list[Block]) -> float:
        """The share of the work that is done, roughly."""
        if self.drop.budget is None:
            return len(chosen) / self.drop.blocks
        return min(1.0, (1 - self.prices.left(chosen)) / max(1 - self.drop.budget.share, 1e-9))

    def _best(self, left: list[Block], fresh: bool) -> Block:
        """The block that adds least loss for what it saves, by figures that are up to date."""
        current = set(left) if fresh or self.drop.importance == "cosine" else set()
        while True:
            block = min(left, key=self._rate)
            if block in current:
                return block
            self.latest[block] = self._loss(block)
            current.add(block)

    def _rate(self, block: Block) -> float:
        loss, saved = self.latest[block], self.prices.share(block)
        return loss / saved if loss > 0 else loss * saved

    def _loss(self, block: Block) -> float:
        if self.drop.importance == "loss":
            return self.losses.added(block, self.drop.by_map(block))
        unlike = self.unlikeness[block]
        return 1.0 if unlike is None else unlike

    def _said(self, block: Block, loss: float) -> str:
        unlike = self.unlikeness[block]
        words = [f"loss {loss:+.4f} on {self.begun:.4f}"] * (self.drop.importance == "loss")
        words += [] if unlike is None else [f"1 - cos {unlike:.3f}"]
        return f"{', '.join(words)}; saves {self.prices.saving(block)}"


def _stands(block: Block, chosen: list[Block]) -> bool:
    """Whether a block is still there, with layers of its own, once others have gone."""
    gone = {layer for other in chosen for layer in other.layers}
    return block.end not in {other.end for other in chosen} and not gone & set(block.layers)


def _require_one_stays(count: int, blocks: list[Block]) -> None:
    if count >= len(blocks):
        raise InputError(
            f"{counted(count, 'block')} can't go: {len(blocks)} could "
            f"({', '.join(block.name for block in blocks)}), and at least one must stay; remove "
            "fewer"
        )
