"""Training in several processes: whether they take the same steps as one, and how fast.

    python benchmarks/distributed.py [--steps 20] [--rounds 5] [--json FILE]

ResNet-20 on random images of 32 x 32, by torch's DistributedDataParallel over gloo. Two processes
take a batch of 64 each in a step; one process takes both of them, one after the other, so that
batch norms see the same batches. Printed are the largest difference of the losses of all batches
of 20 steps, in float32 on one thread each; then images per second, of one process of two threads
and of two processes of one, in rounds that alternate, in the precision that penjing chooses here.
Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from harness import table
from networks import CifarResNet
from torch import Tensor, distributed, nn
from torch.multiprocessing.spawn import spawn

from penjing.network import capture
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task
from penjing.tune import exchange
from penjing.tune.options import TuneOptions
from penjing.tune.train import train

BATCH = 64
Row = dict[str, Any]


class Recorded:
    """Cross-entropy that remembers what it was."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = nn.functional.cross_entropy(outputs, targets)
        self.losses.append(loss.item())
        return loss


def trained(steps: int, accumulate: int, precision: str) -> tuple[list[float], float]:
    """The losses of all batches of this process, and the seconds of a step."""
    torch.manual_seed(0)
    count, loss = BATCH * 2 * steps, Recorded()
    x, y = torch.randn(count, 3, 32, 32), torch.arange(count) % 10
    data = Arrays(x, y, batch_size=BATCH, shuffle=True)
    task = Task(CifarResNet(20).eval(), x[:2], data, data, loss=loss)
    ends = []
    options = TuneOptions(epochs=1, precision=precision, accumulate=accumulate, device="cpu")
    network = capture(task.model, task.example)
    train(network, task, options, lambda *_: ends.append(time.perf_counter()))
    took = [after - before for before, after in itertools.pairwise(ends[1:])]
    return loss.losses, statistics.median(took)


def one_of_two(rank: int, folder: str, steps: int, precision: str) -> None:
    """A process of two."""
    torch.set_num_threads(1)
    where = f"file://{folder}/meeting"
    distributed.init_process_group("gloo", init_method=where, rank=rank, world_size=2)
    Path(folder, f"{rank}.json").write_text(json.dumps(trained(steps, 1, precision)))
    exchange.leave()
    distributed.destroy_process_group()


def in_two(steps: int, precision: str) -> tuple[list[float], float]:
    """The losses of all batches of two processes, in turns, and the seconds of a step."""
    with tempfile.TemporaryDirectory() as folder:
        spawn(one_of_two, (folder, steps, precision), nprocs=2)  # type: ignore[no-untyped-call]
        first, second = (json.loads(Path(folder, f"{k}.json").read_text()) for k in range(2))
    losses = itertools.chain.from_iterable(zip(first[0], second[0], strict=True))
    return list(losses), max(first[1], second[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    alone, _ = trained(options.steps, 2, "float32")
    together, _ = in_two(options.steps, "float32")
    apart = max(abs(a - b) for a, b in zip(alone, together, strict=True))
    print(f"losses of {options.steps} steps, from {alone[0]:.4f} to {alone[-1]:.4f}: ", end="")
    print(f"the largest difference is {apart:.2g}\n")
    torch.set_num_threads(2)
    rows: list[Row] = []
    for _ in range(options.rounds):
        _, one = trained(options.steps, 2, "auto")
        _, two = in_two(options.steps, "auto")
        images = 2 * BATCH
        rows.append({"one process": images / one, "two": images / two, "ratio": one / two})
        print(rows[-1], flush=True)
    print(table(rows, list(rows[0]), lambda _, value: f"{value:.3g}"))
    print(f"median ratio: {statistics.median(row['ratio'] for row in rows):.3f}")
    if options.json:
        options.json.write_text(json.dumps({"apart": apart, "speed": rows}, indent=1))


if __name__ == "__main__":
    main()
