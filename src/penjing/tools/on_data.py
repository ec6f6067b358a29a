"""OnData: a file's session, whose failures on given inputs are told as the file's."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch.utils import _pytree as pytree

from penjing.contract import Input, Session
from penjing.errors import InputError, PenjingError, first_line, is_out_of_memory


@dataclass(frozen=True)
class OnData:
    """A session that is run on inputs which may not suit its file.

    Attributes:
        name: of the file.
        data: what the inputs are called.
        advice: what to do if it can't be run on them; empty if that is unknown.
    """

    name: str
    session: Session
    data: str = "test data"
    advice: str = "name a file that takes the task's batches"

    @property
    def inputs(self) -> Sequence[Input]:
        """See `penjing.contract.Session`."""
        return self.session.inputs

    def run(self, inputs: Any) -> Any:
        """See `penjing.contract.Session`.

        Raises:
            InputError: the file can't be run on these inputs, such as a batch of another size than
                it was made for.
        """
        try:
            return self.session.run(inputs)
        except PenjingError:
            raise
        except Exception as error:  # a runtime may raise anything
            if is_out_of_memory(error):
                raise
            shapes = ", ".join(str(list(leaf.shape)) for leaf in pytree.tree_leaves(inputs))
            advice = f"; {self.advice}" if self.advice else ""
            raise InputError(
                f"{self.name} fails on {self.data} of shape {shapes}: {first_line(error)}{advice}"
            ) from error


def require_runs(name: str, session: Session, inputs: tuple[Any, ...]) -> None:
    """Run a session once on random inputs.

    Raises:
        InputError: it fails. Perhaps a size that the file leaves free must not be 1.
    """
    OnData(name, session, "random inputs", advice="").run(inputs)
