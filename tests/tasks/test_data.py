"""Data: lengths that are true, splits that hold nothing twice, and lines for what can't be used."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from penjing.contract import Measurement
from penjing.errors import InputError
from penjing.measure.parity import parity
from penjing.network import capture
from penjing.report.table import headings
from penjing.tasks.batches import Reading, Wanted, number_of_batches, number_of_samples, reading
from penjing.tasks.checks import check, require_scores, require_telling_scores
from penjing.tasks.data import Arrays, calibration, first
from penjing.tasks.metrics import Metric
from penjing.tasks.overlap import require_apart
from penjing.tasks.splits import with_validation
from penjing.tasks.task import Task
from penjing.trials.result import Result
from penjing.tune.options import TuneOptions
from penjing.tune.train import train
from tests.fits import trial


def _task(train: Any, **changes: Any) -> Task:
    torch.manual_seed(0)
    x, y = torch.randn(40, 6), torch.arange(40) % 4
    held_out = Arrays(x, y, batch_size=16)
    values = {"model": nn.Linear(6, 4).eval(), "example": x[:2], "train": train, "test": held_out}
    return Task(**values | changes)


def _samples(batches: Any) -> Tensor:
    return torch.cat([x for x, _ in batches])


def test_the_length_of_arrays_is_the_number_of_batches_they_give() -> None:
    for samples in range(60):
        for size in (*range(1, 20), 59, 60, 100):
            arrays = Arrays(torch.zeros(samples, 1), torch.zeros(samples), batch_size=size)
            found = [len(targets) for _, targets in arrays]
            assert len(arrays) == len(found)
            assert sum(found) == samples
            assert found[-1:] != [1] or len(found) == 1  # a last batch of one joins
            assert number_of_batches(reading(arrays, "training")) == len(found)


@pytest.mark.parametrize(
    ("y", "how"),
    [
        (torch.arange(500) % 7, "stratified by class"),
        (torch.arange(500) % 2 == 0, "stratified by class"),
        (torch.randn(500), "at random"),
        (torch.randn(500, 3), "at random"),
        (torch.arange(500), "at random"),
    ],
)
def test_a_tenth_is_set_aside_and_how_is_said(y: Tensor, how: str) -> None:
    x = torch.arange(500.0)[:, None]
    whole = Arrays(x, y, batch_size=32, shuffle=True, augment="crop")
    task, note = with_validation(_task(whole))
    assert note == (
        f"no validation data was given, so {len(task.validation.y)} of 500 training samples "  # type: ignore[union-attr]
        f"were set aside, {how}"
    )
    assert isinstance(task.train, Arrays)
    assert isinstance(task.validation, Arrays)
    assert 45 <= task.validation.samples <= 55
    both = torch.cat([task.train.x, task.validation.x]).flatten()
    assert torch.equal(both.sort().values, x.flatten())
    assert (task.train.shuffle, task.train.augment) == (True, "crop")
    assert (task.validation.shuffle, task.validation.augment) == (False, None)
    if "class" in how:
        assert set(task.validation.y.tolist()) == set(y.tolist())


class Counted(Dataset[tuple[Tensor, int]]):
    """Samples that know how often they were read, and noise in each if wanted."""

    def __init__(self, count: int, noise: bool = False) -> None:
        self.targets = [number % 5 for number in range(count)]
        self.noise, self.reads = noise, 0

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        noise = torch.rand(1) / 2 if self.noise else torch.zeros(1)
        return torch.tensor([float(index)]) + noise, self.targets[index]


def test_a_loader_is_split_by_index_and_goes_on_to_shuffle_and_augment() -> None:
    dataset = Counted(300)
    task, note = with_validation(_task(DataLoader(dataset, 16, shuffle=True)))
    assert "30 of 300 training samples were set aside, stratified by class" in note
    assert dataset.reads == 2 * 16  # the first batch set aside, twice, to see that it is the same
    assert isinstance(task.train, DataLoader)
    assert isinstance(task.validation, DataLoader)
    train, validation = _samples(task.train), _samples(task.validation)
    assert torch.equal(torch.cat([train, validation]).sort(0).values.flatten(), torch.arange(300.0))
    assert not torch.equal(train, _samples(task.train))
    assert torch.equal(validation, _samples(task.validation))
    assert len(task.train) == number_of_batches(task.train) == 17


@pytest.mark.parametrize("processes", [0, 2])
def test_a_random_dataset_judges_with_the_same_draws_and_none_is_kept(processes: int) -> None:
    dataset = Counted(300, noise=True)
    loader = DataLoader(
        dataset, 16, num_workers=processes, persistent_workers=processes > 0,
        generator=torch.Generator(),
    )  # fmt: skip
    task, note = with_validation(_task(loader))
    assert note.endswith("; the dataset is random, so each pass has the same random numbers")
    assert not isinstance(task.validation, list)
    assert number_of_samples(task.validation) == 30  # type: ignore[arg-type]
    state = torch.get_rng_state()
    once, again = _samples(task.validation), _samples(task.validation)
    assert torch.equal(once, again)
    assert len(set(once.frac().flatten().tolist())) > 1
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(_samples(task.train), _samples(task.train))
    assert torch.equal(_samples(task.train).floor(), _samples(task.train).floor())  # not shuffled


class Own(Dataset[tuple[Tensor, int]]):
    """Noise of a generator of its own, in as many numbers as wanted."""

    def __init__(self, numbers: int) -> None:
        self.numbers, self.draw = numbers, np.random.default_rng(0)

    def __len__(self) -> int:
        return 200

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return torch.tensor(self.draw.random(1)).expand(self.numbers), index % 4


def test_what_no_seed_repeats_is_kept_if_it_is_small_and_else_refused() -> None:
    task, note = with_validation(_task(DataLoader(Own(6), 10)))
    assert note.endswith("they were read once and are kept in memory")
    assert isinstance(task.validation, list)
    with pytest.raises(InputError, match="random in a way that can't be repeated"):
        with_validation(_task(DataLoader(Own(2_000_000), 10)))


def test_few_samples_are_drawn_at_random_and_no_others_are_read() -> None:
    dataset = Counted(1000)
    dataset.targets.sort()
    loader = DataLoader(dataset, 16)
    test = Arrays(torch.zeros(9, 1), torch.zeros(9).long())
    model = nn.Linear(1, 5).eval()
    task, _ = check(_task(loader, example=torch.zeros(2, 1), model=model, test=test))
    for given in (loader, task.train):
        before = dataset.reads
        batches = first(given, 40)
        assert dataset.reads == before + 40
        assert set(torch.cat([y for _, y in batches]).tolist()) == set(range(5))
        assert torch.equal(_samples(batches), _samples(first(given, 40)))


def test_a_loader_whose_sampler_is_its_own_needs_validation_data() -> None:
    sampler = torch.utils.data.WeightedRandomSampler([1.0] * 300, 300)
    with pytest.raises(InputError, match=r"a custom sampler \(WeightedRandomSampler"):
        with_validation(_task(DataLoader(Counted(300), 16, sampler=sampler)))


class Stream(IterableDataset[tuple[Tensor, Tensor]]):
    """Samples of which only the order is known."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        return ((torch.tensor([float(one)]), torch.tensor(one % 4)) for one in range(200))


