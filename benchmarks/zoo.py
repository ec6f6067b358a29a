"""Networks by name: of timm, of torchvision, and the small ones of other_kinds.py.

    python benchmarks/zoo.py FAMILIES.json

writes the list of the smallest model of each family of timm, smallest first, for `--list`. Models
named `test_` aren't meant: timm's own tests use them. Counting takes three minutes.

A name is timm's own, `torchvision/NAME` or `kinds/NAME`. Weights are random.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import torch

from penjing.tasks.task import as_call
from penjing.tasks.torchvision_operators import declare_missing


def drawn(name: str) -> tuple[Any, Any]:
    """The network of that name and a batch of two, such that every layer has a say."""
    model, x = build(name)
    _draw_constants(model)
    _calibrate(model, x)
    return model, x


def build(name: str) -> tuple[Any, Any]:
    """The network of that name, with random weights, and a batch of two."""
    if name.startswith("kinds/"):
        from other_kinds import KINDS

        model, x = KINDS[name.removeprefix("kinds/")]()
        return model.eval(), x
    if name.startswith("torchvision/"):
        declare_missing()
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
    declare_missing()
    import timm

    model = timm.create_model(name, pretrained=False).eval()
    return model, torch.randn(2, *model.pretrained_cfg["input_size"])


def _draw_constants(model: Any) -> None:
    """Random values where all entries of a tensor are alike.

    A layer scale of zero or a last norm of zero would silence the layers that it follows, and
    pruned would equal masked whatever was cut.
    """
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


def add_networks(parser: argparse.ArgumentParser) -> None:
    """The options that say which networks to examine; `names_of` reads them."""
    parser.add_argument("--models", nargs="*", default=[])
    parser.add_argument("--list", type=Path, help="JSON: a list of objects with the key 'model'")
    parser.add_argument("--timm", action="store_true", help="the smallest of each family of timm")
    parser.add_argument("--torchvision", nargs="*", default=[])
    parser.add_argument("--kinds", action="store_true", help="the networks of other_kinds.py")


def names_of(options: argparse.Namespace) -> list[str]:
    """The networks that the command line asks for."""
    names = list(options.models)
    if options.list:
        names += [row["model"] for row in json.loads(options.list.read_text())]
    if options.timm:
        names += [row["model"] for row in smallest_of_each_family()]
    if options.kinds:
        from other_kinds import KINDS

        names += [f"kinds/{kind}" for kind in KINDS]
    if options.torchvision:
        declare_missing()
        import torchvision

        for part in options.torchvision:
            module = torchvision.models if part == "classification" else None
            module = module or getattr(torchvision.models, part)
            names += [f"torchvision/{name}" for name in torchvision.models.list_models(module)]
    return names


def smallest_of_each_family() -> list[dict[str, Any]]:
    """For each module of timm, the model with the fewest parameters; the smallest first."""
    declare_missing()
    import timm

    found = []
    for family in timm.list_modules():
        sizes = {}
        for name in timm.list_models(module=family, exclude_filters="test_*"):
            with torch.device("meta"):  # no weight is drawn
                model = timm.create_model(name, pretrained=False)
            side = model.pretrained_cfg["input_size"][-1]
            sizes[name] = (sum(tensor.numel() for tensor in model.parameters()), side, name)
        smallest = min(sizes.values())
        found.append({"family": family, "model": smallest[-1], "params": smallest[0]})
        print(f"{family}: {smallest[-1]}", file=sys.stderr)
    return sorted(found, key=lambda row: int(row["params"]))


def main() -> None:
    parser = argparse.ArgumentParser(description="the smallest model of each family of timm")
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    file.write_text(json.dumps(smallest_of_each_family(), indent=1) + "\n")


if __name__ == "__main__":
    main()
