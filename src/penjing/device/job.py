"""A job on a device: its files are uploaded, it runs, and its result is downloaded.

Files that are already on the device aren't uploaded again. The agent removes finished jobs later.

If the connection drops, it is made again, a limited number of times. The job isn't started twice,
because the agent finds it by its nonce.
"""

from __future__ import annotations

import base64
import getpass
import hashlib
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from penjing.device.address import Device
from penjing.device.protocol import RUNNER, Parcel, nonce
from penjing.device.ssh import Dropped, call, refused
from penjing.errors import RemoteError, RemoteFileError
from penjing.files import sha256

TRIES = 5
PAUSE_SECONDS = 0.5
WAIT_SECONDS = 20.0
OF_FILES = {"load", "run", "runtime", "died", "runner", "deadline"}
"""Kinds of errors that are caused by the files of a part, not by the device."""
SLOWEST_BYTES_PER_SECOND = 20_000


@dataclass(frozen=True)
class Done:
    """The result of a job.

    Attributes:
        parts: the runner's reply for each part.
        outputs: the bytes of an .npz file, or None if no outputs were asked for.
    """

    parts: tuple[dict[str, Any], ...]
    outputs: bytes | None


def run_job(
    device: Device,
    parcels: Sequence[Parcel],
    parts: Mapping[str, dict[str, Any]],
    deadline_s: float,
) -> Done:
    """Upload the parcels, run the parts on the device, each in a new process, and clean up.

    Args:
        device: the device.
        parcels: the files that the parts need.
        parts: requests for the runner, by the names that error messages use for them. Their
            artifacts are in the form of `Parcel.described`.
        deadline_s: seconds after which the device itself ends the job.

    Raises:
        RemoteFileError: the files of a part can't be loaded or run. `file` is the part's name.
        RemoteError: there is no result for another reason.
    """
    runner = Parcel((RUNNER,), ("runner.py",), sha256(RUNNER))
    _bring(device, (runner, *parcels))
    job = {
        "nonce": nonce(), "deadline_s": deadline_s, "parts": list(parts.values()),
        "runner_sha256": runner.sha256, "who": f"{getpass.getuser()}@{platform.node()}",
    }  # fmt: skip
    try:
        reply = _result(device, job, list(parts))
    except BaseException:
        with suppress(Dropped, RemoteError):  # if this fails, the job ends at its deadline
            call(device, {"do": "forget", "nonce": job["nonce"]}, patience=15)
        raise
    return Done(tuple(reply["ok"]), _outputs(device, reply))


def _bring(device: Device, parcels: Sequence[Parcel]) -> None:
    every = {parcel.sha256: parcel for parcel in parcels}
    listed = [parcel.described() for parcel in every.values()]
    absent = set(_again(device, lambda: call(device, {"do": "have", "artifacts": listed}), 1))
    if absent & every.keys():
        missing = [parcel for key, parcel in every.items() if key in absent]
        files = [path for parcel in missing for path in parcel.paths]
        described = [parcel.described() for parcel in missing]
        size = sum(sum(artifact["sizes"]) for artifact in described)
        request = {"do": "put", "artifacts": described}
        patience = 60 + size / SLOWEST_BYTES_PER_SECOND
        _again(device, lambda: call(device, request, files, patience))


def _result(device: Device, job: dict[str, Any], titles: Sequence[str]) -> dict[str, Any]:
    """Start the job, and wait for its result or for the message that it failed."""
    request = {"do": "run", "nonce": job["nonce"], "job": job, "patience": WAIT_SECONDS}
    end = time.monotonic() + job["deadline_s"] + 2 * WAIT_SECONDS
    while time.monotonic() < end:
        reply = _again(device, lambda: call(device, request, (), 3 * WAIT_SECONDS))
        if reply == {"running": True}:
            continue
        if "error" in reply:
            part, text = reply["error"].get("part"), refused(device, reply["error"])
            where = device.address if part is None else f"{device.address}: {titles[part]}"
            if part is None or reply["error"]["kind"] not in OF_FILES:
                raise RemoteError(f"{where}: {text}")
            raise RemoteFileError(f"{where}: {text}", titles[part])
        if reply.get("nonce") != job["nonce"] or len(reply["ok"]) != len(job["parts"]):
            raise RemoteError(f"{device.address}: the result is of another job; measure again")
        return dict(reply)
    raise RemoteError(f"{device.address}: no result by the job's deadline; measure again")


def _outputs(device: Device, reply: dict[str, Any]) -> bytes | None:
    if reply.get("outputs_sha256") is None:
        return None
    content = base64.b64decode(reply["outputs"])
    if hashlib.sha256(content).hexdigest() != reply["outputs_sha256"]:
        raise RemoteError(f"{device.address}: the outputs arrived damaged; measure again")
    return content


def _again(device: Device, make: Callable[[], Any], unreached: int = TRIES) -> Any:
    """Make a call, and repeat it if the connection drops.

    Args:
        device: the device, for the message.
        make: makes the call.
        unreached: how many times the device may be out of reach before that is an error.
    """
    for tried in range(1, TRIES + 1):
        try:
            return make()
        except Dropped as drop:
            if tried == TRIES or (not drop.reached and tried >= unreached):
                what = "the connection was lost" if drop.reached else "can't be reached"
                times = f" {tried} times" if tried > 1 else ""
                raise RemoteError(
                    f"{device.address}: {what}{times}: {drop}; check it with ssh and try again"
                ) from drop
        time.sleep(PAUSE_SECONDS * tried)
    raise AssertionError("unreachable")
