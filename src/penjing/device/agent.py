"""The agent: receives artifacts on a device and runs jobs, so that they outlive a connection.

The agent is sent alone with each connection, so it only needs Python 3.9's standard library. It
reads one request from stdin, a line of JSON. It prints one reply: a mark, the request's nonce, and
JSON, on one line. The requests are:

    have     say which of the listed artifacts aren't on the device
    put      receive artifacts, whose bytes follow the request
    run      start a job, or find it by its nonce, and wait a while for its result
    forget   end a job and remove its files

Artifacts are stored in folders that are named after their hash. They are written under another
name, hashed, and renamed. Each job has a guard: a process without a terminal that leads its own
process group. The guard holds the job's lock and the device's lease, and starts a new runner for
each measurement. It kills its group when everything is done or the deadline has passed. The locks
are kernel locks: they end with the process that holds them, and a reboot leaves none.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import hashlib
import json
import os
import re
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any

MARK = "penjing-reply"
HASH, NONCE = re.compile(r"[0-9a-f]{64}"), re.compile(r"[0-9a-f]{32}")
NAME = re.compile(r"runner\.py|model\.(onnx|xml|bin|pte|tflite|npz)")
HOUR, DAY, MONTH = 3600, 86_400, 30 * 86_400
GRACE_SECONDS = 5


class Refused(Exception):
    """The agent refuses a request: a kind that penjing knows, and one line that says why."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(text)
        self.kind = kind


def store() -> Path:
    """The folder of this user's artifacts and jobs, which other users can't read."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    folder = Path(cache) / "penjing"
    for path in (folder, folder / "files", folder / "jobs"):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return folder


def _checked(pattern: re.Pattern[str], text: object) -> str:
    if not isinstance(text, str) or not pattern.fullmatch(text):
        raise Refused("request", f"the agent doesn't accept this name: {text!r}"[:200])
    return text


# ---- artifacts


def have(request: Mapping[str, Any]) -> Any:
    """The hashes of the artifacts that aren't complete on the device. Old files are removed."""
    _tidy()
    absent = []
    for artifact in request["artifacts"]:
        folder = _folder(artifact)
        names = [_checked(NAME, name) for name in artifact["names"]]
        if not folder.is_dir() or _digest([folder / n for n in names]) != artifact["sha256"]:
            shutil.rmtree(folder, ignore_errors=True)
            absent.append(artifact["sha256"])
        else:
            os.utime(folder)
    return absent


def put(request: Mapping[str, Any]) -> Any:
    """Receive artifacts from stdin one by one. Each is stored completely or not at all."""
    for artifact in request["artifacts"]:
        names = [_checked(NAME, name) for name in artifact["names"]]
        folder = _folder(artifact)
        new = Path(tempfile.mkdtemp(prefix=".put-", dir=store() / "files"))
        try:
            for name, size in zip(names, artifact["sizes"]):
                _receive(new / name, size)
            if _digest([new / name for name in names]) != artifact["sha256"]:
                raise Refused("upload", "an artifact arrived damaged")
            with contextlib.suppress(OSError):  # another connection has uploaded it
                os.rename(new, folder)
        finally:
            shutil.rmtree(new, ignore_errors=True)
    return have(request)


def _folder(artifact: Mapping[str, Any]) -> Path:
    return store() / "files" / _checked(HASH, artifact["sha256"])


def _receive(path: Path, size: int) -> None:
    with open(path, "wb") as file:
        while size:
            piece = sys.stdin.buffer.read(min(size, 1 << 20))
            if not piece:
                raise Refused("upload", "the connection ended in the middle of an artifact")
            file.write(piece)
            size -= len(piece)
        file.flush()
        os.fsync(file.fileno())


