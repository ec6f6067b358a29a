"""A device over SSH when things go wrong: cut connections, a lease, deadlines, dead processes."""

from __future__ import annotations

import fcntl
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from penjing.contract import Array, Artifact
from penjing.device import job
from penjing.device.address import Device
from penjing.errors import RemoteError
from penjing.measure.there import JobOptions, There, measure_there
from tests.loopback import TWICE, Loopback, drawn, needs_server, python_with

pytestmark = pytest.mark.alone


@pytest.fixture(autouse=True)
def no_long_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "PAUSE_SECONDS", 0.1)


def ssh_clients() -> list[int]:
    """The ssh clients that this process has started."""
    found = []
    for one in Path("/proc").iterdir():
        with suppress(OSError, IndexError, ValueError):
            name, _, rest = (one / "stat").read_text().rpartition(")")
            if int(rest.split()[1]) == os.getpid() and name.endswith("(ssh"):
                found.append(int(one.name))
    return found


def cut(loopback: Loopback, server: bool) -> bool:
    if server:
        return loopback.cut()
    clients = ssh_clients()
    for one in clients:
        os.kill(one, signal.SIGKILL)
    return bool(clients)


def outcome_of(device: Device, artifact: Artifact, x: Array, found: list[Any]) -> None:
    """Append what a job gives, or how it fails."""
    try:
        found.append(
            measure_there(
                device, {"a": artifact}, {"x": x}, options=JobOptions(seconds=0, outputs=True)
            )
        )
    except Exception as error:
        found.append(error)


@needs_server
def test_twenty_cut_connections_leave_nothing_and_lose_nothing(
    loopback: Loopback, artifact: Artifact, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job, "TRIES", 8)
    device = loopback.device(python_with(tmp_path, TWICE))
    draw, cuts, seed = random.Random(0), 0, 0
    while cuts < 20:
        seed += 1
        x, found = drawn(seed), list[Any]()
        thread = threading.Thread(target=outcome_of, args=(device, artifact, x, found))
        thread.start()
        for k in range(7):  # one less than what a call survives
            time.sleep(draw.uniform(0, 0.6))
            while thread.is_alive() and not cut(loopback, server=k % 2 == 0):
                time.sleep(0.01)
            cuts += thread.is_alive()
        thread.join(60)
        assert not thread.is_alive(), "it hangs"
        assert isinstance(found[0], There), found[0]
        np.testing.assert_array_equal(found[0].outputs["a"][0], 2 * x)
    loopback.wait_until_quiet()
    assert ssh_clients() == []


@needs_server
def test_a_user_who_is_killed_leaves_no_process_on_the_device(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    device = loopback.device(python_with(tmp_path, TWICE))
    user = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-m", "penjing", "bench", str(artifact.path),
         "--target", device.address, "--seconds", "0.1", "--python", device.python,
         "--ssh-config", str(device.ssh_config)],
        start_new_session=True,
    )  # fmt: skip
    for _ in range(300):
        if any("runner.py" in one for one in loopback.processes().values()):
            break
        time.sleep(0.1)
    os.killpg(user.pid, signal.SIGKILL)
    user.wait()
    loopback.wait_until_quiet()


@needs_server
def test_the_lease_says_who_has_the_device(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    path = loopback.folder / "shared" / "penjing-lease.json"
    path.write_text(json.dumps({"who": "ann@desk", "since": "10:00", "until": "10:05"}))
    with path.open("r+") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(
            RemoteError,
            match="the device is in use by ann@desk since 10:00, until 10:05 at the latest; wait",
        ):
            measure_there(loopback.device(), {"a": artifact}, options=JobOptions(seconds=0))
    measure_there(
        loopback.device(python_with(tmp_path, TWICE)),
        {"a": artifact},
        options=JobOptions(seconds=0),
    )
    written = json.loads(path.read_text())
    assert set(written) == {"who", "since", "until", "nonce", "pid", "boot_id"}


HANGS = "import subprocess, time\nsubprocess.Popen(['sleep', '600'])\ntime.sleep(600)\n"
DIES = "import os\nos.kill(os.getpid(), 9)\n"
LACKS = "raise ImportError('no onnxruntime')\n"


@needs_server
@pytest.mark.parametrize(
    ("lines", "text"),
    [
        (HANGS, "the job wasn't finished by its deadline; allow more"),
        (DIES, "ended by SIGKILL; the device's memory may have run out"),
        (LACKS, "onnxruntime isn't usable: no onnxruntime; install it for .*/python on the device"),
    ],
)
def test_a_runtime_that_hangs_dies_or_lacks(
    lines: str, text: str, loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    device = loopback.device(python_with(tmp_path, lines))
    with pytest.raises(RemoteError, match=text) as error:
        measure_there(
            device,
            {"a": artifact},
            options=JobOptions(seconds=0, deadline_s=1.0 if lines == HANGS else 20),
        )
    assert "\n" not in str(error.value)
    loopback.wait_until_quiet()


@needs_server
def test_a_guard_that_is_killed_takes_its_job_along(
    loopback: Loopback, artifact: Artifact, tmp_path: Path
) -> None:
    device = loopback.device(python_with(tmp_path, "import time\ntime.sleep(600)\n"))
    failed = list[Any]()

    def measure() -> None:
        with pytest.raises(RemoteError, match="died on the device: its guard was killed") as error:
            measure_there(device, {"a": artifact}, options=JobOptions(seconds=0, deadline_s=60))
        failed.append(error)

    before = set(loopback.store.glob("jobs/*/started"))
    thread = threading.Thread(target=measure)
    thread.start()
    for _ in range(300):
        new = set(loopback.store.glob("jobs/*/started")) - before
        if new and any("runner.py" in one for one in loopback.processes().values()):
            break
        time.sleep(0.05)
    os.kill(int(new.pop().read_text()), signal.SIGKILL)
    thread.join(30)
    assert failed
    loopback.wait_until_quiet()
