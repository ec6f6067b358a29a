"""Which architectures can be pruned, how much of each, and does what is left run and train.

    python benchmarks/architectures.py --list FILE.json [--json ROWS.json] [--peer torch-pruning]
    python benchmarks/architectures.py --torchvision classification segmentation video
    python benchmarks/architectures.py --models resnet18 vit_tiny_patch16_224
    python benchmarks/architectures.py --kinds                  (small networks of many other kinds)

Needs timm (and torchvision): pip install timm torchvision. Every network gets a process of its own
and a time limit; a row that is in ROWS.json already isn't measured again. Weights are random: the
question is whether it works, not what is lost. Prints a Markdown table. `prunable` and
`params_left` are shares of the parameters that the graph reads in evaluation mode; `unused_params`
are the others, such as auxiliary heads.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from data_folder import WANTED, data_folder

Row = dict[str, Any]
RATIO = 0.3
COLUMNS = (
    "model", "captured", "axes", "unused_params", "prunable", "params_left", "runs",
    "masked_equals_pruned", "trains", "onnx_parity", "capture_seconds", "axes_seconds", "seconds",
    "peak_gb", "error",
)  # fmt: skip


def examine(name: str) -> Row:
    """One network, step by step; a step that fails ends the row and is named in it."""
    import torch

    torch.manual_seed(0)
    torch.set_num_threads(1)
    row: Row = {"model": name}
    begin = time.monotonic()
    try:
        with _stage(row, "build"):
            model, x = build(name)
            _draw_constants(model)
            _calibrate(model, x)
            row["params"] = sum(one.numel() for one in model.parameters())
        _capture_and_prune(row, model, x)
    except _StageFailed as failure:
        row["error"] = str(failure)
    row["seconds"] = round(time.monotonic() - begin, 1)
    row["peak_gb"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2)
    return row


def _capture_and_prune(row: Row, model: Any, x: Any) -> None:
    import torch

    from penjing.network import capture, find_axes
    from penjing.passes import PruneChannels
    from penjing.tasks.task import Task

    row["captured"] = False
    with _stage(row, "capture", "capture_seconds"):
        network = capture(model, x)
    row["captured"] = True
    with _stage(row, "axes", "axes_seconds"):
        axes = find_axes(network)
    row["unknown"] = sorted(axes.trace.unknown)
    row["axes"] = len(axes.free)
    touched = {site.tensor for group in axes.free.values() for site in group.sites}
    used = _used_parameters(network)
    row["unused_params"] = row["params"] - sum(used.values())
    prunable = sum(size for name, size in used.items() if name in touched)
    row["prunable"] = round(prunable / sum(used.values()), 3)
    with torch.no_grad():
        row["outputs_vary"] = _vary(_outputs(network, x))
    task = Task(model, x, [], [])
    prune = PruneChannels(RATIO)
    with _stage(row, "prune"):
        plan = prune.plan(network, task)
        pruned = prune.apply(network, plan, task)
        left = sum(_used_parameters(pruned).values())
        row["params_left"] = round(left / sum(used.values()), 3)
    with _stage(row, "run"), torch.no_grad():
        tensors = _outputs(pruned, x)
        if not all(bool(torch.isfinite(one).all()) for one in tensors):
            raise ValueError("outputs aren't finite")
        row["runs"] = True
    with _stage(row, "mask"):
        row["masked_equals_pruned"] = _masked_equals_pruned(network, x, task)
    with _stage(row, "train"):
        _train_a_step(pruned, x)
        row["trains"] = True
    with _stage(row, "onnx"):
        row["onnx_parity"] = _parity(pruned, x)


def _used_parameters(network: Any) -> dict[str, int]:
    """How many entries each parameter has that the graph reads; heads that only training uses are
    parameters too, but no operator says which of their dimensions could shrink."""
    read = {str(node.target) for node in network.graph.nodes if node.op == "get_attr"}
    return {name: one.numel() for name, one in network.named_parameters() if name in read}


def _masked_equals_pruned(network: Any, x: Any, task: Any) -> float | None:
    """The largest difference, relative to the largest output; None if every axis is mixed."""
    import torch

    from penjing.network import mask
    from penjing.passes import PruneChannels

    prune = PruneChannels(RATIO, skip_mixed=True)
    plan = prune.plan(network, task)
    if not plan.edits:
        return None
    pruned, masked = prune.apply(network, plan, task), mask(network, plan.edits[0]["axes"])
    with torch.no_grad():
        gap = _gap(_outputs(pruned, x), _outputs(masked, x))
    if not gap < 1e-3:
        raise ValueError(f"pruned and masked differ by {gap:.1e} of the largest output")
    return gap


def _train_a_step(network: Any, x: Any) -> None:
    import copy

    import torch

    student = copy.deepcopy(network).train()
    optimizer = torch.optim.SGD(student.parameters(), lr=1e-3)
    outputs = _outputs(student, x)
    sum(one.float().square().mean() for one in outputs if one.is_floating_point()).backward()
    if not any(one.grad is not None for one in student.parameters()):
        raise ValueError("no parameter got a gradient")
    optimizer.step()


def _parity(network: Any, x: Any) -> float:
    """The largest difference between ONNX Runtime and torch, relative to the largest output."""
    import torch

    from penjing.contract import as_arrays
    from penjing.runtimes.onnx.runtime import OnnxRuntime

    with tempfile.TemporaryDirectory() as folder:
        runtime = OnnxRuntime()
        session = runtime.load(runtime.lower(network, Path(folder) / "model.onnx"))
        found = torch.utils._pytree.tree_leaves(session.run(as_arrays(x)))
    with torch.no_grad():
        gap = _gap([torch.as_tensor(one) for one in found], _outputs(network, x))
    if not gap < 1e-3:
        raise ValueError(f"ONNX Runtime differs by {gap:.1e} of the largest output")
    return gap


def _outputs(network: Any, x: Any) -> list[Any]:
    """All tensors that the network gives."""
    from torch.utils import _pytree as pytree

    from penjing.tasks.task import as_call

    args, kwargs = as_call(x)
    return pytree.tree_leaves(network(*args, **kwargs))


def _vary(outputs: list[Any]) -> bool:
    """Whether the two samples of the batch get different answers."""
    one = outputs[0].float()
    return bool((one[0] - one[1]).abs().max() > 1e-4 * one.abs().max())


def _gap(found: list[Any], wanted: list[Any]) -> float:
    """The largest difference in any output, relative to that output's largest entry."""
    if [one.shape for one in found] != [one.shape for one in wanted]:
        raise ValueError(f"{len(found)} outputs, of other shapes than the {len(wanted)} wanted")
    gaps = [
        float((one - other).abs().max() / other.abs().max().clamp_min(1e-12))
        for one, other in zip(found, wanted, strict=True)
        if other.is_floating_point()
    ]
    return max(gaps, default=0.0) if all(one == one for one in gaps) else float("nan")