def _digest(files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        try:
            with open(path, "rb") as file:
                for piece in iter(lambda: file.read(1 << 20), b""):
                    digest.update(piece)
        except FileNotFoundError:
            return "absent"
    return digest.hexdigest()


def _tidy() -> None:
    """Remove jobs that ended an hour ago, unfinished things after a day, artifacts unused for a
    month."""
    now = time.time()
    for path in (*(store() / "files").iterdir(), *(store() / "jobs").iterdir()):
        kept = DAY if path.name.startswith(".") or path.parent.name == "jobs" else MONTH
        with contextlib.suppress(OSError):
            if now - path.stat().st_mtime > (HOUR if (path / "result.json").exists() else kept):
                shutil.rmtree(path, ignore_errors=True)


# ---- jobs


def run(request: Mapping[str, Any]) -> Any:
    """Start the job unless it was started before, and wait for its result.

    Each call makes a guard, which ends at once if another guard has the job's lock.
    """
    folder = _job(request)
    folder.mkdir(mode=0o700, exist_ok=True)
    child = os.fork()
    if not child:
        with contextlib.suppress(BaseException):
            _guard(folder, request["job"])
        os._exit(0)
    connection, parent = select.poll(), os.getppid()
    connection.register(1, 0)  # reports when nobody reads stdout any more
    end, gone = time.monotonic() + float(request["patience"]), False
    while time.monotonic() < end and os.getppid() == parent and not connection.poll(0):
        result = _result(folder)
        if result is not None:
            return result
        if gone and _lock(folder / "lock", wait=0) is not None:
            return _result(folder) or _died("its guard was killed, or the device was restarted")
        gone = gone or os.waitpid(child, os.WNOHANG)[0] == child
        time.sleep(0.1)
    return {"running": True}


def _job(request: Mapping[str, Any]) -> Path:
    return store() / "jobs" / _checked(NONCE, request["nonce"])


def _result(folder: Path) -> Any:
    """The job's result, with its outputs in base64. None if there is no result yet."""
    try:
        result = json.loads((folder / "result.json").read_text())
        if result.get("outputs_sha256"):
            content = (folder / "outputs.npz").read_bytes()
            result["outputs"] = base64.b64encode(content).decode()
        return result
    except FileNotFoundError:
        return None


def _died(why: str) -> dict[str, Any]:
    return {"error": {"kind": "died", "text": f"the job died on the device: {why}"}}


def _lock(path: Path, wait: float) -> int | None:
    """A descriptor that holds the lock until it is closed. None if another process holds it."""
    handle = _open(path)
    end = time.monotonic() + wait
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return handle
        except BlockingIOError:
            if time.monotonic() >= end:
                os.close(handle)
                return None
            time.sleep(0.05)


def _open(path: Path) -> int:
    """Open a file that any user of the device may lock and write. Links aren't followed."""
    try:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666)
    except FileExistsError:
        return os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    os.fchmod(handle, 0o666)
    return handle