@pytest.mark.parametrize("size", [10, 50])
@pytest.mark.parametrize("kind", ["list", "numpy"])
def test_batches_are_held_and_not_copied(kind: str, size: int) -> None:
    pairs = [
        (torch.arange(at, at + size).float()[:, None], torch.arange(at, at + size) % 4)
        for at in range(0, 200, size)
    ]
    given: Any = {
        "list": pairs,
        "numpy": [(x.numpy(), y.numpy()) for x, y in pairs],
    }[kind]
    task, note = with_validation(_task(given))
    both = torch.cat([_samples(task.train), _samples(task.validation)])
    assert torch.equal(both.sort(0).values.flatten(), torch.arange(200.0))
    if size == 10:
        assert "20 of 200 training samples were set aside, at random in whole batches" in note
        mine = {x.data_ptr() for x, _ in pairs}
        held = {x.data_ptr() for x, _ in [*task.train, *task.validation]}  # type: ignore[misc]
        assert kind != "list" or held == mine
    else:
        assert "stratified by class" in note


def test_what_can_be_read_only_in_order_needs_validation_data() -> None:
    stream = DataLoader(Stream(), 50)

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            return iter(stream)

    for given, kind in [(stream, "Stream"), (Batches(), "Batches")]:
        line = rf"can be read only in order \({kind}\), .* give validation data"
        with pytest.raises(InputError, match=line):
            with_validation(_task(given))
        task, note = with_validation(_task(given, validation=stream))
        assert (task.train, note) == (given, "")


