"""Tasks that can't be used, each in one way; the command line names them by `tests.bad_tasks:`."""

from __future__ import annotations

import atexit
import copy
import functools
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn.utils import prune
from torch.utils.data import DataLoader, Dataset, IterableDataset

from penjing.tasks.data import Arrays, npz
from penjing.tasks.metrics import Metric, correct
from penjing.tasks.reading.images import ImageFolder
from penjing.tasks.task import Task

CLASSES = 4


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.head = nn.Linear(8, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.conv(x)).relu().mean((2, 3)))


COLOURS = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]])


def samples(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Images of four colours under noise."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % CLASSES
    noise = torch.randn(count, 3, 8, 8, generator=draw)
    return COLOURS[labels][:, :, None, None] + noise / 2, labels


@functools.cache
def _learnt() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network, (x, y) = Small(), samples(64, 9)
        optimizer = torch.optim.Adam(network.parameters(), 0.03)
        for _ in range(60):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(network(x), y))
            optimizer.step()
    return network.eval()


def model() -> nn.Module:
    """A network that tells the colours apart."""
    return copy.deepcopy(_learnt())


def good(of: nn.Module | None = None, **changes: Any) -> Task:
    """A task that can be used, with changes."""
    given: dict[str, Any] = {
        "model": of or model(),
        "example": samples(2, 0)[0],
        "train": Arrays(*samples(64, 1), batch_size=16),
        "test": Arrays(*samples(64, 2), batch_size=16),
        "validation": Arrays(*samples(64, 3), batch_size=16),
    }
    return Task(**given | changes)


def with_weight(name: str, value: float) -> Task:
    network = model()
    tensor = network.state_dict()[name]
    tensor.view(-1)[0] = value
    return good(network)


def nan_weight() -> Task:
    return with_weight("conv.weight", torch.nan)


def infinite_weight() -> Task:
    return with_weight("head.bias", torch.inf)


def negative_variance() -> Task:
    return with_weight("norm.running_var", -1.0)


def training_mode() -> Task:
    return good(model().train())


class Bare(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3))


def no_parameters() -> Task:
    return good(Bare())


def zero_weights() -> Task:
    network = model()
    for one in network.parameters():
        one.data.zero_()
    return good(network)


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.other = nn.Linear(8, 8), nn.Linear(8, 8)
        self.other.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.other(self.one(x.mean((1, 2))))[:, :CLASSES]


def tied_weights() -> Task:
    return good(Tied().eval())


def non_contiguous_weights() -> Task:
    network = model()
    head = network.get_submodule("head")
    assert isinstance(head, nn.Linear)
    head.weight = nn.Parameter(head.weight.data.t().contiguous().t())
    return good(network)


class Branching(Small):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            return super().forward(x)
        return super().forward(-x)


def control_flow() -> Task:
    return good(Branching().eval())


class Bessel(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(torch.special.bessel_j0(x))


def unknown_operator() -> Task:
    return good(Bessel().eval())


class TwoInputs(Small):
    def forward(self, x: Tensor, scale: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x) * scale


def several_inputs() -> Task:
    return good(TwoInputs().eval())


class Silent(Small):
    def forward(self, x: Tensor) -> None:  # type: ignore[override]
        super().forward(x)


def no_output() -> Task:
    return good(Silent().eval())


class Random(Small):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + torch.rand(1)


def random_output() -> Task:
    return good(Random().eval())


def double_weights() -> Task:
    return good(model().double(), example=samples(2, 0)[0].double())


def half_weights() -> Task:
    return good(model().half(), example=samples(2, 0)[0].half())


class Sparse(Small):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.eye(8).to_sparse())


def sparse_buffer() -> Task:
    return good(Sparse().eval())


def missing_keys() -> Task:
    network = model()
    state = network.state_dict()
    del state["head.weight"]
    network.load_state_dict(state)
    return good(network)


def wrong_shape() -> Task:
    network = model()
    network.load_state_dict(network.state_dict() | {"head.weight": torch.zeros(7, 8)})
    return good(network)


def data_parallel() -> Task:
    return good(nn.DataParallel(model()))


def meta_weights() -> Task:
    return good(model().to("meta"))


def pruned_before() -> Task:
    network = model()
    prune.l1_unstructured(network.get_submodule("conv"), "weight", 0.5)  # type: ignore[no-untyped-call]
    return good(network)


def quantized_before() -> Task:
    weight = torch.quantize_per_tensor(torch.randn(8, 8), 0.1, 0, torch.qint8)
    network = model()
    network.register_buffer("codes", weight)
    return good(network)


def empty_data() -> Task:
    return good(train=[])


def one_sample() -> Task:
    x, y = samples(64, 1)
    return good(train=Arrays(x[:1], y[:1]), validation=None)


def channels_last() -> Task:
    x, y = samples(64, 1)
    return good(train=Arrays(x.permute(0, 2, 3, 1), y))


def bytes_as_they_are() -> Task:
    x, y = samples(64, 1)
    return good(train=[(x.to(torch.uint8), y)])


def range_of_bytes() -> Task:
    x, y = samples(64, 1)
    return good(validation=[((x - x.min()) / (x.max() - x.min()) * 255, y)])


def nan_in_data() -> Task:
    x, y = samples(64, 1)
    x[50] = torch.nan
    return good(train=Arrays(x, y))