def _guard(folder: Path, job: Mapping[str, Any]) -> None:
    """Run a job in its own session until its result is written."""
    os.setsid()
    nothing = os.open(os.devnull, os.O_RDWR)
    for handle in (0, 1, 2):
        os.dup2(nothing, handle)
    os.closerange(3, 256)
    if _lock(folder / "lock", wait=1) is None or (folder / "result.json").exists():
        return
    started = folder / "started"
    try:
        if started.exists():
            reply = _died("it was started, but left no result")
        else:
            started.write_text(str(os.getpid()))
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(job["deadline_s"]) + GRACE_SECONDS)  # in case this process hangs
            reply = _measured(folder, job)
    except Refused as error:
        reply = {"error": {"kind": error.kind, "text": str(error)}}
    except Exception as error:
        reply = {"error": {"kind": "agent", "text": f"{type(error).__name__}: {error}"[:400]}}
    new = folder / ".result.json"
    with open(new, "w") as file:
        json.dump({"nonce": job["nonce"], **reply}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(new, folder / "result.json")
    os.killpg(0, signal.SIGKILL)


def _measured(folder: Path, job: Mapping[str, Any]) -> dict[str, Any]:
    end = time.monotonic() + float(job["deadline_s"])
    lease = _lease(job)
    parts = []
    for number, part in enumerate(job["parts"]):
        request = _local(part, folder) | {"call": f"{job['nonce']}-{number}", "guard": os.getpid()}
        try:
            reply = _run_once(request, folder, lease, _runner(job), end)
        except Refused as error:
            reply = {"error": {"kind": error.kind, "text": str(error)}}
        if "error" in reply:
            return {"error": {**reply["error"], "part": number}}
        parts.append(reply["ok"])
    outputs = folder / "outputs.npz"
    return {"ok": parts, "outputs_sha256": _digest([outputs]) if outputs.exists() else None}


def _runner(job: Mapping[str, Any]) -> Path:
    folder = store() / "files" / _checked(HASH, job["runner_sha256"])
    if _digest([folder / "runner.py"]) != job["runner_sha256"]:
        raise Refused("hash", "the runner is incomplete on the device")
    return folder / "runner.py"


def _local(part: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """A part of a job in the form that the runner reads, with this device's paths."""
    artifacts = []
    for artifact in part["artifacts"]:
        names = [str(_folder(artifact) / _checked(NAME, name)) for name in artifact["names"]]
        artifacts.append(
            {"runtime": artifact["runtime"], "sha256": artifact["sha256"], "files": names}
        )
    inputs = dict(part["inputs"])
    if "sha256" in inputs:
        inputs["file"] = str(_folder(inputs) / "model.npz")
    outputs = str(folder / "outputs.npz") if part["outputs"] else None
    return {**part, "artifacts": artifacts, "inputs": inputs, "outputs": outputs}


def _lease(job: Mapping[str, Any]) -> int:
    """The lock without which no user of this device may time. Its file says who holds it."""
    path = Path(tempfile.gettempdir()) / "penjing-lease.json"
    handle = _lock(path, wait=0.5)
    if handle is None:
        try:
            taken = json.loads(path.read_text())
            text = f"by {taken['who']} since {taken['since']}, until {taken['until']} at the latest"
        except (OSError, ValueError, KeyError):
            text = "by a job that is just starting"
        raise Refused("lease", f"the device is in use {text}")
    now = time.time()
    spelled = [
        time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(moment))
        for moment in (now, now + float(job["deadline_s"]))
    ]
    boot = Path("/proc/sys/kernel/random/boot_id")
    content = {
        "who": job["who"], "since": spelled[0], "until": spelled[1], "nonce": job["nonce"],
        "pid": os.getpid(), "boot_id": boot.read_text().strip() if boot.exists() else None,
    }  # fmt: skip
    os.ftruncate(handle, 0)
    os.pwrite(handle, json.dumps(content).encode(), 0)
    return handle


def _run_once(
    request: Mapping[str, Any], folder: Path, lease: int, runner: Path, end: float
) -> dict[str, Any]:
    """Run the runner once in a new process. It also holds the lease, and ends with this process."""
    threads = str(request["threads"])
    with open(folder / "log", "ab") as log, subprocess.Popen(
        [sys.executable, str(runner)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
        cwd=folder, pass_fds=[lease], env={**os.environ, "OMP_NUM_THREADS": threads},
    ) as process:  # fmt: skip
        try:
            line = json.dumps(request).encode() + b"\n"
            out, _ = process.communicate(line, timeout=max(0.1, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.kill()
            raise Refused("deadline", "the job wasn't finished by its deadline") from None
    if process.returncode < 0:
        name = signal.Signals(-process.returncode).name
        hint = "; the device's memory may have run out" if name == "SIGKILL" else ""
        raise Refused("died", f"the runtime's process was ended by {name}{hint}")
    head = f"{MARK} {request['call']} "
    for text in out.decode(errors="replace").splitlines():
        if text.startswith(head):
            reply: dict[str, Any] = json.loads(text[len(head) :])
            return reply
    lines = (folder / "log").read_text(errors="replace").strip().splitlines()
    raise Refused("runner", f"the runner failed: {lines[-1][:300] if lines else 'no message'}")


def forget(request: Mapping[str, Any]) -> Any:
    """End the job's guard with everything that it started, and remove the job's folder."""
    folder = _job(request)
    for _ in range(100):
        if not folder.exists() or _lock(folder / "lock", wait=0) is not None:
            break
        with contextlib.suppress(OSError, ValueError):  # not started yet, or just ended
            os.killpg(int((folder / "started").read_text()), signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)
    return True


ACTIONS = {"have": have, "put": put, "run": run, "forget": forget}


def main() -> None:
    """Answer one request."""
    request = json.loads(sys.stdin.buffer.readline())
    reply: dict[str, Any]
    try:
        reply = {"ok": ACTIONS[request["do"]](request)}
    except Refused as error:
        reply = {"error": {"kind": error.kind, "text": str(error)}}
    except OSError as error:
        reply = {
            "error": {"kind": "disk", "text": f"{error.strerror} ({error.filename or store()})"}
        }
    with contextlib.suppress(BrokenPipeError):
        print(MARK, request["call"], json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