def test_data_without_a_length_is_counted_once() -> None:
    passes: list[int] = []

    class Batches:
        def __iter__(self) -> Iterator[Any]:
            passes.append(1)
            return iter([(torch.zeros(8, 6), torch.zeros(8).long())] * 5)

    held, said = reading(Batches(), "training"), list[str]()
    assert held.count(said.append) == (5, 40)
    assert said[-1] == "counting the training data, which has no length: 40 samples"
    assert (number_of_batches(held), number_of_samples(held)) == (5, 40)
    assert len(passes) == 1


@pytest.mark.parametrize("samples", [1, 2])
def test_too_few_samples_to_set_some_aside(samples: int) -> None:
    few = Arrays(torch.zeros(samples, 6), torch.zeros(samples))
    with pytest.raises(InputError, match=rf"has {samples} sample\(s\), too few to set some aside"):
        with_validation(_task(few))
    with pytest.raises(InputError, match="training data is empty"):
        with_validation(_task([]))


def test_numpy_batches_and_float64_are_taken() -> None:
    x, y = np.random.default_rng(0).random((40, 6)), np.arange(40, dtype=np.int32) % 4
    batches = [(x[at : at + 8], y[at : at + 8]) for at in range(0, 40, 8)]
    task, _ = check(_task(batches, validation=Arrays(x + 1, y), test=batches))
    inputs, targets = next(iter(task.train))
    assert (inputs.dtype, targets.dtype) == (torch.float32, torch.int64)
    assert {one.dtype for one, _ in task.validation} == {torch.float32}  # type: ignore[union-attr]
    require_scores(task, task.test, loss=True)
    assert [one.dtype for one in calibration(_task(batches), 8)] == [torch.float64]  # as given


def test_what_is_read_later_is_held_to_the_same() -> None:
    good = [(torch.randn(8, 6), torch.arange(8) % 4) for _ in range(100)]

    class Batches:
        """Not in memory, for all that one can tell."""

        def __init__(self, at: int, batch: Any) -> None:
            self.given = [*good[:at], batch, *good[at:]]

        def __iter__(self) -> Iterator[Any]:
            return iter(self.given)

    nan = (torch.full((8, 6), torch.nan), torch.zeros(8).long())
    label = (torch.randn(8, 6), torch.full((8,), 4))
    three = (torch.randn(8, 6), torch.zeros(8).long(), torch.zeros(8))
    for batch, line in [
        (nan, "the training data contains NaN or infinite values in batch 91"),
        (label, "the training labels range from 4 to 4, but the model has 4 outputs"),
        (three, r"training data must be a pair \(inputs, targets\); found 3 values"),
    ]:
        task, _ = check(_task(Batches(90, batch)))
        with pytest.raises(InputError, match=line):
            list(task.train)
        at_once = line.replace("91", "31")
        with pytest.raises(InputError, match=at_once):
            check(_task(Batches(30, batch)))
        with pytest.raises(InputError, match=line):  # a list is in memory
            check(_task(Batches(90, batch).given))


def test_arrays_and_tensor_datasets_are_looked_at_whole() -> None:
    x, y = torch.randn(9000, 6), torch.arange(9000) % 4
    x[8765, 3] = torch.inf
    for given in (Arrays(x, y), DataLoader(TensorDataset(x, y), 8)):
        with pytest.raises(InputError, match=r"data contains NaN or infinite .* sample 8765"):
            check(_task(given))


