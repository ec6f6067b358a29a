"""Folder: where one fit writes. Nobody else's file in it is touched, and no other fit comes in."""

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
"""By the ending of an artifact's first file, those of the others."""
HOLDER = re.compile(r"process \d+ on [\w.-]*")
NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS)

_held: set[int] = set()  # a child, such as a worker that loads data, holds no lock of ours
os.register_at_fork(after_in_child=lambda: list(map(os.close, _held)))


def names_of_artifacts(stem: str, endings: Iterable[str]) -> set[str]:
    """All file names of artifacts that are called `stem`, by the endings of their first files."""
    return {stem + suffix for ending in endings for suffix in (ending, *BESIDE.get(ending, ()))}


ENDINGS = [entry.ending for entry in ENTRIES.values()]
DELIVERED = {*REPORT, *names_of_artifacts(STEM, ENDINGS)}
OF_CANDIDATES = {TRACEBACK, *names_of_artifacts(STEM, ENDINGS)}
OF_EARLIER_ONES = names_of_artifacts("untuned", ENDINGS)
"""What a penjing before the ledger wrote into the folder of a candidate besides."""
TREES = (CANDIDATES, NETWORKS)


@dataclass
class Folder:
    """A folder that a fit holds, see `hold`.

    Attributes:
        path: absolute, so that a task file may change the working folder.
        earlier: the result that lies there, of a fit that was interrupted, or is finished.
        notes: what the user should know of the folder.
        is_new: whether the result there is this fit's, and in nobody else's place.
    """

    path: Path
    earlier: Result | None = None
    notes: tuple[str, ...] = ()
    is_new: bool = False

    def begin(self, result: Result) -> None:
        """Write the first state of a fit that begins anew, and remove what an earlier one left.

        At any moment the folder holds one result, whose files are there, and that knows which files
        are penjing's. So what was trained, which a resumed fit would take over, goes while the
        earlier result still stands, and all else goes once the new one does.

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
        """Remove all that a fit wrote which ended before it had a figure; the record goes last."""
        self._remove_candidates()
        remove_files(self.path / name for name in (*LEDGER_FILES, RECORD))

    def remove_temporary_files(self) -> None:
        """Remove what a killed run was writing."""
        paths = [*self.path.iterdir(), *self._of_candidates()]
        remove_files(path for path in paths if TEMPORARY.fullmatch(path.name))

    def strangers(self) -> list[str]:
        """The names of all that isn't left over by a fit that was killed before its record."""
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
        """What a fit that writes files of the `wanted` names would take for its own, and isn't."""
        mine = self._delivered(self.earlier) if self.earlier else []
        places = [self.path / name for name in sorted(wanted)]
        taken = [place for place in places if os.path.lexists(place) and place not in mine]
        trees = [self.path / name for name in TREES]
        return taken + [tree for tree in trees if os.path.lexists(tree) and not tree.is_dir()]

    def _walk(self) -> list[tuple[str, list[str]]]:
        """The folders of candidates and networks with the names of their files, inner ones last;
        never through a link."""
        trees = [self.path / name for name in TREES]
        walks = [os.walk(tree) for tree in trees if not tree.is_symlink()]
        return [(top, names) for walk in walks for top, _, names in walk]

    def _of_candidates(self) -> list[Path]:
        """The files of candidates that penjing wrote, by place and name."""
        paths = []
        for top, names in self._walk():
            parts = Path(top).relative_to(self.path).parts
            own = {(CANDIDATES, 2): OF_CANDIDATES | OF_EARLIER_ONES, (NETWORKS, 2): NETWORK}
            mine: Iterable[str] = own.get((parts[0], len(parts)), ())
            if parts[0] == CANDIDATES and parts[2:] == ("network",):  # of a penjing before
                mine = NETWORK
            paths += [
                Path(top) / name for name in names if name in mine or TEMPORARY.fullmatch(name)
            ]
        return paths

    def _delivered(self, result: Result) -> list[Path]:
        """The files beside a result that are penjing's: it names them, and penjing could have
        written them."""
        paths = [self.path / name for name in result.files if name in DELIVERED]
        return [path for path in paths if path.is_symlink() or not path.is_dir()]

    def _remove_candidates(self) -> None:
        remove_files(self._of_candidates())
        remove_empty([Path(top) for top, _ in self._walk()])


