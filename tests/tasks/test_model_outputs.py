"""Models whose outputs are a type of their own, as those of transformers, which is a dict with
attributes that leaves out what is None."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils import _pytree as pytree

from penjing.errors import InputError
from penjing.network import capture
from penjing.runtimes import OnnxRuntime
from penjing.search.advice.advise import AdviceOptions, advise
from penjing.tasks.checks import check, require_scores
from penjing.tasks.data import Arrays
from penjing.tasks.metrics import Metric
from penjing.tasks.task import Task
from tests.fits import fit
from tests.instruments import Direct, Told, only


class Outputs(OrderedDict[str, Any]):
    """Stands for `ModelOutput`: what isn't None, by name and by attribute."""

    def __init__(self, **parts: Any) -> None:
        super().__init__((name, part) for name, part in parts.items() if part is not None)

    def __getattr__(self, name: str) -> Any:
        return self.get(name)


@pytest.fixture(autouse=True, scope="module")
def registered() -> Iterator[None]:
    """As transformers tells torch of its outputs."""
    pytree.register_pytree_node(
        Outputs,
        lambda outputs: (list(outputs.values()), list(outputs)),
        lambda parts, names: Outputs(**dict(zip(names, parts, strict=True))),
        serialized_type_name="tests.tasks.test_model_outputs.Outputs",
    )
    yield
    pytree._deregister_pytree_node(Outputs)


class Tagger(nn.Module):
    """Classes of texts, from numbers of words and a mask, and what every layer computed."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(20, 12)
        self.inner, self.classes = nn.Linear(12, 24), nn.Linear(24, 3)

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor | None = None
    ) -> Outputs:
        first = self.words(input_ids) * attention_mask.unsqueeze(2)
        second = self.inner(first).relu()
        logits = self.classes(second.mean(1))
        loss = None if labels is None else functional.cross_entropy(logits, labels)
        return Outputs(loss=loss, logits=logits, hidden_states=(first, second))


def _task(**options: Any) -> Task:
    torch.manual_seed(0)
    words = torch.randint(20, (480, 6))
    model = Tagger().eval()
    with torch.no_grad():
        classes = model(words, torch.ones_like(words)).logits.argmax(1)
    train, test, validation = (
        Arrays(
            {"input_ids": words[part], "attention_mask": torch.ones_like(words[part])},
            classes[part],
            batch_size=40,
        )
        for part in torch.arange(480).view(3, 160)
    )
    example = {"input_ids": words[:4], "attention_mask": torch.ones_like(words[:4])}
    return Task(model, example, train, test, validation, source="tagger", **options)


BY_ATTRIBUTE: dict[str, Any] = {"loss": lambda y, t: functional.cross_entropy(y.logits, t)}
BY_NAME: dict[str, Any] = {
    **BY_ATTRIBUTE,
    "metric": Metric("right", lambda y, t: (y["logits"].argmax(1) == t) * 1.0),
}


def test_a_network_gives_the_models_type_and_a_file_a_dict(tmp_path: Path) -> None:
    task = _task()
    network = capture(task.model, task.example)
    outputs = network(**task.example)
    assert type(outputs) is Outputs
    session = OnnxRuntime().load(OnnxRuntime().lower(network, tmp_path / "a.onnx"))
    given = session.run({name: tensor.numpy() for name, tensor in task.example.items()})
    assert list(given) == ["logits", "hidden_states"]
    np.testing.assert_allclose(given["logits"], outputs.logits.detach().numpy(), atol=1e-5)
    second = outputs.hidden_states[1].detach().numpy()
    np.testing.assert_allclose(given["hidden_states"][1], second, atol=1e-5)


@pytest.mark.parametrize("options", [{}, BY_ATTRIBUTE, BY_NAME])
def test_such_a_task_is_fit_and_advised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    """A loss finds attributes, as of the model's own outputs, and a metric finds names."""
    only(monkeypatch, Direct)
    monkeypatch.setattr("penjing.search.strategies.cutting.CUTS", (0.5,))
    told = Told(lambda name: 0.5 if "int8" in name else 1.0)
    given: dict[str, Any] = {
        "epochs": 0.5,
        "out": tmp_path / "out",
        "instruments": told.instruments(),
    }
    result = fit(_task(**options), max_drop=30.0, **given)
    assert result.best is not None

    def ratio(name: str) -> float:
        told.now += 30.0  # two files are all that there is time for
        return 1.0

    told = Told(ratio)
    advice = advise(_task(**options), "cpu", 0.5, AdviceOptions(instruments=told.instruments()))
    assert any(outlook.figures is not None for outlook in advice.outlooks)


def test_a_metric_that_wants_attributes_is_refused_before_any_work() -> None:
    """Files give dicts, and so does the first look at the data."""
    by_attribute = Metric("right", lambda y, t: (y.logits.argmax(1) == t) * 1.0)
    task = _task(metric=by_attribute)
    with pytest.raises(InputError, match=r"'dict' object has no attribute 'logits'.*in a dict"):
        require_scores(task, task.train)


class WithNone(Tagger):
    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Any:  # type: ignore[override]
        return {"logits": super().forward(input_ids, attention_mask).logits, "loss": None}


def test_an_output_that_is_none_is_named() -> None:
    task = _task()
    with pytest.raises(InputError, match="the model's output loss is None; leave it out"):
        check(Task(WithNone().eval(), task.example, task.train, task.test))


def test_networks_of_transformers_as_they_come(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="needs transformers")
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = transformers.BertConfig(vocab_size=20, intermediate_size=32, num_labels=3, **sizes)
    model = transformers.BertForSequenceClassification(config).eval()
    task = _task()
    network = capture(model, task.example)
    session = OnnxRuntime().load(OnnxRuntime().lower(network, tmp_path / "a.onnx"))
    given = session.run({name: tensor.numpy() for name, tensor in task.example.items()})
    with torch.no_grad():
        wanted = model(**task.example).logits.numpy()
    assert list(given) == ["logits"]
    np.testing.assert_allclose(given["logits"], wanted, atol=1e-5)
