"""Addresses: where a device is, and how OpenSSH gets there."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from penjing.errors import InputError
from penjing.targets import REMOTE

WANTED = re.compile(
    r"ssh://(?:(?P<user>[A-Za-z0-9_][A-Za-z0-9_.-]*)@)?"
    r"(?P<host>[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(?::(?P<port>[0-9]{1,5}))?/?"
)
PYTHON = re.compile(r"~?[A-Za-z0-9_./][A-Za-z0-9_./+-]*")
OPTIONS = (
    "BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10", "ServerAliveInterval=5",
    "ServerAliveCountMax=3", "ForwardAgent=no", "ForwardX11=no", "ClearAllForwardings=yes",
    "ControlMaster=no", "PermitLocalCommand=no", "RequestTTY=no",
)  # fmt: skip
"""No question is asked, no unknown host is trusted, and nothing of this machine is lent."""


@dataclass(frozen=True)
class Device:
    """A device that OpenSSH's client reaches; keys, known hosts and jumps are its own affair.

    Attributes:
        address: `ssh://[user@]host[:port]`, as `at` has checked it.
        python: the interpreter there that has the runtime; a path with `~` or from the root, or a
            name.
        ssh_config: OpenSSH's configuration to use instead of the user's own (its option -F).
    """

    address: str
    python: str = "python3"
    ssh_config: Path | None = None

    @classmethod
    def at(cls, address: str, python: str = "python3", ssh_config: Path | None = None) -> Device:
        """The device at an address.

        Raises:
            InputError: the address, the interpreter or the configuration can't be meant.
        """
        match = WANTED.fullmatch(address)
        if not match or not 0 < int(match["port"] or 22) < 65_536:
            raise InputError(
                f"{address!r} is no address of a device; wanted ssh://user@host or "
                "ssh://user@host:port"
            )
        if not PYTHON.fullmatch(python):
            raise InputError(
                f"{python!r} is no interpreter on a device; wanted a path of letters, digits and "
                "./_+-, such as ~/venv/bin/python"
            )
        if ssh_config is not None and not ssh_config.is_file():
            raise InputError(f"no file {ssh_config}, which was to configure ssh")
        return cls(address, python, ssh_config)

    @classmethod
    def of(cls, target: str, python: str, ssh_config: Path | None) -> Device | None:
        """The device at a target's address; None if the target is a name.

        Raises:
            InputError: as `at`; or an option that is for a device, with a name.
        """
        if target.startswith(REMOTE):
            return cls.at(target, python, ssh_config)
        if python != "python3" or ssh_config is not None:
            raise InputError(
                f"`python` and `ssh_config` are for a device, and the target is {target}; leave "
                "them away, or take `target='ssh://user@host'`"
            )
        return None

    def command(self, remote: str) -> list[str]:
        """The arguments that run a fixed line of the remote shell there."""
        match = WANTED.fullmatch(self.address)
        assert match
        config = [] if self.ssh_config is None else ["-F", str(self.ssh_config.absolute())]
        options = [word for option in OPTIONS for word in ("-o", option)]
        port = ["-p", match["port"]] if match["port"] else []
        user = ["-l", match["user"]] if match["user"] else []
        host = match["host"].strip("[]")
        return ["ssh", *config, *options, "-T", *port, *user, "--", host, remote]
