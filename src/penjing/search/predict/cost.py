"""Cost: what a network takes of the original, by the goal of a fit, before its file is made."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from penjing.contract import Json
from penjing.network import Network
from penjing.search.predict.additive import Additive, Features
from penjing.search.predict.operators import features, stored_features
from penjing.trials.contract import Probed
from penjing.trials.judgement.goal import mean_of, weights_of

SUMS: Mapping[str, tuple[str, Callable[[Network], Features]]] = {
    "latency": ("times", features),
    "size": ("sizes", stored_features),
}
"""By figure that is a sum over operators: what it is called, and what is summed."""


Sums = Mapping[str, Features]
"""By figure, what is summed for it."""


def sums_of(network: Network, goal: str) -> Sums:
    """What is summed for the figures of a goal."""
    return {figure: summed(network) for figure, (_, summed) in SUMS.items()
            if figure in weights_of(goal)}  # fmt: skip


@dataclass(frozen=True)
class Cost:
    """The share of the original's figures that a network's file will take, each a sum over
    operators.

    Attributes:
        goal: what counts, see `penjing.trials.judgement.goal.weights_of`.
        models: by figure.
    """

    goal: str
    models: Mapping[str, Additive]

    @classmethod
    def learnt(
        cls, goal: str, networks: Sequence[Sums], files: Sequence[Probed], held_out: int
    ) -> Cost:
        """Learn it from the files of networks.

        Args:
            goal: see above.
            networks: what is summed of each, as it is before rounding.
            files: of each, what was measured.
            held_out: how many, the last ones, only check the models.
        """
        models = {
            figure: Additive.fit(
                [sums[figure] for sums in networks],
                [file.shares[figure] for file in files],
                held_out,
            )
            for figure in weights_of(goal)
        }
        return cls(goal, models)

    def to_json(self) -> dict[str, Json]:
        """Plain data, the inverse of `from_json`."""
        models = {figure: model.to_json() for figure, model in self.models.items()}
        return {"goal": self.goal, "models": models}

    @classmethod
    def from_json(cls, data: Mapping[str, Json]) -> Cost:
        """Read what `to_json` wrote.

        Raises:
            InputError, ValueError, KeyError, TypeError, AttributeError: it wasn't that.
        """
        goal, models = data["goal"], data["models"]
        return cls(
            goal, {figure: Additive.from_json(models[figure]) for figure in weights_of(goal)}
        )

    def checked(self, networks: Sequence[Sums], files: Sequence[Probed]) -> Cost:
        """The same with the errors for networks that it wasn't made from.

        Args:
            networks, files: see `learnt`.
        """
        models = {
            figure: model.checked(
                [sums[figure] for sums in networks], [file.shares[figure] for file in files]
            )
            for figure, model in self.models.items()
        }
        return Cost(self.goal, models)

    @property
    def is_additive(self) -> bool:
        """Whether all figures of the networks that it wasn't made from are predicted well."""
        return all(model.is_additive for model in self.models.values())

    def require_additive(self) -> None:
        """Refuse a cost that doesn't predict networks that it wasn't made from.

        Raises:
            InputError: a figure is off by more than 10 %.
        """
        for figure, model in self.models.items():
            model.require_additive(SUMS[figure][0])

    def of(self, network: Network) -> float:
        """The weighted mean of the figures' shares."""
        sums = sums_of(network, self.goal)
        shares = {figure: model.predict(sums[figure]) for figure, model in self.models.items()}
        return mean_of(self.goal, shares)