class _StageFailed(Exception):
    pass


@contextmanager
def _stage(row: Row, name: str, seconds: str = "") -> Iterator[None]:
    begin = time.monotonic()
    try:
        yield
    except Exception as error:
        line = (str(error).splitlines() or [""])[0]
        raise _StageFailed(f"{name}: {type(error).__name__}: {line[:240]}") from error
    if seconds:
        row[seconds] = round(time.monotonic() - begin, 2)


def _draw_constants(model: Any) -> None:
    """Random values where all entries of a tensor are alike.

    A layer scale of zero or a last norm of zero would silence the layers that it follows, and
    pruned would equal masked whatever was cut.
    """
    import torch

    with torch.no_grad():
        for name, one in (*model.named_parameters(), *model.named_buffers()):
            statistic = name.rpartition(".")[2] in ("running_mean", "running_var")
            if not (statistic or isinstance(one, torch.nn.Parameter)) or one.numel() < 2:
                continue
            if one.is_floating_point() and bool((one == one.flatten()[0]).all()):
                width = 0.2 * one.flatten()[0].abs().clamp_min(0.1)
                one += width * (2 * torch.rand_like(one) - 1)


def _calibrate(model: Any, x: Any) -> None:
    """Batch norm statistics that are those of the batch.

    With any others the signal of a deep random network dies away, and no output would vary.
    """
    import torch

    from penjing.tasks.task import as_call

    norms = [
        one
        for one in model.modules()
        if isinstance(one, torch.nn.modules.batchnorm._BatchNorm) and one.track_running_stats
    ]

    def measure(norm: Any, inputs: Any) -> None:
        values = inputs[0].float()
        rest = [place for place in range(values.dim()) if place != 1]
        if values.numel() > values.shape[1]:
            norm.running_mean.copy_(values.mean(rest))
            norm.running_var.copy_(values.var(rest, correction=0).clamp_min(1e-3))

    hooks = [norm.register_forward_pre_hook(measure) for norm in norms]
    args, kwargs = as_call(x)
    with torch.no_grad():
        if norms:
            model(*args, **kwargs)
    for hook in hooks:
        hook.remove()


