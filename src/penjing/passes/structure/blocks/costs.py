"""BlockCosts: what each block of a network costs, in MACs, parameters or measured time."""

from __future__ import annotations

import copy
import math

import torch
from torch import fx

from penjing.measure.costs import costs, mac_terms
from penjing.network import Network
from penjing.network.analysis.blocks import Block, lost
from penjing.network.graph.shapes import shapes
from penjing.passes.structure.blocks.cut import cut_block
from penjing.passes.structure.channels.budget import Budget


class BlockCosts:
    """The costs of a network and of its blocks. A linear map that replaces a block isn't counted.

    Attributes:
        macs: of the whole network, for one sample.
        params: of the whole network.
    """

    def __init__(self, network: Network, budget: Budget | None) -> None:
        self._network, self._budget = network, budget
        self._counted: dict[tuple[str, ...], tuple[int, int]] = {}
        self._nodes = {node.name: node for node in network.graph.nodes}
        known = shapes(network)
        self._batch = batch = int(torch.utils._pytree.tree_leaves(network.example)[0].shape[0])
        self._macs = {
            node: sum(math.prod(factors) for factors in mac_terms(node, known.__getitem__)) // batch
            for node in network.calls()
            if node in known
        }
        self.macs = sum(self._macs.values())
        self.params = sum(parameter.numel() for parameter in network.parameters())

    def share(self, block: Block) -> float:
        """The share of the cost that the block is, in what the budget counts; 1 without one."""
        if self._budget is None:
            return 1.0
        return max(self._cost([block]) / self._whole(), 1e-9)

    def left(self, blocks: list[Block]) -> float:
        """The share of the cost that is left without these blocks."""
        return 1 - self._cost(blocks) / self._whole()

    def saving(self, block: Block) -> str:
        """What a block saves, in words."""
        macs, params = self._counts([block])
        return (
            f"{macs / 1e6:.2f} of {self.macs / 1e6:.2f} million MACs and {params:,} of "
            f"{self.params:,} parameters"
        )

    def said(self, blocks: list[Block]) -> str:
        """What is left without these blocks, in words."""
        macs, params = self._counts(blocks)
        words = f"{1 - macs / self.macs:.1%} of the MACs"
        words += f" and {1 - params / self.params:.1%} of the parameters are left"
        if self._budget is not None and self._budget.table is not None:
            words += f", and {self.left(blocks):.1%} of the time, as the table of layers predicts"
        return words

    def unreached(self, blocks: list[Block]) -> str:
        """That the budget can't be reached, in words."""
        assert self._budget is not None
        return (
            f"a budget of {self._budget.share:.1%} of the {self._budget.what} can't be reached: "
            f"{self.left(blocks):.1%} remain without {len(blocks)} blocks, and at least one must "
            "stay; skip fewer blocks, or remove channels too"
        )

    def _whole(self) -> float:
        assert self._budget is not None
        if self._budget.table is not None:
            return sum(self._budget.table.whole().values())
        return float(self.macs if self._budget.what == "macs" else self.params)

    def _cost(self, blocks: list[Block]) -> float:
        assert self._budget is not None
        macs, params = self._counts(blocks)
        if self._budget.table is None:
            return float(macs if self._budget.what == "macs" else params)
        times = self._budget.table.whole()
        gone = {str(self._nodes[name].meta["layer"]) for block in blocks for name in block.layers}
        return sum(ms for layer, ms in times.items() if layer in gone)

    def _counts(self, blocks: list[Block]) -> tuple[int, int]:
        """The MACs and the parameters that go with these blocks."""
        if any(block.kind == "part" for block in blocks):
            return self._counts_by_cutting(blocks)
        gone: set[fx.Node] = set()
        for block in blocks:
            gone |= lost(self._nodes[block.end], self._nodes[block.start])
        macs = sum(self._macs.get(node, 0) for node in gone)
        macs -= sum(block.macs for block in blocks) // self._batch
        read = {
            str(source.target)
            for node in self._network.graph.nodes
            if node not in gone
            for source in node.all_input_nodes
            if source.op == "get_attr"
        }
        params = sum(
            parameter.numel()
            for name, parameter in self._network.named_parameters()
            if name not in read
        )
        return macs, params - sum(block.params for block in blocks)

    def _counts_by_cutting(self, blocks: list[Block]) -> tuple[int, int]:
        """The same where later layers get narrower, counted on a copy without the blocks."""
        key = tuple(block.end for block in blocks)
        if key not in self._counted:
            left = copy.deepcopy(self._network)
            for block in blocks:
                cut_block(left, block, by_map=False)
            macs = sum(cost.macs for cost in costs(left))
            params = sum(parameter.numel() for parameter in left.parameters())
            self._counted[key] = self.macs - macs, self.params - params
        return self._counted[key]
