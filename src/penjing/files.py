"""Files that are whole or absent: the one place where penjing writes what must survive a crash."""

from __future__ import annotations

import hashlib
import os
import stat
import tempfile
from pathlib import Path

from penjing.errors import InputError, MachineError, UnsafeError


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk and renamed.

    Raises:
        MachineError: the folder can't be written or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = ""
    try:
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)
        reason = error.strerror or error
        raise MachineError(
            f"{path} can't be written: {reason}; free the disk or choose another folder"
        ) from error


def require_writable_folder(path: Path) -> None:
    """Create the folder `path` if need be and prove by a probe that it takes files.

    Raises:
        MachineError: it can't be created or written.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path):
            pass
    except OSError as error:
        raise MachineError(
            f"folder {path} can't be written: {error.strerror}; choose another with --out"
        ) from error


def read_regular(path: Path) -> bytes:
    """The bytes of a file that somebody else may have put there.

    Raises:
        FileNotFoundError: there is none.
        UnsafeError: it is a link to elsewhere, or no file of bytes, such as a pipe.
        InputError: it can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnsafeError(f"{path} is no regular file; refused")
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise UnsafeError(f"{path} is a link to elsewhere; refused, copy the file") from error
        raise InputError(f"{path} can't be read: {error.strerror}") from error


def sha256(*paths: Path) -> str:
    """The SHA-256 of the bytes of one file, or of several one behind the other, in hexadecimal."""
    return sha256_of(*(one.read_bytes() for one in paths))


def sha256_of(*contents: bytes) -> str:
    """The SHA-256 of bytes, one behind the other."""
    found = hashlib.sha256()
    for one in contents:
        found.update(one)
    return found.hexdigest()
