"""The protocol: requests to the scripts and replies from them, and what an artifact is called.

A file's own name never leaves this machine: what goes to a device is called after its hash.
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
    """A number that nobody has used before, in hexadecimal."""
    return secrets.token_hex(16)


def request_line(request: dict[str, Any], call: str) -> bytes:
    """A request as the scripts read it."""
    return json.dumps(request | {"call": call}).encode() + b"\n"


def reply_in(output: bytes, call: str) -> dict[str, Any] | None:
    """The reply to the request of that nonce; None where there is none, or only a part of one.

    What else was printed, such as a shell's greeting or the reply to an earlier request, is no
    reply.
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
    """Files that go to a device together.

    Attributes:
        paths: where they lie here.
        names: what they are called there, in a folder named after their hash.
        sha256: of the bytes of all, one behind the other.
        runtime: what loads them; empty for what isn't an artifact.
    """

    paths: tuple[Path, ...]
    names: tuple[str, ...]
    sha256: str
    runtime: str = ""

    def described(self) -> dict[str, Any]:
        """As the scripts read it."""
        sizes = [path.stat().st_size for path in self.paths]
        return {
            "names": list(self.names), "sizes": sizes, "sha256": self.sha256,
            "runtime": self.runtime,
        }  # fmt: skip


def runtime_for(path: Path) -> str:
    """The name of the runtime that the scripts load this file in.

    Raises:
        InputError: none has this ending.
    """
    for name, (_, _, endings) in RUNTIMES.items():
        if path.suffix == endings[0]:
            return name
    known = ", ".join(endings[0] for _, _, endings in RUNTIMES.values())
    raise InputError(f"no runtime on a device loads {path}; the ending must be one of {known}")


def parcel_of(path: Path, runtime: str) -> Parcel:
    """What would go to a device of the artifact whose first file lies at `path`; nothing is sent.

    Raises:
        InputError: one of them isn't there.
    """
    endings = RUNTIMES[runtime][2]
    paths = (path, *(path.with_suffix(ending) for ending in endings[1:]))
    for file in paths:
        if not file.is_file():
            raise InputError(f"no file {file}")
    return Parcel(paths, tuple(f"model{ending}" for ending in endings), sha256(*paths), runtime)