def build(name: str) -> tuple[Any, Any]:
    """A timm model, or `torchvision/NAME`, with random weights and a batch of two."""
    import torch

    if name.startswith("kinds/"):
        from other_kinds import KINDS

        model, x = KINDS[name.removeprefix("kinds/")]()
        return model.eval(), x
    if name.startswith("torchvision/"):
        _declare_torchvision_operators()
        import torchvision

        name = name.removeprefix("torchvision/")
        options = {"weights": None}
        if name in torchvision.models.list_models(torchvision.models.segmentation):
            options["weights_backbone"] = None
        model = torchvision.models.get_model(name, **options).eval()
        shape: tuple[int, ...] = (2, 3, 224, 224)
        if name in torchvision.models.list_models(torchvision.models.video):
            side = torchvision.models.get_model_weights(name).DEFAULT.transforms().crop_size[0]
            shape = (2, 3, 16, side, side)
        elif name == "inception_v3":
            shape = (2, 3, 299, 299)
        return model, torch.randn(*shape)
    _declare_torchvision_operators()
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


def _declare_torchvision_operators() -> None:
    """torchvision's wheel wants the operators of a CUDA build; a CPU build of torch lacks them."""
    import torch

    if torch.cuda.is_available():
        return
    library = torch.library.Library("torchvision", "DEF")  # type: ignore[no-untyped-call]
    box = "Tensor input, Tensor rois, float spatial_scale, int pooled_height, int pooled_width"
    convolution = "Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, " + (
        "int stride_h, int stride_w, int pad_h, int pad_w, int dilation_h, int dilation_w, "
        "int groups, int offset_groups, bool use_mask"
    )
    for schema in (
        "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        f"roi_align({box}, int sampling_ratio, bool aligned) -> Tensor",
        f"roi_pool({box}) -> (Tensor, Tensor)",
        f"ps_roi_align({box}, int sampling_ratio) -> (Tensor, Tensor)",
        f"ps_roi_pool({box}) -> (Tensor, Tensor)",
        f"deform_conv2d({convolution}) -> Tensor",
    ):
        library.define(schema)  # type: ignore[no-untyped-call]
    KEPT.append(library)


KEPT: list[Any] = []
"""Libraries whose operators vanish when nobody holds them."""


def names_of(options: argparse.Namespace) -> list[str]:
    """The models that the command line asks for."""
    names = list(options.models)
    if options.list:
        names += [one["model"] for one in json.loads(options.list.read_text())]
    if options.kinds:
        from other_kinds import KINDS

        names += [f"kinds/{one}" for one in KINDS]
    if options.torchvision:
        _declare_torchvision_operators()
        import torchvision

        for part in options.torchvision:
            module = torchvision.models if part == "classification" else None
            module = module or getattr(torchvision.models, part)
            names += [f"torchvision/{one}" for one in torchvision.models.list_models(module)]
    return names


def in_process(name: str, limit: float, extra: list[str]) -> Row:
    """Examine a model in a process of its own."""
    command = [sys.executable, __file__, "--one", name, *extra]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=limit, check=False, env=os.environ
        )
    except subprocess.TimeoutExpired:
        return {"model": name, "error": f"no answer within {limit:.0f} s"}
    lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
    if not lines:
        last = (done.stderr.strip().splitlines() or [f"exit {done.returncode}"])[-1]
        return {"model": name, "error": f"process died: {last[:240]}"}
    found: Row = json.loads(lines[-1])
    return found


