"""On device: whether a file that was judged here computes the same on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from penjing.contract import Array, Input
from penjing.device.address import Device
from penjing.errors import PenjingError
from penjing.measure.parity import departs, parity
from penjing.measure.there import JobOptions, measure_there
from penjing.network import Network
from penjing.runtimes.interface import in_order
from penjing.tasks.data import cut
from penjing.trials.evaluation.files import Loaded
from penjing.trials.trial import Trial

SAMPLES_THERE, JOBS_THERE = 64, 4  # at most, that a device runs for parity


def agreement(
    device: Device, file: Loaded, trial: Trial, network: Network, batches: Sequence[Any]
) -> str:
    """A line that says how the device's outputs of a file differ from its network's.

    Args:
        batches: (inputs, targets); of each at most `SAMPLES_THERE` samples are run, in a job.
    """
    session = SessionThere(device, file, file.session.inputs)
    samples = [(cut(inputs, SAMPLES_THERE), targets) for inputs, targets in batches]
    try:
        measured = parity(network, session, samples, SAMPLES_THERE)
    except (PenjingError, ValueError) as error:  # what is proven here doesn't depend on it
        return f"{trial.title} couldn't be compared on the device: {error}"
    text = (
        f"on the device {trial.title} differs from its network by at most "
        f"{measured.max_difference:.2g}"
    )
    if measured.same_decisions is not None:
        text += f", and {measured.same_decisions:.2%} of {measured.samples} decisions are the same"
    if why := departs(measured, trial.candidate.floats):
        text += f"; it computes something else there: {why}"
    return text


@dataclass(frozen=True)
class SessionThere:
    """A file that a device runs, each batch in a job of its own.

    Attributes:
        inputs: what the file takes, see `penjing.contract.Session`.
    """

    device: Device
    file: Loaded
    inputs: Sequence[Input]

    def run(self, inputs: Any) -> tuple[Array, ...]:
        """All outputs, in the order of the file's.

        Raises:
            RemoteError: the device can't be used, or can't run the file on these inputs.
        """
        values = tuple(in_order(inputs, self.inputs))
        artifacts = {"file": self.file.artifact}
        options = JobOptions(seconds=0, outputs=True, alone=())
        there = measure_there(self.device, artifacts, values, options)
        return there.outputs["file"]