@contextmanager
def hold(
    out: Path, overwrite: bool, resume: bool, endings: Iterable[str], report: bool
) -> Iterator[Folder]:
    """Hold the folder for one fit: no other one is in it, it can be written, and what lies there is
    what the options allow for. Folders that were made for it go again if nothing came of it.

    Args:
        endings: of the files that may be delivered into it.
        report: whether a report will be written there too.

    Raises:
        InputError: something lies there that isn't penjing's, or that needs an option.
        MachineError: another process is at work there, or it can't be written.
    """
    if overwrite and resume:
        raise InputError("`overwrite` and `resume` exclude each other; give one of them")
    _require_usable(out)
    folder = Folder(out.absolute())
    wanted = names_of_artifacts(STEM, endings) | ({*REPORT} if report else set())
    look = partial(_look, folder, out, overwrite, resume, wanted)
    if not os.path.lexists(folder.path / LOCK):
        look()  # so that a folder that is refused isn't touched
    made = require_writable_folder(folder.path)
    try:
        with _locked(folder, out):
            look()
            if resume and folder.earlier is None:
                folder.notes += (f"there was nothing to resume in {out}: begun anew",)
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
    """Raise MachineError for a path that no file can be written to, or that no runtime takes."""
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
        raise MachineError(f"`out` {shown} can't be used: {reason}; choose another") from error


def _look(folder: Folder, out: Path, overwrite: bool, resume: bool, wanted: Iterable[str]) -> None:
    """Read what lies in the folder, and refuse what the options don't allow for."""
    path = folder.path
    try:
        if not os.path.lexists(path):
            return
        if not path.is_dir():
            raise MachineError(f"`out` {out} is a file; choose a folder")
        if not os.path.lexists(path / RECORD):
            if folder.strangers():
                raise InputError(f"`out` {out} exists and is not empty; choose another")
            return
    except OSError as error:
        raise MachineError(f"`out` {out} can't be read: {error.strerror}") from error
    if not (overwrite or resume):
        hint = "`overwrite` replaces it, `resume` goes on"
        raise InputError(f"`out` {out} exists and is not empty; {hint}")
    folder.earlier = Result.load(path)
    if resume and folder.earlier.finished:
        return
    for place in folder.in_the_way(wanted):
        raise InputError(
            f"{place} isn't penjing's, and the fit would write there; move it or choose another "
            "`out`"
        )


@contextmanager
def _locked(folder: Folder, out: Path) -> Iterator[None]:
    """Hold the folder's lock, which is the kernel's, so that a dead holder holds nothing."""
    path = folder.path / LOCK
    try:
        handle = _lock(path, out)
        if handle is None:
            folder.notes += (f"{out} is on a file system without locks: two fits there would mix",)
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
    """A descriptor that holds the lock until it is closed; None if there are no locks here."""
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
                f"`out` {out} is taken by {holder[0] if holder else 'another process'}; wait until "
                "it ends, or choose another"
            ) from None
        except OSError as error:
            os.close(handle)
            if error.errno not in NO_LOCKS:
                raise
            path.unlink()
            return None
        if here != os.fstat(handle).st_ino:  # its last holder has removed it meanwhile
            os.close(handle)
            continue
        _held.add(handle)
        with contextlib.suppress(OSError):  # the lock holds without a name
            os.ftruncate(handle, 0)
            os.pwrite(handle, f"process {os.getpid()} on {platform.node()}".encode(), 0)
        return handle
