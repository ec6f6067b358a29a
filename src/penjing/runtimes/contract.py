"""The contract of a runtime: what it can't take, how to make its file, how to run that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from penjing.contract import Artifact, Estimate, Placement, Saturating, Session
from penjing.errors import InputError, UnsafeError
from penjing.files import sha256, sha256_of
from penjing.measure.footprint import footprint
from penjing.network import Network
from penjing.network.edits.overflow import without_overflow
from penjing.network.graph.int16 import no_int16
from penjing.network.graph.qparams import qparams_in
from penjing.runtimes.signature import Signature
from penjing.targets import Target


class Runtime(ABC):
    """Lowers a Network to an Artifact, loads it, and says what it can't take.

    >>> import penjing
    >>> runtime: penjing.runtimes.Runtime = penjing.runtimes.find("onnxruntime")
    >>> runtime.ending, runtime.floats
    ('.onnx', ('float32', 'float16'))

    Attributes:
        name: as `penjing runtimes` lists it.
        ending: of the file's name.
        constraints: options of `Quantize` without which it doesn't compute on the integers, such as
            `{"outputs": True}` where a layer's result must be integers too.
        stand_in: whether something else stands for the device here, whose time means nothing.
        floats: the forms that its files can hold real numbers in.
        half_values: whether a file of float16 is computed in it too, so that it may be faster;
            else it holds weights alone.
        weights_alone: whether its files can hold integer weights where no value is rounded.
        overflows: whether its kernels for x86 processors without VNNI add neighbouring products in
            16 bits, so that its files must be proof against that (`penjing.arith.saturation`).
        unrolls: whether its files repeat the operators of a recurrent layer for each step, where
            others have one operator for all steps.
    """

    name: ClassVar[str]
    ending: ClassVar[str]
    constraints: ClassVar[Mapping[str, Any]] = {}
    stand_in: ClassVar[bool] = False
    floats: ClassVar[tuple[str, ...]] = ("float32",)
    half_values: ClassVar[bool] = False
    weights_alone: ClassVar[bool] = False
    overflows: ClassVar[bool] = False
    unrolls: ClassVar[bool] = False

    def problems(self, network: Network, target: Target, floats: str = "float32") -> list[str]:
        """What stands against running `network` on `target`, one line each; empty if nothing.

        Args:
            floats: see `lower`.
        """
        problems = []
        if self.name not in target.runtimes:
            has = ", ".join(target.runtimes)
            problems.append(f"target {target.name} has no {self.name}; it has {has}")
        if "int8" not in target.precisions and any(True for _ in qparams_in(network)):
            problems.append(
                f"the network is quantized, and {target.name} has no int8; it has "
                f"{', '.join(target.precisions)}"
            )
        problems += [] if self.int16 else no_int16(network, self.name)
        return problems + self.too_large(network, target, floats=floats)

    def require_possible(self, network: Network, target: Target, floats: str = "float32") -> None:
        """Raise InputError with the first of the `problems` if there are any."""
        for problem in self.problems(network, target, floats):
            raise InputError(problem)

    def too_large(
        self,
        network: Network,
        target: Target,
        artifact: Artifact | None = None,
        floats: str = "float32",
    ) -> list[str]:
        """What of the target's flash and memory doesn't suffice, one line each, with both numbers.

        Before there is an artifact, the weights are estimated from the network, and the line says
        so; then the size of its files counts. The values that live at once are an estimate in
        either case: only the device's runtime knows.
        """
        known = footprint(network, halves=floats == "float16")
        if artifact is None:
            basis = "an estimate before lowering"
            return target.shortages(known.weight_bytes, known.value_bytes, basis)
        basis = f"{artifact.path.name} as it lies there"
        return target.shortages(artifact.file_bytes, known.value_bytes, basis)

    def require(self, precision: str) -> None:
        """Check that its files can hold a network in this precision.

        Args:
            precision: how real numbers are held, `"int8"`, or `"int8-weights"`.

        Raises:
            InputError: they can't; the message says what they can hold.
        """
        alone = ["int8-weights"] if self.weights_alone else []
        has = [*self.floats, "int8", *alone]
        if precision not in has:
            raise InputError(
                f"{self.name} has no files of {precision}; it has {', '.join(has)}; take one of "
                "these, or another runtime (penjing runtimes)"
            )

    @property
    def int16(self) -> bool:
        """Whether its files can hold values of 16 bits, as `Quantize(int16=...)` makes them."""
        return False

    def on(self, target: Target) -> Runtime:
        """This runtime, set up for the target."""
        return self

    def as_computed(self, network: Network) -> Network:
        """The network that its file computes: this one, but for scales of weights that must grow so
        that every processor adds up the same integers."""
        return without_overflow(network) if self.overflows else network

    @classmethod
    def absent(cls) -> str | None:
        """Why it can't run on this machine though its packages are installed; None if it can."""
        return None

    @abstractmethod
    def lower(self, network: Network, path: Path, floats: str = "float32") -> Artifact:
        """Write the network as this runtime's file.

        Args:
            floats: how the file holds real numbers, one of `self.floats`. Inputs and outputs are
                float32 in any case.

        Raises:
            InputError: an operator that the runtime lacks, or a weight that `floats` can't hold;
                the message names it.
        """

    def files(self, path: Path) -> tuple[Path, ...]:
        """All files of the artifact whose first is `path`."""
        return (path,)

    def artifact(self, path: Path) -> Artifact:
        """The file at `path`, as it lies there."""
        files = self.files(path)
        size = sum(file.stat().st_size for file in files)
        return Artifact(path, self.name, size, sha256(*files))

    def load(self, artifact: Artifact, threads: int = 1) -> Session:
        """Load a file into a session of `threads` threads.

        Raises:
            UnsafeError: the file is not the one that was lowered; the runtime doesn't see it.
            InputError: the runtime can't load it.
        """
        contents = [file.read_bytes() for file in self.files(artifact.path)]
        digest = sha256_of(*contents)
        if digest != artifact.sha256:
            raise UnsafeError(
                f"{artifact.path} has changed: sha256 {digest[:12]}, wanted "
                f"{artifact.sha256[:12]}; make it again"
            )
        return self.open(contents, threads)

    @abstractmethod
    def open(self, contents: list[bytes], threads: int = 1) -> Session:
        """A session of the bytes of an artifact's files, so that no other file is read.

        Raises:
            InputError: the runtime can't load them.
        """

    @abstractmethod
    def signature(self, artifact: Artifact) -> Signature:
        """The names, types, shapes and scales of what the file takes and gives, as it tells."""

    @abstractmethod
    def loading(self, path: Path, signature: Signature) -> str:
        """A piece of code that loads the file at `path` and runs it, without penjing.

        It is Python, or where no Python runs on the device, C++.

        Args:
            signature: of the file.
        """

    def saturating(self, artifact: Artifact) -> list[Saturating]:
        """The layers of the file that may leave 16 bits on x86 processors without VNNI, and so
        decide otherwise there; empty if none can, or if the kernels add in 32 bits everywhere."""
        return []

    def look_over(self, contents: list[bytes]) -> None:  # noqa: B027, for most have nothing to see
        """Look at the bytes of a file from elsewhere, before any library parses them.

        Raises:
            UnsafeError: they are of a kind over which the runtime would stumble.
            InputError: they are no such file.
        """

    @abstractmethod
    def placement(self, artifact: Artifact) -> list[Placement]:
        """Which unit each operator runs on, in the order of execution, as the runtime tells."""

    @property
    def clock_hz(self) -> float | None:
        """The clock of the device by which `estimate` counts time; None where nobody estimates."""
        return None

    def estimate(self, artifact: Artifact) -> Estimate | None:
        """What an inference costs on a device that isn't here, as the vendor estimates; None where
        nobody estimates, because it can be measured."""
        return None

    def seconds_by_layer(
        self, artifact: Artifact, inputs: Any, runs: int
    ) -> Mapping[str, float] | None:
        """What each layer, or each operator without weights, takes by the runtime's own profiler;
        None where nobody tells."""
        return None

    def weight_bytes(self, artifact: Artifact) -> int | None:
        """Bytes of all weights as the file holds them; None if that can't be told."""
        return None
