"""Files that are complete or absent: the only place that writes what must survive a crash."""

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
"""The name of a file while it is written. If one is found later, a killed run left it."""


def write_atomically(path: Path, content: bytes | str) -> None:
    """Write `content` to `path` so that readers see either the old file or the complete new one.

    The bytes go to a temporary file in the same folder, which is flushed to disk and renamed. Then
    the folder is flushed too. A new file's mode follows the umask. A replaced file keeps its mode.

    Raises:
        DiskError: the folder can't be written, or the disk is full.
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
            f"{path} can't be written: {reason}; free disk space or choose another folder"
        ) from error


def require_writable_folder(path: Path) -> list[Path]:
    """Create the folder `path` if needed, and check with a test file that it can be written.

    Returns:
        The folders that were created, the outermost first. They are removed if the check fails.

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
    """Remove the files that exist, and flush their folders to disk.

    Raises:
        DiskError: a file can't be removed.
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
            f"{error.filename} can't be removed: {error.strerror}; remove it or choose another "
            "folder"
        ) from error


def remove_empty(folders: list[Path]) -> None:
    """Remove those folders that are empty. They are given with the outermost first."""
    for folder in reversed(folders):
        with contextlib.suppress(OSError):
            folder.rmdir()


def sync_folder(folder: Path) -> None:
    """Flush the folder's list of files to disk, so that none is lost if the power fails.

    Nothing happens if that isn't possible: on some file systems, and in a folder that can be
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
        FileNotFoundError: there is no such file.
        UnsafeError: it is a symbolic link, or not a regular file, such as a pipe.
        InputError: it can't be read.
    """
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)  # a pipe would wait
        with os.fdopen(handle, "rb") as file:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise UnsafeError(f"{path} isn't a regular file; refused")
            return file.read()
    except FileNotFoundError:
        raise
    except OSError as error:
        if path.is_symlink():
            raise UnsafeError(
                f"{path} is a symbolic link; refused, put a copy of the file there"
            ) from error
        raise InputError(f"{path} can't be read: {error.strerror}") from error


def sha256(*paths: Path) -> str:
    """The SHA-256 of the bytes of a file, or of several files joined, in hexadecimal."""
    return sha256_of(*(path.read_bytes() for path in paths))


def sha256_of(*contents: bytes) -> str:
    """The SHA-256 of byte strings joined, in hexadecimal."""
    digest = hashlib.sha256()
    for content in contents:
        digest.update(content)
    return digest.hexdigest()
