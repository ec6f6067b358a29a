"""The exceptions that penjing raises on purpose.

They form a tree. The numbers are the exit codes of the command line::

    PenjingError                     the base class of all of them
    ├── InputError          (2)      your input: the model, the data, the budget, the options
    │   └── CaptureError    (2)      torch.export can't capture the model
    ├── UnsafeError         (3)      refused: it could run code, corrupt memory or never end
    ├── MachineError        (4)      this machine: disk, memory, permissions
    │   ├── DivergenceError (4)      a file doesn't compute what its network computes
    │   ├── DiskError       (4)      a file can't be written, which ends the run
    │   └── LostProcessError (4)     one of several processes has ended, which ends the run
    ├── RemoteError         (5)      the remote device
    │   └── RemoteFileError (5)      the device works, but can't load or run a file
    └── BugError            (1)      a bug in penjing; the message says where its traceback is

A message is one line: what is wrong, where, what was found, what was expected, and what to do next.
Messages and the notes of a result name options as Python does, in backticks (`max_drop`,
`target='cpu'`). The command line prints them as flags.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import ClassVar


class PenjingError(Exception):
    """The base class of penjing's exceptions. Catch it to catch them all.

    >>> import penjing
    >>> try:
    ...     penjing.fit("digits", max_drop=-1.0)
    ... except penjing.PenjingError as error:
    ...     print(type(error).__name__, error.exit_code)
    InputError 2

    Attributes:
        exit_code: the exit code of the command line for this kind of error.
    """

    exit_code: ClassVar[int] = 1


class InputError(PenjingError):
    """Something that the user gave can't be used.

    >>> import penjing
    >>> penjing.Arrays([[0.0], [1.0]], [0, 1], batch_size=0)
    Traceback (most recent call last):
    penjing.errors.InputError: batch_size must be 1 or more; found 0
    """

    exit_code = 2


class CaptureError(InputError):
    """`torch.export` can't turn the model into a graph."""


class UnsafeError(PenjingError):
    """Using a file or folder could run code, corrupt memory or never end, so penjing refuses it.

    >>> from penjing.strict_json import parse
    >>> parse('{"score": NaN}', "result.json")
    Traceback (most recent call last):
    penjing.errors.UnsafeError: result.json is not valid JSON: NaN is not a number
    """

    exit_code = 3


class MachineError(PenjingError):
    """This machine lacks something: disk space, memory, a permission, or a device.

    >>> from pathlib import Path
    >>> from penjing.files import write_atomically
    >>> write_atomically(Path("/nowhere/model.onnx"), b"")
    Traceback (most recent call last):
    penjing.errors.DiskError: /nowhere/model.onnx can't be written: No such file or directory; ...
    """

    exit_code = 4


class DivergenceError(MachineError):
    """On this machine, a file doesn't compute what the network computes that it was made from.

    >>> issubclass(DivergenceError, MachineError)
    True
    """


class DiskError(MachineError):
    """A file or folder can't be written. No candidate is to blame for that, so it ends the run."""


class LostProcessError(MachineError):
    """One of several processes that train together has ended, or can't go on. It ends the run."""


class RemoteError(PenjingError):
    """The remote device failed, or couldn't be reached.

    >>> RemoteError("ssh://pi@device: can't be reached").exit_code
    5
    """

    exit_code = 5


class RemoteFileError(RemoteError):
    """The remote device works, but can't load or run a file.

    Attributes:
        file: the name of the file.
    """

    def __init__(self, message: str, file: str) -> None:
        super().__init__(message)
        self.file = file


class BugError(PenjingError):
    """A bug in penjing, met while a candidate was evaluated. Its cause is the original exception.

    Attributes:
        traceback: the file that holds the traceback.
    """

    def __init__(self, title: str, error: Exception, traceback: Path) -> None:
        super().__init__(
            f"{title}: {in_one_line(error)}; this is a bug in penjing, please report it with the "
            f"traceback in {traceback}; finished work is kept"
        )
        self.traceback = traceback


def ends_the_run(error: Exception) -> bool:
    """Whether an error would also hit the next candidate: the device or a process is lost, the disk
    is full, or penjing has a bug."""
    lost = isinstance(error, RemoteError) and not isinstance(error, RemoteFileError)
    return lost or isinstance(error, DiskError | LostProcessError | BugError)


ONE_CANDIDATES = (PenjingError, MemoryError, RuntimeError)
"""The types of the errors that `is_one_candidates` may accept; torch runs out of memory with the
last."""


def is_one_candidates(error: Exception) -> bool:
    """Whether an error concerns only the current candidate, so that the next one may still work.

    Such errors are those that passes and runtimes are documented to raise, and running out of
    memory.
    """
    if isinstance(error, PenjingError):
        return not ends_the_run(error)
    return is_out_of_memory(error)


def in_one_line(error: Exception) -> str:
    """An error in one line: a PenjingError's message, or the type and first line of others."""
    if isinstance(error, PenjingError):
        return str(error)
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if the message is empty."""
    return (str(error).splitlines() or [type(error).__name__])[0][:300]


def require_positive(name: str, value: float) -> None:
    """Raise InputError unless a number is above 0 and finite.

    Args:
        name: what it is called in the message.

    >>> require_positive("seconds", 0)
    Traceback (most recent call last):
    penjing.errors.InputError: seconds must be a positive number; found 0
    """
    if not (math.isfinite(value) and value > 0):
        raise InputError(f"{name} must be a positive number; found {value}")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a library reports that the memory of this machine or of its GPU ran out."""
    names = {kind.__name__ for kind in type(error).__mro__}
    return bool(names & {"MemoryError", "OutOfMemoryError"}) or (
        isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    )
