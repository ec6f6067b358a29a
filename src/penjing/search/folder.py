"""Folder: where one fit writes. It touches no file of others there, and keeps other fits out."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import platform
import re
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from penjing.errors import DiskError, InputError, MachineError, PenjingError
from penjing.files import TEMPORARY, remove_empty, remove_files, require_writable_folder
from penjing.runtimes.registry import ENTRIES
from penjing.trials.evaluation.files import CANDIDATES, STEM, TRACEBACK
from penjing.trials.evaluation.networks import NETWORKS
from penjing.trials.ledger import LEDGER_FILES
from penjing.trials.result import RECORD, REPORT, Result

LOCK = ".penjing-lock"
NETWORK = ("network.json", "weights.safetensors")
BESIDE = {
    ".xml": (".bin",),
    "_vela.tflite": ("_vela_reference.tflite", "_vela.tflite.json"),
    "_vela.pte": ("_vela_reference.pte", "_vela.pte.json"),
}
"""The endings of an artifact's other files, by the ending of its first file."""
HOLDER = re.compile(r"process \d+ on [\w.-]*")
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_held: set[int] = set()  # child processes, such as DataLoader workers, mustn't keep our locks
os.register_at_fork(after_in_child=lambda: list(map(os.close, _held)))


def names_of_artifacts(stem: str, endings: Iterable[str]) -> set[str]:
    """All file names that artifacts named `stem` have, by the endings of their first files."""
    return {stem + suffix for ending in endings for suffix in (ending, *BESIDE.get(ending, ()))}


ENDINGS = [entry.ending for entry in ENTRIES.values()]
DELIVERED = {*REPORT, *names_of_artifacts(STEM, ENDINGS)}
OF_CANDIDATES = {TRACEBACK, *names_of_artifacts(STEM, ENDINGS)}
OF_EARLIER_ONES = names_of_artifacts("untuned", ENDINGS)
"""Files that versions of penjing before the ledger also wrote into the folder of a candidate."""
TREES = (CANDIDATES, NETWORKS)


@dataclass
class Folder:
    """A folder that is locked for one fit, see `hold`.

    Attributes:
        path: absolute, so that a task file may change the working folder.
        earlier: the result of an earlier fit in this folder, interrupted or finished.
        notes: what the user should know about the folder.
        is_new: whether this fit wrote the result, and replaced no earlier one.
    """

    path: Path
    earlier: Result | None = None
    notes: tuple[str, ...] = ()
    is_new: bool = False

    def begin(self, result: Result) -> None:
        """Write the first state of a new fit, and remove the files of an earlier one.

        At any moment the folder holds exactly one result, whose files exist and which lists the
        files that are penjing's. So trained networks, which a resumed fit would reuse, are removed
        while the earlier result is still there; everything else is removed once the new result is.

        Raises:
            DiskError: the folder can't be written.
        """
        remove_files(path for path in self._of_candidates() if path.name == NETWORK[0])
        if self.earlier is not None:
            replace(result, files=self.earlier.files).save(self.path)
        remove_files(self.path / name for name in LEDGER_FILES)
        if self.earlier is not None:
            remove_files(self._delivered(self.earlier))
        self._remove_candidates()
        result.save(self.path)
        self.is_new = self.earlier is None

    def take_back(self) -> None:
        """Remove everything that a fit wrote if it ended before its first measurement.

        The record goes last.
        """
        self._remove_candidates()
        remove_files(self.path / name for name in (*LEDGER_FILES, RECORD))

    def remove_temporary_files(self) -> None:
        """Remove the files that a killed run was writing."""
        paths = [*self.path.iterdir(), *self._of_candidates()]
        remove_files(path for path in paths if TEMPORARY.fullmatch(path.name))

    def strangers(self) -> list[str]:
        """The names of entries that weren't left by a fit that was killed before its record."""
        present = [
            path.name
            for path in self.path.iterdir()
            if path.name != LOCK and not TEMPORARY.fullmatch(path.name)
        ]
        trees = [name for name in present if name in TREES and not (self.path / name).is_symlink()]
        inside = {Path(top) / name for top, names in self._walk() for name in names}
        if trees and inside <= {*self._of_candidates()}:
            return [name for name in present if name not in (*trees, *LEDGER_FILES)]
        return [name for name in present if name not in LEDGER_FILES]

    def in_the_way(self, wanted: Iterable[str]) -> list[Path]:
        """Paths that aren't penjing's, but that a fit would overwrite if it wrote these names."""
        mine = self._delivered(self.earlier) if self.earlier else []
        places = [self.path / name for name in sorted(wanted)]
        taken = [place for place in places if os.path.lexists(place) and place not in mine]
        trees = [self.path / name for name in TREES]
        return taken + [tree for tree in trees if os.path.lexists(tree) and not tree.is_dir()]

    def _walk(self) -> list[tuple[str, list[str]]]:
        """The folders of candidates and networks with the names of their files.

        Inner folders come last. Links aren't followed.
        """
        trees = [self.path / name for name in TREES]
        walks = [os.walk(tree) for tree in trees if not tree.is_symlink()]
        return [(top, names) for walk in walks for top, _, names in walk]

    def _of_candidates(self) -> list[Path]:
        """The files of candidates that penjing wrote, recognized by folder and name."""
        paths = []
        for top, names in self._walk():
            parts = Path(top).relative_to(self.path).parts
            own = {(CANDIDATES, 2): OF_CANDIDATES | OF_EARLIER_ONES, (NETWORKS, 2): NETWORK}
            mine: Iterable[str] = own.get((parts[0], len(parts)), ())
            if parts[0] == CANDIDATES and parts[2:] == ("network",):  # of an older penjing
                mine = NETWORK
            paths += [
                Path(top) / name for name in names if name in mine or TEMPORARY.fullmatch(name)
            ]
        return paths

    def _delivered(self, result: Result) -> list[Path]:
        """The files beside a result that are penjing's: the result lists them, and their names are
        ones that penjing writes."""
        paths = [self.path / name for name in result.files if name in DELIVERED]
        return [path for path in paths if path.is_symlink() or not path.is_dir()]

    def _remove_candidates(self) -> None:
        remove_files(self._of_candidates())
        remove_empty([Path(top) for top, _ in self._walk()])


