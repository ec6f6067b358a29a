"""Files that are whole or absent: the one place where penjing writes what must survive a crash."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable
from pathlib import Path

from penjing.errors import DiskError, InputError, UnsafeError

TEMPORARY = re.compile(r"\.penjing-[0-9a-f]{16}\.tmp")
"""What a file is called while it is written; one that lies there later is of a killed run."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that a reader sees the old file or the new one, never a part.

    The bytes go to a temporary file in the same folder, are flushed to the disk and renamed, and
    the folder is flushed too. A new file's mode follows the umask; one that is replaced keeps its
    mode.

    Raises:
        DiskError: the folder can't be written or the disk is full.
    """
    data = content.encode() if isinstance(content, str) else content
    temporary = _temporary(path.parent)
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        try:
            with os.fdopen(handle, "wb") as file:
                with contextlib.suppress(FileNotFoundError):
                    os.fchmod(handle, stat.S_IMODE(os.stat(path).st_mode))
                file.write(data)
                file.flush()
                os.fsync(handle)
            os.replace(temporary, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
        sync_folder(path.parent)
    except OSError as error:
        reason = error.strerror or error
        raise DiskError(
            f"{path} can't be written: {reason}; free the disk or choose another folder"
        ) from error


def require_writable_folder(path: Path) -> list[Path]:
    """Create the folder `path` if need be and prove by a probe that it takes files.

    Returns:
        The folders that were created, the outermost first; those are removed if the probe fails.

    Raises:
        DiskError: it can't be created or written.
    """
    created: list[Path] = []
    try:
        for folder in reversed([path, *path.parents]):
            if not folder.is_dir():
                folder.mkdir(exist_ok=True)
                created.append(folder)
                sync_folder(folder.parent)
        probe = _temporary(path)
        os.close(os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.unlink(probe)
    except OSError as error:
        remove_empty(created)
        raise DiskError(
            f"folder {path} can't be written: {error.strerror}; choose another with `out`"
        ) from error
    return created


def remove_files(paths: Iterable[Path]) -> None:
    """Remove files, those that are there, and have the disk know it.

    Raises:
        DiskError: one can't be removed.
    """
    changed = set()
    try:
        for path in paths:
            path.unlink(missing_ok=True)
            changed.add(path.parent)
        for folder in changed:
            sync_folder(folder)
    except OSError as error:
        raise DiskError(
            f"{error.filename} can't be removed: {error.strerror}; choose another folder"
        ) from error


def remove_empty(folders: list[Path]) -> None:
    """Remove those of the folders, given from the outermost on, that hold nothing."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Have the disk know which files the folder holds, so that a loss of power forgets none.

    Nothing happens where it can't be done: on some file systems, and in a folder that can be
    written but not read.
    """
    handle = -1
    try:
        handle = os.open(folder, os.O_RDONLY)
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EACCES):
            raise
    finally:
        if handle >= 0:
            os.close(handle)


def _temporary(folder: Path) -> Path:
    return folder / f".penjing-{secrets.token_hex(8)}.tmp"


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
    return sha256_of(*(path.read_bytes() for path in paths))


def sha256_of(*contents: bytes) -> str:
    """The SHA-256 of bytes, one behind the other."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
