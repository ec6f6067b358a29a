"""Everything penjing raises on purpose.

    PenjingError                     one line for the user; `exit_code` is the process's
    ├── InputError          (2)      your input: the model, the data, the budget, the options
    │   └── CaptureError    (2)      the model can't be captured by torch.export
    ├── UnsafeError         (3)      refused: it could run code, corrupt memory or never end
    ├── MachineError        (4)      this machine: disk, memory, permission
    │   ├── DivergenceError (4)      a file computes something else here than its network does
    │   └── DiskError       (4)      a file can't be written, which ends the run
    ├── RemoteError         (5)      the remote device
    │   └── RemoteFileError (5)      it is there, but can't load or run a file
    └── BugError            (1)      a bug of penjing's; where its traceback lies

A message is one line: what, where, found, wanted, next step. Like the notes of a result, it names
an option as Python does, in backticks (`max_drop`, `target='cpu'`); the command line prints flags.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar


class PenjingError(Exception):
    """The root of the tree; never raised itself."""

    exit_code: ClassVar[int] = 1


class InputError(PenjingError):
    """What the user gave can't be used."""

    exit_code = 2


class CaptureError(InputError):
    """`torch.export` can't turn the model into a graph."""


class UnsafeError(PenjingError):
    """To use this could run code, corrupt memory or never end."""

    exit_code = 3


class MachineError(PenjingError):
    """This machine lacks disk, memory or a permission."""

    exit_code = 4


class DivergenceError(MachineError):
    """A file computes something else on this machine than the network that it was made from."""


class DiskError(MachineError):
    """A file or folder can't be written, so that no candidate is to blame."""


class RemoteError(PenjingError):
    """The remote device failed or could not be reached."""

    exit_code = 5


class RemoteFileError(RemoteError):
    """The remote device can be used, but can't load or run a file.

    Attributes:
        file: what the file is called.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


class BugError(PenjingError):
    """A bug of penjing's, met while a candidate was evaluated; raised from the bug itself.

    Attributes:
        traceback: the file in which its traceback lies.
    """

    def __init__(self, title: str, error: Exception, traceback: Path) -> None:
        super().__init__(
            f"{title}: {in_one_line(error)}; this is a bug in penjing, and its traceback is in "
            f"{traceback}; what was finished is kept"
        )
        self.traceback = traceback


def ends_the_run(error: Exception) -> bool:
    """Whether no candidate is to blame, and the next one would fare alike: the device is lost, or
    the disk full."""
    lost = isinstance(error, RemoteError) and not isinstance(error, RemoteFileError)
    return lost or isinstance(error, DiskError | BugError)


def is_one_candidates(error: Exception) -> bool:
    """Whether it is what passes and runtimes are documented to raise, or memory that ran out; then
    the candidate has failed, and the next one may fare better."""
    if isinstance(error, PenjingError):
        return not ends_the_run(error)
    return is_out_of_memory(error)


def in_one_line(error: Exception) -> str:
    """What went wrong, for people: a PenjingError's own line, or the type and first line."""
    if isinstance(error, PenjingError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """What a library's exception says, in one line: its first, or its type if it says nothing."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library says that this machine's memory, or its GPU's, didn't suffice."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
