"""The runner: the only script that loads, runs and times artifacts, on a device and locally.

It is sent alone, so it imports nothing of penjing, only Python 3.9, NumPy and the artifact's own
runtime. It reads one request from stdin, a line of JSON, and prints one reply: a mark, the
request's nonce, and JSON, on one line. A request is

    {"call": nonce, "artifacts": [{"runtime", "sha256", "files": [path, ...]}, ...],
     "inputs": {"seed": 0} or {"zeros": [[shape, type], ...] or null} or {"file": path, "sha256"},
     "threads": 1, "seconds": 0 or how long to time, "outputs": null or where to save them}

Several artifacts get the same inputs and are timed in the same rounds. The peak memory is that of
the whole process, so modules that a device's own program wouldn't need are imported after it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

MARK = "penjing-reply"
WARM_UP_RUNS, MOST_RUNS, LEAST_ROUNDS = 10, 200, 15
WINDOW_SECONDS, DISTURBED_SHARE = 0.03, 0.10
SCALARS = {
    0: "uint8", 1: "int8", 2: "int16", 3: "int32", 4: "int64", 5: "float16", 6: "float32",
    7: "float64", 11: "bool",
}  # fmt: skip
"""NumPy's names of PyTorch's types, which ExecuTorch gives as numbers."""
ORT_TYPES = {f"tensor({u}int{n})": f"{u}int{n}" for u in ("", "u") for n in (8, 16, 32, 64)}
ORT_TYPES.update({"tensor(float)": "float32", "tensor(double)": "float64"})
ORT_TYPES.update({"tensor(float16)": "float16", "tensor(bool)": "bool"})
OPENVINO_ON_CPU = {
    "PERFORMANCE_HINT": "LATENCY",
    "INFERENCE_PRECISION_HINT": "f32",  # else floats become bfloat16 if the chip supports it
    "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0,  # else inputs of layers with int8 weights are rounded
}


class Refused(Exception):
    """There is no result: a kind that penjing knows, and one line that says why."""

    def __init__(self, kind: str, text: object) -> None:
        line = (str(text).strip().splitlines() or ["no reason given"])[0]
        super().__init__(line[:400])
        self.kind = kind


# A loaded file has `inputs`, a list of (name, shape, type), and `run`, a function of arrays. On a
# device it is opened by path, so that no copy counts as memory. penjing's sessions pass the bytes.
class OnnxFile:
    """A file in ONNX Runtime, on the CPU or in the session that `opened` returns."""

    def __init__(self, files: Sequence[Any], threads: int, opened: Any = None) -> None:
        os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # as in penjing.telemetry
        ort = importlib.import_module("onnxruntime")
        on_cpu = functools.partial(ort.InferenceSession, providers=["CPUExecutionProvider"])
        options = ort.SessionOptions()
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        options.log_severity_level = 3
        self.session, self.inputs = (opened or on_cpu)(files[0], options), []
        for arg in self.session.get_inputs():
            sizes = tuple(n if isinstance(n, int) and n >= 0 else 1 for n in arg.shape)
            self.inputs.append((arg.name, sizes, ORT_TYPES.get(arg.type, arg.type)))

    def run(self, *values: Any) -> Any:
        return self.session.run(None, {i[0]: v for i, v in zip(self.inputs, values)})


class OpenVinoFile:
    """A graph, compiled for each batch size, for the CPU or for `other`: (device, settings)."""

    def __init__(self, files: Sequence[Any], threads: int, other: Any = None) -> None:
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # as above
        self.core = importlib.import_module("openvino").Core()
        self.where = other or ("CPU", {**OPENVINO_ON_CPU, "INFERENCE_NUM_THREADS": threads})
        self.model, self.inputs = self.core.read_model(*files), []
        self.requests: dict[Any, Any] = {}
        for arg in self.model.inputs:
            sizes = tuple(n.get_length() if n.is_static else 1 for n in arg.get_partial_shape())
            self.inputs.append((arg.get_any_name(), sizes, str(arg.get_element_type().to_dtype())))

    def request(self, shapes: tuple[Any, ...]) -> Any:
        """A request for inputs of these shapes."""
        if shapes not in self.requests:
            fixed = self.model.clone()
            fixed.reshape({i[0]: shape for i, shape in zip(self.inputs, shapes)})
            compiled = self.core.compile_model(fixed, *self.where)
            self.requests[shapes] = compiled.create_infer_request()
        return self.requests[shapes]

    def run(self, *values: Any) -> list[Any]:
        views = self.request(tuple(v.shape for v in values)).infer(list(values), share_outputs=True)
        return [views[position].copy() for position in range(len(views))]


class OfOneSample:
    """A file whose method `sample` runs one sample. `run` also takes a batch."""

    inputs: list[tuple[str, tuple[int, ...], str]]
    sample: Callable[[Sequence[Any]], list[Any]]

    def run(self, *values: Any) -> list[Any]:
        batches = {len(v) // shape[0] for v, (_, shape, _) in zip(values, self.inputs) if shape}
        if len(batches) != 1 or batches == {1}:
            return self.sample(values)
        rows = [self.sample([v[i : i + 1] for v in values]) for i in range(len(values[0]))]
        return [importlib.import_module("numpy").concatenate(column) for column in zip(*rows)]


class ExecuTorchFile(OfOneSample):
    """A program. Without `threads`, the process's shared thread pool stays as it is."""

    def __init__(self, files: Sequence[Any], threads: int | None = None) -> None:
        runtime = importlib.import_module("executorch.runtime")
        if threads is not None:  # XNNPACK would use all cores
            bindings = importlib.import_module("executorch.extension.pybindings.portable_lib")
            bindings._unsafe_reset_threadpool(threads)
        check = runtime.Verification.InternalConsistency
        self.program = runtime.Runtime.get().load_program(files[0], verification=check)
        self.method = self.program.load_method("forward")
        about, self.tensor = self.method.metadata, importlib.import_module("torch").from_numpy
        metas = [about.input_tensor_meta(i) for i in range(about.num_inputs())]
        self.inputs = [(str(i), tuple(m.sizes()), SCALARS[m.dtype()]) for i, m in enumerate(metas)]

    def sample(self, values: Sequence[Any]) -> list[Any]:
        return [y.numpy() for y in self.method.execute([self.tensor(v) for v in values])]