def test_data_that_judges_must_be_the_same_at_each_pass() -> None:
    x, y = torch.randn(64, 6), torch.arange(64) % 4
    shuffled = DataLoader(TensorDataset(x, y), 16, shuffle=True)
    with pytest.raises(InputError, match="test data gives different samples on each pass"):
        check(_task(Arrays(x, y), test=shuffled))
    task, _ = check(_task(shuffled, test=Arrays(x, y, shuffle=True)))
    assert torch.equal(_samples(task.test), x)


def test_a_last_batch_of_one_is_left_out_of_training() -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 4)).eval()
    batches = DataLoader(TensorDataset(torch.randn(33, 6), torch.arange(33) % 4), 16)
    task = _task(batches, model=model)
    assert [len(y) for _, y in batches] == [16, 16, 1]
    train(capture(model, task.example), task, TuneOptions(epochs=2, device="cpu"))


class Drawn(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.dropout(self.linear(x))


def test_the_mode_of_the_model_is_told_and_left_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Dropout()).train()
    task, notes = check(_task(Arrays(torch.randn(40, 6), torch.arange(40) % 4), model=model))
    assert notes == ("the model was in training mode; penjing uses it in evaluation mode",)
    assert task.model.training
    with pytest.raises(InputError, match="different outputs for the same inputs"):
        check(_task([], model=Drawn()))


def test_classes_that_a_split_lacks_are_told() -> None:
    x, y = torch.randn(80, 6), torch.arange(80) % 4
    few = Arrays(x[y < 3] + 1, y[y < 3])
    _, notes = check(_task(Arrays(x, y), validation=few))
    assert notes == (
        "the validation data has no samples of 1 of the training data's classes (3), so a loss of "
        "accuracy on them goes unnoticed",
    )


def test_overlaps_are_refused_or_told() -> None:
    x, y = torch.randn(9000, 6), torch.arange(9000) % 4
    whole = Arrays(x, y, shuffle=True)
    other = Arrays(torch.randn(500, 6), torch.arange(500) % 4)
    assert require_apart(_task(whole, validation=other)) == ()
    half = Arrays(torch.cat([x[::60], other.x[:450]]), torch.cat([y[::60], other.y[:450]]))
    (note,) = require_apart(_task(whole, validation=half))
    assert re.match(r"(1\d|2\d|3\d)% of the validation data is also in the training data", note)
    loader = DataLoader(TensorDataset(x, y), 32, shuffle=True)
    as_batches = [(x[at : at + 32], y[at : at + 32]) for at in range(0, 9000, 32)]
    for split in ("validation", "test"):
        for learned, judge in [(whole, whole.subset(torch.arange(500))), (loader, as_batches)]:
            task = _task(learned, **{"validation": other, split: judge})
            with pytest.raises(InputError, match=f"the {split} data is training data"):
                require_apart(task)
    few = torch.randint(2, (2000, 3)).float()  # eight inputs are possible, and all are in both
    repeated = Arrays(few, few.sum(1).long())
    notes = require_apart(_task(repeated, validation=repeated.subset(torch.arange(99))))
    assert notes == ("100% of the validation data is also in the training data",)


def _numbers(outputs: int) -> tuple[Any, Any]:
    x = torch.randn(20, 6)
    return capture(nn.Linear(6, outputs).eval(), x[:2]), x


class Same:
    inputs = ()

    def __init__(self, network: Any) -> None:
        self.network = network

    def run(self, inputs: Any) -> Any:
        with torch.no_grad():
            return self.network(torch.from_numpy(inputs)).numpy()


@pytest.mark.parametrize(
    ("outputs", "targets", "decides"),
    [(4, torch.zeros(20).long(), True), (1, torch.zeros(20).long(), False),
     (4, torch.zeros(20, 4), False), (1, torch.zeros(20), False)],
)  # fmt: skip
def test_a_regression_decides_nothing(outputs: int, targets: Tensor, decides: bool) -> None:
    network, x = _numbers(outputs)
    found = parity(network, Same(network), [(x, targets)])
    assert (found.same_decisions is not None) == decides
    assert found.max_difference == 0


