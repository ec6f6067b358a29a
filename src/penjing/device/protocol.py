"""The protocol: requests to the scripts, replies from them, and the names of files on a device.

A file's own name never leaves this machine. On the device, files are in folders named after their
hash.
"""

from __future__ import annotations

import json
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penjing.device.runner import MARK, RUNTIMES
from penjing.errors import InputError
from penjing.files import sha256

RUNNER = Path(__file__).with_name("runner.py")
AGENT = Path(__file__).with_name("agent.py")


def nonce() -> str:
    """A random number that hasn't been used before, in hexadecimal."""
    return secrets.token_hex(16)


def request_line(request: dict[str, Any], call: str) -> bytes:
    """A request in the form that the scripts read."""
    return json.dumps(request | {"call": call}).encode() + b"\n"


def reply_in(output: bytes, call: str) -> dict[str, Any] | None:
    """The reply to the request with that nonce. None if there is none, or if it is incomplete.

    Anything else in the output is ignored, such as a shell's greeting or the reply to an earlier
    request.
    """
    head = f"{MARK} {call} ".encode()
    for line in output.splitlines():
        if line.startswith(head):
            try:
                reply = json.loads(line[len(head) :])
            except ValueError:
                return None
            return reply if isinstance(reply, dict) and reply.keys() & {"ok", "error"} else None
    return None


@dataclass(frozen=True)
class Parcel:
    """Files that are uploaded to a device together.

    Attributes:
        paths: the files on this machine.
        names: their names on the device, in a folder that is named after their hash.
        sha256: the hash of the bytes of all files, joined.
        runtime: the runtime that loads them. Empty for files that aren't an artifact.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: str
    runtime: str = ""

    def described(self) -> dict[str, Any]:
        """The parcel in the form that the scripts read."""
        sizes = [path.stat().st_size for path in self.paths]
        return {
            "names": list(self.names), "sizes": sizes, "sha256": self.sha256,
            "runtime": self.runtime,
        }  # fmt: skip


def runtime_for(path: Path) -> str:
    """The name of the runtime in which the scripts load this file.

    Raises:
        InputError: no runtime loads files with this ending.
    """
    for name, (_, _, endings) in RUNTIMES.items():
        if path.suffix == endings[0]:
            return name
    known = ", ".join(endings[0] for _, _, endings in RUNTIMES.values())
    raise InputError(f"no runtime on a device loads {path}; its name must end in one of {known}")


def parcel_of(path: Path, runtime: str) -> Parcel:
    """The parcel for the artifact whose first file is at `path`. Nothing is uploaded.

    Raises:
        InputError: one of its files doesn't exist.
    """
    endings = RUNTIMES[runtime][2]
    paths = (path, *(path.with_suffix(ending) for ending in endings[1:]))
    for file in paths:
        if not file.is_file():
            raise InputError(f"file {file} doesn't exist; check its name")
    return Parcel(paths, tuple(f"model{ending}" for ending in endings), sha256(*paths), runtime)
