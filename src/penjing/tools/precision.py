"""Precision: the network that is written, rounded as its runtime needs it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from penjing.contract import Plan
from penjing.errors import InputError
from penjing.network import Network
from penjing.network.edits.fake_quantize import unrounded
from penjing.network.graph.qparams import SCALES, value_qparams
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.tasks.task import Task

PRECISIONS = ("float32", "float16", "int8", "int8-weights")
HARMLESS = frozenset({"overflow_fix"})
"""Constraints without which a runtime's file is as right and as fast: a scale or two is coarser
than it need be."""


@dataclass(frozen=True)
class Written:
    """The network that becomes a file.

    Attributes:
        network: quantized, where the precision asks for that.
        floats: how the file holds real numbers, as `Runtime.lower` takes it.
        constraints: the options of `Quantize` that the runtime needs and the network has.
        notes: what quantization changed for this runtime, a line each.
    """

    network: Network
    floats: str
    constraints: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


def in_precision(network: Network, task: Task, runtime: Runtime, precision: str | None) -> Written:
    """The network in a precision, with what the runtime needs of its integers.

    A network that is quantized already keeps its integers. Where they lack what the runtime needs,
    `Quantize` is repeated with that, if nothing was refined since.

    Args:
        precision: see `penjing.export`.

    Raises:
        InputError: the network is quantized, and the precision asks for something else; or it would
            have to be quantized again, and what was learned since would be lost.
    """
    if any(node.target in SCALES for node in network.calls()):
        return _rounded_before(network, task, runtime, precision)
    if precision == "int8":
        made = Quantize(**runtime.constraints)(network, task)
        return Written(made, "float32", _needs(runtime), made.history[-1].notes)
    if precision == "int8-weights":
        made = Quantize(activations=None)(network, task)
        return Written(made, "float32", (), made.history[-1].notes)
    return Written(network, precision or "float32")


def _rounded_before(
    network: Network, task: Task, runtime: Runtime, precision: str | None
) -> Written:
    has = "int8" if value_qparams(network) else "int8-weights"
    if precision not in (None, has):
        raise InputError(
            f"precision is {precision!r}, but the network is quantized already ({has}); leave "
            "`precision` out, or export the network from before it was quantized"
        )
    plan = next((plan for plan in reversed(network.history) if _made_integers(plan)), None)
    notes = network.history[-1].notes if network.history else ()
    if plan is None or has != "int8":
        return Written(network, "float32", (), notes)
    lacking = {
        name: value
        for name, value in runtime.constraints.items()
        if plan.options.get(name) != value
    }
    refined = plan is not network.history[-1]
    if not lacking or (refined and lacking.keys() <= HARMLESS):
        return Written(network, "float32", _needs(runtime), notes)
    told = ", ".join(f"{name}={value}" for name, value in lacking.items())
    if refined:
        raise InputError(
            f"{runtime.name} needs Quantize({told}), and the network was quantized without it and "
            f"refined since; apply the recipe anew: recipe.for_runtime({runtime.name!r})"
        )
    options: dict[str, Any] = {**plan.options, **lacking}
    again = Quantize(**options)(_before_rounding(network), task)
    note = f"quantized again for {runtime.name}, with {told}"
    return Written(again, "float32", _needs(runtime), (note, *again.history[-1].notes))


def _needs(runtime: Runtime) -> tuple[str, ...]:
    """The options of `Quantize` that the runtime wants to be on."""
    return tuple(name for name, on in runtime.constraints.items() if on)


def _made_integers(plan: Plan) -> bool:
    """Whether it is a plan of `Quantize` that did something."""
    return plan.method == "Quantize" and bool(plan.edits)


def _before_rounding(network: Network) -> Network:
    """The network without its integers, as it was before `Quantize`."""
    before = unrounded(network)  # a copy
    vars(before)["history"] = network.history[:-1]
    return before
