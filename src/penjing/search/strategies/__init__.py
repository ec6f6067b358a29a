"""Strategies: they propose candidates, given the trials so far."""

from penjing.search.strategies.joint import Joint
from penjing.search.strategies.quick import Quick
from penjing.search.strategies.reference import find_strategy

__all__ = ["Joint", "Quick", "find_strategy"]
