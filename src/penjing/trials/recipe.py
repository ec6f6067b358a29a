"""Recipe: passes in the order in which they are applied; JSON in and out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

from penjing.contract import Json, Plan
from penjing.errors import InputError
from penjing.files import read_regular
from penjing.network import Network
from penjing.passes import PASSES, Pass, Quantize
from penjing.passes.contract import Progress
from penjing.passes.order import require_legal
from penjing.runtimes.registry import find_runtime
from penjing.strict_json import parse
from penjing.tasks.task import Task
from penjing.tune.options import TuneOptions

CONSTRAINED = ("outputs", "elementwise", "split_silu", "symmetric", "overflow_fix")
"""Options of `Quantize` that a runtime may need (`Runtime.constraints`)."""


class Recipe(tuple[Pass, ...]):
    """Passes in the order in which they are applied. A recipe is a tuple, and can be called.

    >>> from penjing.passes import PruneChannels, Quantize
    >>> recipe = Recipe([PruneChannels(0.5), Quantize()])
    >>> [type(step).__name__ for step in recipe]
    ['PruneChannels', 'Quantize']
    >>> recipe.for_runtime("onnxruntime") == recipe
    True

    Args:
        passes: any number of passes, each with its options.

    Raises:
        InputError: something is not a pass, or the order can't work, as where `Gptq`, which refines
            integers, comes before `Quantize`, which makes them.
    """

    __slots__ = ()

    def __new__(cls, passes: Iterable[Pass] = ()) -> Self:
        """Check that these are passes, and that their order can work."""
        steps = tuple(passes)
        for place, step in enumerate(steps, start=1):
            if not isinstance(step, Pass):
                name = step.__name__ if isinstance(step, type) else type(step).__name__
                call = f"; write {name}()" if isinstance(step, type) else ""
                raise InputError(f"pass {place} of the recipe is {step!r}; wanted a pass{call}")
        require_legal(steps)
        return super().__new__(cls, steps)

    def __call__(self, network: Network, task: Task, progress: Progress | None = None) -> Network:
        """Apply all passes, each to what the one before it gave. The network is not changed.

        Args:
            network: as `penjing.capture` gives it.
            task: whose data the passes look at or train on.
            progress: called with a line for people and the share done, 0..1.

        Raises:
            InputError: a pass refuses the task or the network; see each pass.
        """
        for place, step in enumerate(self):
            network = step(network, task, self._progress_of(place, progress))
        return network

    def _progress_of(self, place: int, progress: Progress | None) -> Progress | None:
        """What a pass is to call, so that the share counts the whole recipe."""
        if progress is None:
            return None
        return lambda line, share: progress(line, (place + share) / len(self))

    def for_runtime(self, name: str) -> Recipe:
        """The same recipe, with the integers that a runtime needs.

        Args:
            name: of the runtime, such as `"litert"`; see `penjing runtimes`.

        Raises:
            InputError: there is no such runtime, or its packages aren't installed.
        """
        return Recipe(constrained(self, find_runtime(name).constraints))

    def __repr__(self) -> str:
        return f"Recipe([{', '.join(map(repr, self))}])"

    def to_json(self) -> list[Json]:
        """The passes with their options, as plain data."""
        return to_json(self)

    @classmethod
    def read(cls, path: Path) -> Recipe:
        """Read a recipe from a file that holds what `to_json` gives, as JSON.

        Raises:
            InputError: there is no such file, or it isn't a list of passes; or as `from_json`.
            UnsafeError: it isn't JSON, or not a regular file.
        """
        try:
            data = parse(read_regular(path), str(path))
        except FileNotFoundError:
            raise InputError(f"{path}: there is no such file; wanted a recipe as JSON") from None
        if not isinstance(data, list) or not all(isinstance(step, dict) for step in data):
            raise InputError(
                f"{path}: wanted a list of passes, such as "
                '[{"method": "PruneChannels", "ratio": 0.5}]; found '
                f"{type(data).__name__}; Recipe.to_json gives one"
            )
        try:
            return cls.from_json(data)
        except InputError as error:
            raise InputError(f"{path}: {error}") from error

    @classmethod
    def from_json(cls, data: Sequence[Json]) -> Recipe:
        """Read what `to_json` gave.

        Raises:
            InputError: an unknown pass or option, or an order that can't work.
        """
        return cls(from_json(data))


def to_json(recipe: Sequence[Pass]) -> list[Json]:
    """The passes with their options."""
    return [step.to_json() for step in recipe]


def from_json(data: Sequence[Json]) -> tuple[Pass, ...]:
    """Read what `to_json` wrote.

    Raises:
        InputError: an unknown pass or option.
    """
    return tuple(_pass_of(step) for step in data)


def _pass_of(step: Mapping[str, Json]) -> Pass:
    options: dict[str, Any] = dict(step)
    name = options.pop("method", None)
    if not isinstance(name, str) or name not in PASSES:
        raise InputError(f"no pass {name!r}; there are {', '.join(PASSES)}")
    try:
        if name == "Tune" and "options" in options:
            training = dict(options["options"])
            training.pop("seconds", None)  # which an earlier penjing's recipes hold
            options["options"] = TuneOptions(**training)
        return PASSES[name](**options)
    except (TypeError, ValueError, AttributeError) as error:  # an option of another type
        raise InputError(f"pass {name}: {error}") from error


def from_plans(plans: Sequence[Plan]) -> tuple[Pass, ...]:
    """The passes that made these plans."""
    return from_json([{"method": plan.method, **plan.options} for plan in plans])


def constrained(recipe: Sequence[Pass], constraints: Mapping[str, Any]) -> tuple[Pass, ...]:
    """The recipe with the integers that a runtime needs (`Runtime.constraints`)."""
    return tuple(
        replace(step, **constraints) if isinstance(step, Quantize) else step for step in recipe
    )


def unconstrained(recipe: Sequence[Json]) -> list[Json]:
    """A recipe as JSON without what only its runtime needs."""
    return [{key: step[key] for key in step if key not in CONSTRAINED} for step in recipe]
