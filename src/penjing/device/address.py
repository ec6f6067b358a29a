"""Addresses: where a device is, and how OpenSSH connects to it."""

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
"""ssh asks no questions, trusts no unknown host, and forwards nothing from this machine."""


@dataclass(frozen=True)
class Device:
    """A device that is reached with OpenSSH's client.

    Keys, known hosts and jump hosts are set in OpenSSH's own configuration.

    >>> Device.at("ssh://pi@192.168.1.20").address
    'ssh://pi@192.168.1.20'

    Attributes:
        address: `ssh://[user@]host[:port]`, checked by `at`.
        python: the interpreter on the device that has the runtimes: a name, an absolute path, or a
            path that starts with `~`.
        ssh_config: a configuration file for OpenSSH to use instead of the user's own (option -F).
    """

    address: str
    python: str = "python3"
    ssh_config: Path | None = None

    @classmethod
    def at(cls, address: str, python: str = "python3", ssh_config: Path | None = None) -> Device:
        """The device at an address.

        Raises:
            InputError: the address, the interpreter's path or the configuration file isn't valid.
        """
        match = WANTED.fullmatch(address)
        if not match or not 0 < int(match["port"] or 22) < 65_536:
            raise InputError(
                f"{address!r} isn't the address of a device; wanted ssh://user@host or "
                "ssh://user@host:port"
            )
        if not PYTHON.fullmatch(python):
            raise InputError(
                f"`python` {python!r} isn't the path of an interpreter; use only letters, digits "
                "and ./_+-, as in ~/venv/bin/python"
            )
        if ssh_config is not None and not ssh_config.is_file():
            raise InputError(
                f"`ssh_config` {ssh_config} doesn't exist; give a configuration file for OpenSSH"
            )
        return cls(address, python, ssh_config)

    @classmethod
    def of(cls, target: str, python: str, ssh_config: Path | None) -> Device | None:
        """The device if the target is an address; None if it is the name of a target.

        Raises:
            InputError: as `at`, or the target is a name but an option for devices is given.
        """
        if target.startswith(REMOTE):
            return cls.at(target, python, ssh_config)
        if python != "python3" or ssh_config is not None:
            raise InputError(
                f"`python` and `ssh_config` only apply to a remote device, but the target is "
                f"{target}; leave them out, or use `target='ssh://user@host'`"
            )
        return None

    def command(self, remote: str) -> list[str]:
        """The arguments with which to run a fixed line in the device's shell."""
        match = WANTED.fullmatch(self.address)
        assert match
        config = [] if self.ssh_config is None else ["-F", str(self.ssh_config.absolute())]
        options = [word for option in OPTIONS for word in ("-o", option)]
        port = ["-p", match["port"]] if match["port"] else []
        user = ["-l", match["user"]] if match["user"] else []
        host = match["host"].strip("[]")
        return ["ssh", *config, *options, "-T", *port, *user, "--", host, remote]
