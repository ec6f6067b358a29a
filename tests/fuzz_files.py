"""Files of every runtime with some of their bytes changed: each runs, or is refused in one line.

    python -m tests.fuzz_files --runs 60

prints for each runtime that is installed how many ran and how many were refused. This process never
ends by a file; one that raises anything but a PenjingError ends it with the number that shows it
again.
"""

from __future__ import annotations

import argparse
import collections
import random
import tempfile
from pathlib import Path

import torch
from torch import Tensor, nn

from penjing.errors import PenjingError
from penjing.network import capture
from penjing.passes import Quantize
from penjing.runtimes.contract import Runtime
from penjing.runtimes.registry import ENTRIES, find_runtime
from penjing.tasks.task import Task
from penjing.tools.inputs import opened, random_inputs
from penjing.tools.on_data import require_runs

RUNTIMES = ("onnxruntime", "openvino", "executorch", "litert")


class Net(nn.Module):
    """A convolution, a shortcut, a pool, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.last = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.first(x))
        return self.last(torch.relu(self.second(x) + x).mean((2, 3)))


def made(runtime: Runtime, folder: Path) -> list[Path]:
    """A file of floats and one of integers."""
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8) % 4)]
    task = Task(Net().eval(), batches[0][0][:2], batches, batches)
    network = capture(task.model, task.example)
    rounded = Quantize(samples=8, **runtime.constraints)(network, task)
    return [
        runtime.lower(one, folder / f"{name}{runtime.ending}").path
        for name, one in (("float", network), ("int8", rounded))
    ]


def mutate(content: bytes, draw: random.Random) -> bytes:
    """The bytes with bits flipped, words overwritten, or the end cut off."""
    found = bytearray(content)
    how = draw.randrange(4)
    for _ in range(draw.choice((1, 1, 4, 32))):
        place = draw.randrange(max(1, len(found) - 4))
        if how == 0:
            found[place] ^= 1 << draw.randrange(8)
        elif how == 1:
            word = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, draw.getrandbits(32)))
            found[place : place + 4] = word.to_bytes(4, "little")
        elif how == 2:  # near the start, where the structure is
            place = draw.randrange(min(512, len(found)))
            found[place] = draw.randrange(256)
    if how == 3:
        del found[draw.randrange(len(found)) :]
    return bytes(found)


def outcome(runtime: Runtime, path: Path, contents: list[bytes]) -> str:
    """`"ran"`, or what kind of PenjingError it was."""
    for place, content in zip(runtime.files(path), contents, strict=True):
        place.write_bytes(content)
    try:
        with opened(path, runtime.name, whole=True) as (session, _):
            require_runs(str(path), session, random_inputs(session.inputs))
    except PenjingError as error:
        why = error
    else:
        return "ran"
    assert str(path) in str(why)
    died = "died" if "the runtime crashed" in str(why) else ""
    return died or f"refused with {why.exit_code}"


def fuzz(name: str, runs: int, start: int = 0) -> collections.Counter[str]:
    """How often each outcome came, of a runtime's files."""
    runtime, counts = find_runtime(name), collections.Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        good = [[one.read_bytes() for one in runtime.files(p)] for p in made(runtime, Path(folder))]
        mutant = Path(folder) / f"mutant{runtime.ending}"
        assert all(outcome(runtime, mutant, contents) == "ran" for contents in good)
        for number in range(start, start + runs):
            draw = random.Random(number)
            contents = list(draw.choice(good))
            place = draw.randrange(len(contents))
            contents[place] = mutate(contents[place], draw)
            try:
                counts[outcome(runtime, mutant, contents)] += 1
            except BaseException:
                print(f"{name}, run {number} (--only {name} --start {number} --runs 1)")
                raise
    return counts


def main() -> None:
    """Count."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--start", type=int, default=0)
    parser.add_argument("--only", choices=RUNTIMES)
    given = parser.parse_args()
    for name in [given.only] if given.only else RUNTIMES:
        if ENTRIES[name].absent:
            print(f"{name}: not installed")
            continue
        counts = fuzz(name, given.runs, given.start)
        told = ", ".join(f"{count} {what}" for what, count in sorted(counts.items()))
        print(f"{name}: {given.runs} files: {told}; this process is alive", flush=True)


if __name__ == "__main__":
    main()
