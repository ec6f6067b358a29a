"""An `sshd` of a test's own on 127.0.0.1: its own host key, users' key, port and folder."""

from __future__ import annotations

import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from penjing.contract import Array, Artifact
from penjing.device.address import Device
from penjing.files import sha256

# SHLVL keeps bash from reading the .bashrc of whoever runs the tests.
CONFIG = """
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/user_key.pub
PidFile {folder}/sshd.pid
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
SetEnv XDG_CACHE_HOME={folder}/cache TMPDIR={folder}/shared SHLVL=2
KexAlgorithms curve25519-sha256
LogLevel ERROR
"""
CLIENT = """
Host 127.0.0.1
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
"""


def why_not() -> str | None:
    """What stands against a server here; None if nothing does."""
    if sshd() is None or shutil.which("ssh") is None:
        return "no OpenSSH client and server here (apt-get install openssh-server)"
    return None


def sshd() -> str | None:
    """Where the server is."""
    return shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")


needs_server = pytest.mark.skipif(why_not() is not None, reason=str(why_not()))


class Loopback:
    """A server and what its client needs.

    Attributes:
        folder: for everything; `cache/penjing` in it is the device's store.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "shared").mkdir()
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port: int = probe.getsockname()[1]
        for name in ("host_key", "user_key"):
            self.make_key(name)
        self.trust("host_key")
        self.write("sshd_config", CONFIG)
        self.write("ssh_config", CLIENT)
        self.start()

    def make_key(self, name: str) -> None:
        (self.folder / name).unlink(missing_ok=True)
        subprocess.run(
            ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.folder / name)],
            check=True,
        )  # fmt: skip

    def trust(self, name: str) -> None:
        """Make known_hosts hold this key for the server, and no other."""
        key = (self.folder / f"{name}.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {key}")

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text.format(folder=self.folder, port=self.port))

    def start(self) -> None:
        if os.geteuid() == 0:  # the server wants it then, and nobody else makes it here
            os.makedirs("/run/sshd", exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.server = subprocess.Popen(
                [str(sshd()), "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log
            )
        for _ in range(100):
            with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 1):
                return
            time.sleep(0.05)
        pytest.skip(f"sshd doesn't start: {(self.folder / 'sshd.log').read_text().strip()}")

    def stop(self) -> None:
        self.server.terminate()
        self.server.wait()

    def device(self, python: str = sys.executable) -> Device:
        address = f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"
        return Device.at(address, python, self.folder / "ssh_config")

    @property
    def store(self) -> Path:
        return self.folder / "cache" / "penjing"

    def processes(self) -> dict[int, str]:
        """Of the device's side: everything with the server's environment, by process."""
        mark = f"XDG_CACHE_HOME={self.folder}/cache".encode()
        found = {}
        for one in Path("/proc").iterdir():
            with suppress(OSError):
                if one.name.isdigit() and mark in (one / "environ").read_bytes().split(b"\0"):
                    found[int(one.name)] = (one / "cmdline").read_text().replace("\0", " ")
        return found

    def sessions(self) -> list[int]:
        """The server's own processes, one or two for each connection."""
        found, generation = [], [self.server.pid]
        while generation:
            parents = generation
            generation = []
            for one in Path("/proc").iterdir():
                with suppress(OSError, ValueError, IndexError):
                    stat = (one / "stat").read_text().rpartition(")")[2].split()
                    name = (one / "comm").read_text()
                    if int(stat[1]) in parents and "sshd" in name:
                        generation.append(int(one.name))
            found += generation
        return found

    def cut(self) -> bool:
        """End a connection from the server's side; False if there is none."""
        found = self.sessions()
        for one in found:
            with suppress(ProcessLookupError):
                os.kill(one, signal.SIGKILL)
        return bool(found)

    def wait_until_quiet(self, seconds: float = 20) -> None:
        """All that the jobs started is gone, in good time."""
        end = time.monotonic() + seconds
        while (left := self.processes()) and time.monotonic() < end:
            time.sleep(0.1)
        assert left == {}


def product(folder: Path) -> Artifact:
    """A file of y = x w, with w of 16 x 4."""
    value = helper.make_tensor_value_info
    weight = np.random.default_rng(0).standard_normal((16, 4)).astype("float32")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])], "g",
        [value("x", TensorProto.FLOAT, ["n", 16])], [value("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    path = folder / "model.onnx"
    opset = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    return Artifact(path, "onnxruntime", path.stat().st_size, sha256(path))


def drawn(seed: int) -> Array:
    return np.random.default_rng(seed).standard_normal((1, 16)).astype("float32")


def expected(artifact: Artifact, x: Array) -> Array:
    found: Array = onnxruntime.InferenceSession(str(artifact.path)).run(None, {"x": x})[0]
    return found


TWICE = """
class SessionOptions: pass
class InferenceSession:
    def __init__(self, *_, **__): pass
    def get_inputs(self): return [self]
    name, type, shape = "x", "tensor(float)", ["n", 16]
    def run(self, names, feed): return [2 * feed["x"]]
"""
"""An onnxruntime that is there at once, and gives 2 x whatever the file."""


def python_with(folder: Path, lines: str) -> str:
    """An interpreter whose onnxruntime is these lines."""
    (folder / "onnxruntime.py").write_text(lines)
    path = folder / "python"
    path.write_text(f'#!/bin/sh\nPYTHONPATH={folder} exec {sys.executable} "$@"\n')
    path.chmod(0o755)
    return str(path)