@contextmanager
def hold(
    out: Path, overwrite: bool, resume: bool, endings: Iterable[str], report: bool
) -> Iterator[Folder]:
    """Lock the folder for one fit, and check that it can be written and may be used.

    Folders that were created for it are removed again if they stay empty.

    Args:
        endings: the endings of the files that may be delivered into it.
        report: whether a report will be written there too.

    Raises:
        InputError: the folder has files that aren't penjing's, or an earlier result while neither
            `overwrite` nor `resume` is given.
        MachineError: another process uses the folder, or it can't be written.
    """
    if overwrite and resume:
        raise InputError("`overwrite` and `resume` can't be combined; give one of them")
    _require_usable(out)
    folder = Folder(out.absolute())
    wanted = names_of_artifacts(STEM, endings) | ({*REPORT} if report else set())
    look = partial(_look, folder, out, overwrite, resume, wanted)
    if not os.path.lexists(folder.path / LOCK):
        look()  # before the lock is made, so that a refused folder isn't touched
    made = require_writable_folder(folder.path)
    try:
        with _locked(folder, out):
            look()
            if resume and folder.earlier is None:
                folder.notes += (f"there was nothing to resume in {out}, so a new fit was started",)
            folder.remove_temporary_files()
            try:
                yield folder
            except PenjingError:
                if folder.is_new and Result.load(folder.path).baseline.artifact is None:
                    with contextlib.suppress(DiskError):
                        folder.take_back()
                raise
    finally:
        remove_empty(made)


def _require_usable(out: Path) -> None:
    """Raise MachineError for a path that can't be written, or that runtimes can't open."""
    shown = os.fsencode(out).decode(errors="backslashreplace")
    shown = shown if len(shown) < 200 else f"{shown[:200]}..."
    try:
        os.fsencode(out).decode()
        os.lstat(out / CANDIDATES / ("x" * 64) / "network" / NETWORK[1])
    except (FileNotFoundError, NotADirectoryError):
        pass
    except UnicodeDecodeError as error:
        raise MachineError(f"`out` {shown} isn't UTF-8; choose another name") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise MachineError(
            f"`out` {shown} can't be used: {reason}; choose another folder"
        ) from error


def _look(folder: Folder, out: Path, overwrite: bool, resume: bool, wanted: Iterable[str]) -> None:
    """Read what is in the folder, and refuse what the options don't allow."""
    path = folder.path
    try:
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise MachineError(f"`out` {out} is a file; choose a folder")
        if not os.path.lexists(path / RECORD):
            if folder.strangers():
                raise InputError(
                    f"`out` {out} is not empty, and holds no result of penjing; choose another "
                    "folder"
                )
            return
    except OSError as error:
        raise MachineError(f"`out` {out} can't be read: {error.strerror}") from error
    if not (overwrite or resume):
        raise InputError(
            f"`out` {out} already holds a result; replace it with `overwrite`, or continue it with "
            "`resume`"
        )
    folder.earlier = Result.load(path)
    if resume and folder.earlier.finished:
        return
    for place in folder.in_the_way(wanted):
        raise InputError(
            f"{place} wasn't written by penjing, and the fit would overwrite it; move it or choose "
            "another `out`"
        )


@contextmanager
def _locked(folder: Folder, out: Path) -> Iterator[None]:
    """Hold the folder's lock. It is a lock of the kernel, so it ends with the process."""
    path = folder.path / LOCK
    try:
        handle = _lock(path, out)
        if handle is None:
            folder.notes += (
                f"{out} is on a file system without locks: don't run two fits there at once",
            )
    except OSError as error:
        why = f"{path} can't be locked: {error.strerror}"
        raise DiskError(f"{why}; choose another `out`") from error
    try:
        yield
    finally:
        if handle is not None:
            try:
                with contextlib.suppress(OSError):
                    path.unlink()
            finally:
                _held.discard(handle)
                os.close(handle)


def _lock(path: Path, out: Path) -> int | None:
    """A descriptor that holds the lock until it is closed. None if there are no locks here."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            here = os.stat(path).st_ino
        except FileNotFoundError:
            here = -1
        except BlockingIOError:
            holder = HOLDER.match(os.pread(handle, 100, 0).decode(errors="replace"))
            os.close(handle)
            raise MachineError(
                f"`out` {out} is in use by {holder[0] if holder else 'another process'}; wait "
                "until that ends, or choose another folder"
            ) from None
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                raise
            path.unlink()
            return None
        if here != os.fstat(handle).st_ino:  # its last holder has removed it in the meantime
            os.close(handle)
            continue
        _held.add(handle)
        with contextlib.suppress(OSError):  # the lock works without its holder's name
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        return handle