def nan_in_a_later_batch() -> Task:
    x, y = samples(64, 1)
    x[50] = torch.nan
    return good(train=list(zip(torch.split(x, 16), torch.split(y, 16), strict=True)))


def class_missing() -> Task:
    x, y = samples(64, 2)
    return good(test=Arrays(x[y < 3], y[y < 3]))


def label_outside() -> Task:
    x, y = samples(64, 1)
    y[50] = 9
    return good(train=Arrays(x, y))


def label_outside_later() -> Task:
    x, y = samples(64, 1)
    y[50] = -1
    return good(train=list(zip(torch.split(x, 16), torch.split(y, 16), strict=True)))


def trained_on_validation() -> Task:
    return good(validation=Arrays(*samples(64, 1)))


def calibrated_on_test() -> Task:
    return good(train=Arrays(*samples(64, 2)))


def folder_of_images(*classes: str) -> Path:
    """A folder with three images of each class, until the process ends."""
    folder = tempfile.mkdtemp()
    atexit.register(shutil.rmtree, folder)
    for label in classes:
        Path(folder, label).mkdir()
        for number in range(3):
            image = Image.fromarray(np.full((8, 8, 3), 80 * number, np.uint8))
            image.save(Path(folder, label, f"{number}.png"))
    return Path(folder)


def corrupt_image() -> Task:
    folder = folder_of_images("cat", "dog")
    broken = folder / "dog" / "1.png"
    broken.write_bytes(broken.read_bytes()[:40])
    return good(train=ImageFolder(folder))


def image_of_another_size() -> Task:
    folder = folder_of_images("cat", "dog")
    Image.new("RGB", (8, 9)).save(folder / "dog" / "2.png")
    return good(train=ImageFolder(folder))


class Worker(Dataset[tuple[Tensor, int]]):
    """Samples whose reading goes wrong at one of them."""

    def __init__(self, wrong: Callable[[], Any], at: int = 40) -> None:
        self.wrong, self.at = wrong, at

    def __len__(self) -> int:
        return 64

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        if index == self.at:
            self.wrong()
        return torch.full((3, 8, 8), float(index)), index % CLASSES


def _raise() -> None:
    raise OSError("image 40 is truncated")


def sample_that_cannot_be_read() -> Task:
    return good(train=DataLoader(Worker(_raise), 16))


def dying_worker() -> Task:
    return good(train=DataLoader(Worker(lambda: os._exit(1)), 16, num_workers=1))


def dying_loader_of_test_data() -> Task:
    return good(test=DataLoader(Worker(lambda: os._exit(1), 0), 16, num_workers=1))


class Stream(IterableDataset[tuple[Tensor, int]]):
    """Samples in order, nobody knows how many."""

    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return zip(*samples(64, 1), strict=True)


def stream_without_validation() -> Task:
    return good(train=DataLoader(Stream(), 16), validation=None)


def labels_of_text() -> Task:
    x, y = samples(64, 1)
    pairs = [
        (image, ("red", "green", "blue", "white")[label])
        for image, label in zip(x, y.tolist(), strict=True)
    ]
    return good(train=DataLoader(pairs, 16))  # type: ignore[arg-type]


def labels_of_floats() -> Task:
    x, y = samples(64, 1)
    return good(train=Arrays(x, y.float()))


def folders_of_other_classes() -> Task:
    train, test = (folder_of_images("bird", "cat", "dog"), folder_of_images("bird", "dog"))
    return good(train=ImageFolder(train), test=ImageFolder(test))


def three_things() -> Task:
    x, y = samples(64, 1)
    return good(train=[(x, y, torch.arange(64))])


def object_arrays() -> Task:
    with tempfile.TemporaryDirectory() as folder:
        np.savez(Path(folder, "data.npz"), x=np.array([{}]), y=np.zeros(1))
        return good(train=npz(Path(folder, "data.npz")))


def generator() -> Task:
    return good(train=(one for one in [samples(64, 1)]))


def shuffled_validation() -> Task:
    x, y = samples(64, 3)
    pairs = list(zip(x, y, strict=True))
    return good(validation=DataLoader(pairs, 16, shuffle=True))  # type: ignore[arg-type]


def leaves() -> Iterator[Task]:
    sys.exit(0)


def metric_of_a_function() -> Task:
    return good(metric=correct)


def class_as_model() -> Task:
    return good(Small)  # type: ignore[arg-type]


def metric_that_raises() -> Task:
    return good(metric=Metric("mine", lambda outputs, targets: outputs.argmax(9) == targets))


def metric_of_none() -> Task:
    return good(metric=Metric("mine", lambda outputs, targets: None))  # type: ignore[arg-type, return-value]


def metric_of_one_number() -> Task:
    mean = Metric("mine", lambda outputs, targets: torch.tensor(correct(outputs, targets).mean()))  # type: ignore[arg-type, return-value]
    return good(metric=mean)


def metric_that_looks_at_nothing() -> Task:
    return good(metric=Metric("mine", lambda outputs, targets: np.ones(len(targets))))


def loss_that_raises() -> Task:
    return good(loss=lambda outputs, targets: nn.functional.mse_loss(outputs, targets))


def accuracy_of_numbers() -> Task:
    x, _ = samples(64, 2)
    return good(test=[(x, torch.randn(64))])


def shuffled_labels() -> Task:
    x, y = samples(64, 3)
    order = torch.randperm(64, generator=torch.Generator().manual_seed(0))
    return good(validation=Arrays(x, y[order], batch_size=16))
