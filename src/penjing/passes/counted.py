"""Counted: a number with its noun, for the summaries of plans."""

from __future__ import annotations


def counted(number: int, noun: str, plural: str = "") -> str:
    """A number and its noun, in the singular or the plural.

    >>> counted(1, "layer"), counted(3, "axis", "axes")
    ('1 layer', '3 axes')
    """
    return f"{number} {noun if number == 1 else plural or noun + 's'}"
