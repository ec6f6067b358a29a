"""Models are captured as they come: with what their `forward` keeps on them, and numbers that they
take out of tensors. What can't be captured is refused with the line that stands in the way."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from penjing.errors import CaptureError
from penjing.network import capture
from penjing.passes import PruneChannels, Quantize
from penjing.runtimes import OnnxRuntime
from penjing.tasks.data import Arrays
from penjing.tasks.task import Task


class Detector(nn.Module):
    """Keeps its anchors for the shape that it saw last, as many detectors do."""

    anchors = torch.empty(0)
    shape: torch.Size | None = None

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, 2, 1), nn.Conv2d(8, 4, 1)
        self.stride = torch.tensor([2.0, 4.0])

    def forward(self, x: Tensor) -> Any:
        y = self.head(self.stem(x).relu())
        if self.training:
            return [y]
        if self.shape != y.shape:
            self.anchors = self.grid(y)
            self.shape = y.shape
        return (y.flatten(2) + self.anchors) * self.stride[0].item(), [y]

    def grid(self, y: Tensor) -> Tensor:
        side = torch.arange(y.shape[3]) + 0.5
        rows = torch.full((y.shape[2], 1), self.stride[1])  # type: ignore[call-overload]
        return rows.mul(side).flatten()


IMAGES = torch.randn(7, 3, 8, 12, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("seen", [None, 2, 5])
def test_anchors_that_a_model_keeps_for_the_last_shape(seen: int | None) -> None:
    model = Detector().eval()
    if seen:
        model(IMAGES[:seen])
    before = dict(vars(model))
    network = capture(model, IMAGES[:2])
    for samples in (1, 2, 3, 7):
        torch.testing.assert_close(
            network(IMAGES[:samples]), copy.deepcopy(model)(IMAGES[:samples]), rtol=0, atol=0
        )
    assert vars(model) == before
    model(IMAGES)  # and it still works


def test_a_detector_is_cut_rounded_and_exported(tmp_path: Path) -> None:
    data = Arrays(IMAGES, torch.zeros(7, 1))
    task = Task(Detector().eval(), IMAGES[:2], data, data)
    network = capture(task.model, task.example)
    for number, made in enumerate(
        (network, PruneChannels(ratio=0.5)(network, task), Quantize()(network, task))
    ):
        runtime = OnnxRuntime()
        session = runtime.load(runtime.lower(made, tmp_path / f"{number}.onnx"))
        boxes, (maps,) = session.run(IMAGES.numpy())
        with torch.no_grad():
            wanted = made(IMAGES)
        np.testing.assert_allclose(boxes, wanted[0].numpy(), atol=1e-4)
        np.testing.assert_allclose(maps, wanted[1][0].numpy(), atol=1e-4)


class Remembering(nn.Linear):
    """Writes into a buffer and a tensor, and keeps what it computed."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("calls", torch.zeros(()))
        self.total, self.seen = torch.zeros(2), list[Tensor]()

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        self.calls += 1
        self.total += 1.0
        self.seen.append(y)
        return y


def test_a_captured_model_is_left_as_it_was() -> None:
    model = Remembering().eval()
    seen = model.seen
    capture(model, torch.randn(2, 3))
    assert model.seen is seen
    assert not seen
    assert not model.calls.any()
    assert not model.total.any()


class Counted(nn.Linear):
    """Takes a size out of a buffer."""

    bins: Tensor

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("bins", torch.tensor(5))

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).unsqueeze(2) * torch.arange(self.bins.item())


def test_a_number_from_a_buffer_may_be_a_size() -> None:
    model, x = Counted().eval(), torch.randn(4, 3)
    assert torch.equal(capture(model, x)(x[:3]), model(x[:3]))


def _sized(x: Tensor) -> Tensor:
    return x * torch.zeros(int(x.abs().max()) + 1).sum()


def _asserted(x: Tensor) -> Tensor:
    assert torch.isfinite(x).all()
    return x


def _looped(x: Tensor) -> Tensor:
    return torch.stack([x[k] for k in range(len(x))])


def _viewed(x: Tensor) -> Tensor:
    return x.view(2, 3)


def _by_numpy(x: Tensor) -> Tensor:
    return x + torch.from_numpy(x.numpy())


def _counting(x: Tensor, calls: Tensor = torch.zeros(())) -> Tensor:  # noqa: B008
    return x if x.sum() > calls else -x


class Cache:
    """What holds tensors in a way of its own."""


REFUSED: dict[Callable[[Tensor], Tensor], str] = {
    _sized: "makes a number of Python's from a tensor",
    _asserted: "it asserts something about the data; remove that line",
    _looped: "fixes the batch size",
    _viewed: "fixes the batch size",
    _by_numpy: r"it leaves torch with \.numpy\(\)",
    _counting: "its control flow depends on the data",
}


@pytest.mark.parametrize("function", REFUSED)
def test_what_stands_in_the_way_is_named_with_its_line(
    function: Callable[[Tensor], Tensor],
) -> None:
    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(function(x))

    number = function.__code__.co_firstlineno + 1
    with pytest.raises(CaptureError, match=REFUSED[function]) as refused:
        capture(Model(3, 3), torch.randn(2, 3))
    assert f"at test_as_they_come.py:{number}" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_outputs_of_a_type_of_their_own_are_refused() -> None:
    class Model(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return super().forward(x), Cache()

    with pytest.raises(CaptureError, match=r"returns Cache .*set model\.config\.use_cache = Fal"):
        capture(Model(3, 3), torch.randn(2, 3))


class Suppressing(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return self.postprocess_boxes(super().forward(x))

    def postprocess_boxes(self, boxes: Tensor) -> Tensor:
        return boxes[boxes[:, 0].argsort()] if boxes.max() > 0 else boxes


def test_post_processing_is_refused_by_name() -> None:
    message = r"\.py:\d+: postprocess_boxes\(\) is post-processing.*returns what comes before it"
    with pytest.raises(CaptureError, match=message):
        capture(Suppressing(3, 3), torch.randn(2, 3))


class Scaled(nn.Linear):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * x.max().item()


class ScaledByCalls(nn.Linear):
    calls: Tensor

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x) * self.calls.item()


@pytest.mark.parametrize("kind", [Scaled, ScaledByCalls])
def test_a_number_that_is_no_constant_is_refused(kind: type[nn.Linear]) -> None:
    """It is from the data, or from a buffer that the model writes to."""
    message = r"at test_as_they_come\.py:\d+: `return super.*item\(\)` makes a number of Python's"
    with pytest.raises(CaptureError, match=message):
        capture(kind(3, 3), torch.randn(2, 3))