class LiteRtFile(OfOneSample):
    """Inputs and outputs are floats. They are quantized here if the file has integer ones."""

    def __init__(self, files: Sequence[Any], threads: int) -> None:
        self.np = np = importlib.import_module("numpy")
        try:
            kind = importlib.import_module("ai_edge_litert.interpreter")
        except ImportError:  # the package's name on older devices
            kind = importlib.import_module("tflite_runtime.interpreter")
        key = "model_content" if isinstance(files[0], bytes) else "model_path"
        self.interpreter = made = kind.Interpreter(**{key: files[0]}, num_threads=threads)
        made.allocate_tensors()
        takes, self.gives = made.get_input_details(), made.get_output_details()
        kinds = ["float32" if d["quantization"][0] else np.dtype(d["dtype"]).name for d in takes]
        self.inputs = [(d["name"], tuple(map(int, d["shape"])), k) for d, k in zip(takes, kinds)]
        self.takes = takes

    def sample(self, values: Sequence[Any]) -> list[Any]:
        np, outputs = self.np, []
        for value, to in zip(map(np.asarray, values), self.takes):
            scale, zero = to["quantization"]
            if scale:
                limits, steps = np.iinfo(to["dtype"]), np.rint(value / np.float32(scale)) + zero
                value = np.clip(steps, limits.min, limits.max)
            self.interpreter.set_tensor(to["index"], value.astype(to["dtype"], copy=False))
        self.interpreter.invoke()
        for out in self.gives:
            codes, (scale, zero) = self.interpreter.get_tensor(out["index"]), out["quantization"]
            outputs.append((codes.astype("float32") - zero) * np.float32(scale) if scale else codes)
        return outputs


RUNTIMES = {
    "onnxruntime": (OnnxFile, ("onnxruntime", "onnxruntime-gpu"), (".onnx",)),
    "openvino": (OpenVinoFile, ("openvino",), (".xml", ".bin")),
    "executorch": (ExecuTorchFile, ("executorch",), (".pte",)),
    "litert": (LiteRtFile, ("ai-edge-litert", "tflite-runtime"), (".tflite",)),
}
"""By name: the class that loads, its possible packages, the endings of an artifact's files."""


def version_of(runtime: str) -> str | None:
    """The version of a runtime's package; None if it isn't installed."""
    metadata = importlib.import_module("importlib.metadata")
    for package in RUNTIMES[runtime][1]:
        with contextlib.suppress(metadata.PackageNotFoundError):
            return str(metadata.version(package))
    return None