def test_the_score_goes_by_the_name_of_its_metric() -> None:
    baseline = trial("original", (), "baseline", measurement=Measurement(metric="r2"))
    result = Result("t", "cpu", "m", "latency", 1.0, 0.95, 0, {}, baseline)
    assert headings(result)[1].startswith("r2")


def test_the_accuracy_is_not_asked_of_what_are_no_classes() -> None:
    x = torch.randn(40, 6)
    regression = _task([(x, torch.randn(40, 4))])
    with pytest.raises(InputError, match=r"accuracy needs one integer class.*metric=Metric"):
        require_scores(regression, regression.train)
    own = dataclasses.replace(regression, metric=Metric("m", lambda out, y: -abs(out - y).mean(1)))
    require_scores(own, own.train)
    squares = dataclasses.replace(own, loss=lambda out, y: (out - y) ** 2)
    with pytest.raises(InputError, match=r"the loss returned a tensor of shape \[40, 4\]; it must"):
        require_scores(squares, own.train, loss=True)


def test_a_metric_that_looks_at_nothing_is_refused_and_others_are_not() -> None:
    x = torch.randn(40, 6)
    mean = _task([(x, torch.randn(40, 4))], metric=Metric("m", lambda o, y: -abs(o - y).mean(1)))
    require_telling_scores(mean, mean.train)
    labels = _task(Arrays(x, torch.arange(40) % 4))
    require_telling_scores(labels, labels.train)
    always_right = _task(Arrays(x, labels.model(x).argmax(1)))
    require_telling_scores(always_right, always_right.train)
    same = dataclasses.replace(labels, metric=Metric("m", lambda o, y: np.full(len(y), 0.5)))
    with pytest.raises(InputError, match=r"every sample the score 0\.5, whatever the outputs are"):
        require_telling_scores(same, same.train)
    require_telling_scores(same, [(x[:8], torch.arange(8) % 4)])  # too few to be sure


def test_the_fields_of_a_task_stand_in_the_order_of_its_docstring() -> None:
    told = re.findall(r"^ {4,8}(\w+): ", inspect.cleandoc(str(Task.__doc__)), re.MULTILINE)
    assert told == [one.name for one in dataclasses.fields(Task)]


def test_a_reading_has_a_length_only_if_the_data_has() -> None:
    assert len(reading([1, 2], "training")) == 2  # type: ignore[arg-type, list-item]
    with pytest.raises(TypeError):
        len(reading(DataLoader(Stream(), 8), "training"))  # type: ignore[arg-type]
    pair = (torch.zeros(4, 1), torch.zeros(4, 1))
    found = Reading([(pair, torch.zeros(4))], "test", Wanted(dict(zip("ab", pair, strict=True))))
    with pytest.raises(
        InputError, match=r"2 input\(s\), but the example has a dict with the keys a, b"
    ):
        list(found)


def test_a_worker_whose_end_is_reported_late_still_gives_one_line(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """PyTorch raises a worker's end wherever the program is, and so while it waits for that end."""

    def signal() -> list[Any]:
        raise RuntimeError("DataLoader worker (pid 7) exited unexpectedly with exit code 1")

    def broken() -> Iterator[Any]:
        yield from _task(None).test
        raise ConnectionResetError("reset by peer")

    monkeypatch.setattr("multiprocessing.active_children", signal)
    with pytest.raises(InputError, match=r"DataLoader worker for the training data died at batch"):
        list(reading(broken(), "training"))


class _Counting(Arrays):
    """Arrays whose constructor takes something else."""

    def __init__(self, samples: int) -> None:
        super().__init__(np.zeros((samples, 2), np.float32), np.arange(samples) % 2, batch_size=4)
        self.asked = 0

    @property
    def samples(self) -> int:
        self.asked += 1
        return super().samples


def test_arrays_of_a_class_of_ones_own_are_cut_and_put_in_order() -> None:
    mine = _Counting(9)
    some = mine.subset([1, 3, 5], batch_size=2)
    assert [len(targets) for _, targets in some] == [3]  # a last batch of one joins the one before
    still = _Counting(9)
    still.shuffle = True
    ordered = still.in_order()
    assert isinstance(ordered, _Counting)
    assert not ordered.shuffle
    assert still.shuffle
    assert ordered.x is still.x