def peer(name: str, script: Path, limit: float) -> Row:
    """What Torch-Pruning makes of it, by the peers' script."""
    try:
        done = subprocess.run(
            [sys.executable, script, name], capture_output=True, text=True, timeout=limit,
            check=False,
        )  # fmt: skip
        found = json.loads(done.stdout.strip().splitlines()[-1])
        return {"peer_runs": found["ok"], "peer_error": found.get("error", "")}
    except subprocess.TimeoutExpired:
        return {"peer_runs": False, "peer_error": f"no answer within {limit:.0f} s"}
    except (IndexError, ValueError):
        return {"peer_runs": False, "peer_error": (done.stderr.splitlines() or ["?"])[-1][:200]}


def table(rows: list[Row]) -> str:
    columns = [one for one in (*COLUMNS, "peer_runs") if any(one in row for row in rows)]
    lines = ["| " + " | ".join(columns) + " |", "|" + "---|" * len(columns)]
    lines += ["| " + " | ".join(_cell(row.get(one)) for one in columns) + " |" for row in rows]
    return "\n".join([*lines, "", summary(rows)])


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.0e}" if isinstance(value, float) and 0 < value < 1e-3 else str(value)


def summary(rows: list[Row]) -> str:
    captured = [row for row in rows if row.get("captured")]
    good = [row for row in captured if row.get("trains") and row.get("params_left", 1) < 1]
    onnx = [row for row in captured if row.get("onnx_parity") is not None]

    def middle(value: Callable[[Row], float]) -> float:
        return median([value(row) for row in captured if "axes_seconds" in row] or [0.0])

    line = (
        f"{len(rows)} networks: {len(captured)} captured, {len(good)} of these pruned, run and "
        f"train, {len(onnx)} reach ONNX Runtime with parity; median share of parameters that can "
        f"be pruned {middle(lambda row: row['prunable']):.3f}; median seconds for the axes "
        f"{middle(lambda row: row['axes_seconds']):.2f}, for torch.export "
        f"{middle(lambda row: row['capture_seconds']):.2f}; most memory "
        f"{max((row.get('peak_gb', 0.0) for row in rows), default=0.0):.1f} GB"
    )
    known = [row for row in rows if "peer_runs" in row]
    still = [row["model"] for row in captured if row.get("outputs_vary") is False]
    if still:
        line += f"; outputs that don't vary with the input: {', '.join(still)}"
    if known:
        line += f"; Torch-Pruning prunes {sum(row['peer_runs'] for row in known)} of {len(known)}"
    return line


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--list", type=Path, help="JSON: a list of objects with the key 'model'")
    parser.add_argument("--torchvision", nargs="*", default=[])
    parser.add_argument("--kinds", action="store_true", help="the networks of other_kinds.py")
    parser.add_argument("--json", type=Path, help="rows go here, and are taken from here")
    parser.add_argument("--limit", type=float, default=600.0, help="seconds for each network")
    parser.add_argument("--peer", choices=["torch-pruning"])
    script = data_folder() / "peers/torch_pruning_peer.py"
    parser.add_argument("--peer-script", type=Path, default=script, help="torch_pruning_peer.py")
    parser.add_argument("--peer-limit", type=float, default=240.0, help="seconds for each")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(examine(options.one)))
        return
    if options.peer and not options.peer_script.is_file():
        parser.error(f"--peer wants {options.peer_script}; {WANTED}")
    known: dict[str, Row] = {}
    if options.json and options.json.exists():
        known = {row["model"]: row for row in json.loads(options.json.read_text())["rows"]}
    rows = []
    names = names_of(options)
    for number, name in enumerate(names, start=1):
        row = known.get(name) or in_process(name, options.limit, [])
        if options.peer and "peer_runs" not in row and "/" not in name:
            row |= peer(name, options.peer_script, options.peer_limit)
        rows.append(row)
        print(f"[{number}/{len(names)}] {name}: {row.get('error', 'ok')}", file=sys.stderr)
        if options.json:
            everything = {**known, **{one["model"]: one for one in rows}}
            partial = options.json.with_suffix(".partial")
            partial.write_text(json.dumps({"rows": list(everything.values())}, indent=1))
            partial.replace(options.json)
    print(table(rows))


if __name__ == "__main__":
    main()