def measure(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load artifacts, run each once, and measure what the request asks for."""
    if "guard" in request:
        _end_with(request["guard"])
    loaded = [_load(artifact, request["threads"]) for artifact in request["artifacts"]]
    shapes = [[(shape, kind) for _, shape, kind in file.inputs] for file in loaded]
    if any(other != shapes[0] for other in shapes):
        raise Refused("inputs", f"inputs differ: {'; '.join(map(str, shapes))}")
    values = _inputs(request["inputs"], loaded[0].inputs) if loaded else []
    calls = {str(i): functools.partial(file.run, *values) for i, file in enumerate(loaded)}
    try:
        outputs = {name: list(call()) for name, call in calls.items()}
    except Exception as error:
        raise Refused("run", f"it fails on these inputs: {error}") from error
    measured: dict[str, Any] = {
        "peak_process_bytes": _high_water(),
        "versions": [version_of(artifact["runtime"]) for artifact in request["artifacts"]],
        "device": device(),
    }
    if request.get("outputs"):
        arrays = {f"{n}.{k}": a for n, all_of in outputs.items() for k, a in enumerate(all_of)}
        importlib.import_module("numpy").savez(request["outputs"], **arrays)
    if request.get("seconds"):
        measured["before"] = environment()
        how = request["seconds"], request.get("seed", 0), request["threads"]
        measured["times"], measured["disturbed"] = interleave(calls, *how)
        measured["after"] = environment()
    return measured


def _end_with(guard: int) -> None:
    """Let this process be killed when the guard dies, and end now if it has died already."""
    if sys.platform == "linux":
        ctypes = importlib.import_module("ctypes")
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != guard:
        sys.exit("the guard is gone")


def _load(artifact: Mapping[str, Any], threads: int) -> Any:
    digest = _digest_apart(artifact["files"])
    if digest != artifact["sha256"]:
        raise Refused("hash", f"its sha256 is {digest[:12]}, wanted {artifact['sha256'][:12]}")
    if artifact["runtime"] not in RUNTIMES:
        raise Refused("runtime", f"the runner doesn't know {artifact['runtime']}")
    try:
        return RUNTIMES[artifact["runtime"]][0]([str(path) for path in artifact["files"]], threads)
    except ImportError as error:
        raise Refused("runtime", f"{artifact['runtime']} isn't usable: {error}") from error
    except Exception as error:
        raise Refused("load", f"{artifact['runtime']} can't load it: {error}") from error


def _digest_apart(files: Sequence[str]) -> str:
    """The SHA-256 of the joined files, by a child process: OpenSSL takes megabytes of memory."""
    pipe, end = os.pipe()
    child = os.fork()
    if not child:
        with contextlib.suppress(Exception):
            digest = importlib.import_module("hashlib").sha256()
            for path in files:
                with open(path, "rb") as file:
                    for piece in iter(functools.partial(file.read, 1 << 20), b""):
                        digest.update(piece)
            os.write(end, digest.hexdigest().encode())
        os._exit(0)
    os.close(end)
    with os.fdopen(pipe) as answer:
        text = answer.read()
    os.waitpid(child, 0)
    return text or "(unreadable)"


def _inputs(wanted: Mapping[str, Any], inputs: Sequence[Any]) -> list[Any]:
    """Zeros of given shapes or of the artifact's own, arrays of an .npz file, or random numbers."""
    np = importlib.import_module("numpy")
    if "zeros" in wanted:
        shapes = wanted["zeros"] or [(shape, kind) for _, shape, kind in inputs]
        return [np.zeros(shape, kind) for shape, kind in shapes]
    if "file" in wanted:
        if _digest_apart([wanted["file"]]) != wanted["sha256"]:
            raise Refused("hash", "the inputs have changed on the device")
        with np.load(wanted["file"], allow_pickle=False) as file:
            keys = [name for name, _, _ in inputs]
            if set(file.files) != set(keys):  # then they are stored by position
                keys = [str(i) for i in range(len(file.files))]
            return [file[key] for key in keys]
    rng, arrays = np.random.default_rng(wanted["seed"]), []
    for _, shape, kind in inputs:
        x = rng.standard_normal(shape) if np.dtype(kind).kind == "f" else rng.integers(0, 2, shape)
        arrays.append(x.astype(kind))
    return arrays


def _high_water() -> int | None:
    """The peak of this process's resident memory in bytes; None if the system doesn't report it."""
    lines = (_read("/proc/self/status") or "").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM")), None)


def interleave(
    calls: Mapping[str, Callable[[], Any]], seconds: float, seed: int, threads: int = 1
) -> tuple[dict[str, dict[str, list[float]]], bool]:
    """Time calls in rounds. In a round, each call has one window of many runs, in random order.

    A round in which other load took the processor is repeated, but only for a limited time.
    Returns for each name `"windows"`, the median of each window, and `"samples"`, each run, both in
    seconds. Also returns whether more than a quarter of the rounds counted although disturbed.
    """
    runs = {name: _runs(call) for name, call in calls.items()}
    times: dict[str, dict[str, list[float]]] = {n: {"windows": [], "samples": []} for n in calls}
    random, statistics = importlib.import_module("random"), importlib.import_module("statistics")
    draw = random.Random(seed)
    end = time.perf_counter() + seconds
    patience = end + seconds
    rounds = taken_anyway = 0
    while rounds < LEAST_ROUNDS or time.perf_counter() < end:
        order = draw.sample(list(calls), len(calls))
        windows = {name: _window(calls[name], runs[name], threads) for name in order}
        if any(quiet is False for _, quiet in windows.values()):
            if time.perf_counter() < patience:
                continue
            taken_anyway += 1  # other load persists: count the round all the same, and report it
        rounds += 1
        for name, (samples, _) in windows.items():
            times[name]["windows"].append(statistics.median(samples))
            times[name]["samples"] += samples
    return times, taken_anyway > rounds // 4


def _runs(call: Callable[[], Any]) -> int:
    """Warm up, and return how many runs fill a window."""
    start = time.perf_counter()
    for _ in range(WARM_UP_RUNS):
        call()
    once = (time.perf_counter() - start) / WARM_UP_RUNS
    return max(3, min(MOST_RUNS, int(WINDOW_SECONDS / max(once, 1e-7))))


def _window(call: Callable[[], Any], runs: int, threads: int) -> tuple[list[float], bool]:
    """The seconds of each run, and whether this process had the processor all the time."""
    clock = time.thread_time if threads == 1 else time.process_time
    call()
    wall, own = time.perf_counter(), clock()
    samples = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        samples.append(time.perf_counter() - start)
    wall, own = time.perf_counter() - wall, clock() - own
    return samples, own >= (1 - DISTURBED_SHARE) * wall


def _read(path: str) -> str | None:
    try:
        with open(path, errors="replace") as file:
            return file.read().strip("\0 \n")
    except OSError:
        return None


def _numbers(pattern: str) -> list[int]:
    glob = importlib.import_module("glob")
    texts = (_read(path) for path in sorted(glob.glob(pattern)))
    return [int(text) for text in texts if text and text.lstrip("-").isdigit()]


def environment() -> dict[str, Any]:
    """What affects speed, as the system reports it. None means unknown."""
    cpu = "/sys/devices/system/cpu/cpu[0-9]*/"
    frequencies = _numbers(cpu + "cpufreq/scaling_cur_freq")
    heat = _numbers("/sys/class/thermal/thermal_zone*/temp")
    counts = _numbers(cpu + "thermal_throttle/core_throttle_count")
    flags = _read("/sys/devices/platform/soc/soc:firmware/get_throttled")  # a Raspberry Pi's
    return {
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "mhz": max(frequencies) / 1000 if frequencies else None,
        "celsius": max(heat) / 1000 if heat else None,
        "throttle_count": sum(counts) if counts else None,
        "throttled_now": None if flags is None else bool(int(flags, 16) & 0xF),
        "load": os.getloadavg()[0],
    }


def device() -> dict[str, Any]:
    """The device, for people, to be printed beside the times."""
    lines = (_read("/proc/cpuinfo") or "").splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return {
        "name": _read("/proc/device-tree/model") or (names or ["unknown processor"])[0],
        "machine": os.uname().machine, "cores": os.cpu_count() or 1,
        "memory_kb": int((_read("/proc/meminfo") or "MemTotal: 0 kB").split()[1]),
        "python": "{}.{}.{}".format(*sys.version_info),
        "boot_id": _read("/proc/sys/kernel/random/boot_id"),
        "runtimes": {name: version_of(name) for name in RUNTIMES},
    }  # fmt: skip


def main() -> None:
    """Answer one request."""
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a runtime prints mustn't look like a reply
    request = json.loads(sys.stdin.buffer.readline())
    try:
        reply = {"ok": measure(request)}
    except Refused as error:
        reply = {"error": {"kind": error.kind, "text": str(error)}}
    except OSError as error:
        reply = {"error": {"kind": "disk", "text": f"{error.strerror}: {error.filename}"}}
    print(MARK, request["call"], json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    main()
