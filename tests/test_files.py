"""Files that are whole or absent."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from penjing.errors import DiskError, ends_the_run
from penjing.files import require_writable_folder, write_atomically


def test_a_new_file_follows_the_umask_and_a_replaced_one_keeps_its_mode(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "new", b"1")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o640
    (tmp_path / "new").chmod(0o600)
    write_atomically(tmp_path / "new", b"2")
    assert stat.S_IMODE((tmp_path / "new").stat().st_mode) == 0o600
    assert (tmp_path / "new").read_bytes() == b"2"


def test_a_rename_is_followed_by_a_flush_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    replaced = os.replace

    def fsync(handle: int) -> None:
        done.append("folder" if stat.S_ISDIR(os.fstat(handle).st_mode) else "file")

    def replace(*args: Any) -> None:
        done.append("rename")
        replaced(*args)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    write_atomically(tmp_path / "a", b"1")
    assert done == ["file", "rename", "folder"]


def test_an_interrupt_while_a_file_is_written_leaves_no_part_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(tmp_path / "a", b"1")
    assert not list(tmp_path.iterdir())


def test_a_disk_that_cannot_flush_is_no_candidates_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", broken)
    with pytest.raises(DiskError, match="a can't be written: Input/output error; free") as error:
        write_atomically(tmp_path / "a", b"1")
    assert ends_the_run(error.value)
    assert not list(tmp_path.iterdir())


def test_folders_that_were_made_in_vain_go_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = os.open

    def full(path: Any, flags: int, *rest: Any) -> int:
        if flags & os.O_CREAT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path, flags, *rest)

    made = [tmp_path / "a", tmp_path / "a" / "b"]
    assert require_writable_folder(made[-1]) == made
    assert require_writable_folder(made[-1]) == []
    monkeypatch.setattr(os, "open", full)
    with pytest.raises(DiskError, match="No space left on device; choose another with `out`"):
        require_writable_folder(tmp_path / "c" / "d")
    assert list(tmp_path.iterdir()) == [tmp_path / "a"]
