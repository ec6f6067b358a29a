"""Text: `penjing fit examples/text.py --max-drop 1.0`.

A small transformer reads a line of Python's standard library by its characters, and says which of
four packages it is from. The text is that of the Python that runs, so nothing is downloaded, and
another version gives other figures. No file is both in training and test. It learns in a minute.
"""

from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, nn

import penjing

PACKAGES = ("asyncio", "email", "multiprocessing", "xml")
LENGTH = 64  # of a line; what is longer is cut, what is shorter is filled with zeros


class Reader(nn.Module):
    """A transformer over pieces of four characters, and the mean of what it says of them."""

    def __init__(self, width: int, depth: int) -> None:
        super().__init__()
        self.characters = nn.Embedding(128, width // 4)
        self.pieces = nn.Conv1d(width // 4, width, 8, stride=4, padding=2)
        self.places = nn.Parameter(0.02 * torch.randn(LENGTH // 4, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, 0.0, batch_first=True)
        self.blocks = nn.TransformerEncoder(block, depth)
        self.head = nn.Linear(width, len(PACKAGES))

    def forward(self, x: Tensor) -> Tensor:
        """x_NT (the codes of the characters) -> y_NK, a score for each package."""
        pieces = self.pieces(self.characters(x).mT).relu().mT
        return self.head(self.blocks(pieces + self.places).mean(1))


def lines(part: int) -> dict[str, int]:
    """The lines of a fifth of the files, 0 to 4, and the number of the package of each."""
    kinds = dict[str, int]()
    for kind, package in enumerate(PACKAGES):
        spec = find_spec(package)
        assert spec is not None
        for file in sorted(Path(str(spec.origin)).parent.rglob("*.py"))[part::5]:
            every = map(str.strip, file.read_text("utf-8", errors="replace").splitlines())
            kinds |= dict.fromkeys((line for line in every if len(line) > 20), kind)
    return kinds


def arrays(kinds: dict[str, int], shuffle: bool = False) -> penjing.Arrays:
    """The codes of the characters of each line, x_NT, and its package."""
    codes = [[*line.encode("ascii", "replace")[:LENGTH].ljust(LENGTH, b"\0")] for line in kinds]
    return penjing.Arrays(torch.tensor(codes), [*kinds.values()], batch_size=64, shuffle=shuffle)


def task(width: int = 64, depth: int = 2, epochs: int = 6) -> penjing.Task:
    """The trained transformer and its data; the metric is accuracy, as by default."""
    test = lines(4)
    validation = {line: kind for line, kind in lines(3).items() if line not in test}
    known = (lines(0) | lines(1) | lines(2)).items()
    learn = {line: kind for line, kind in known if line not in test and line not in validation}
    train = arrays(learn, shuffle=True)
    torch.manual_seed(0)
    model, loss = Reader(width, depth), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, epochs * len(train))
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            rates.step()
    return penjing.Task(
        model.eval(), train.x[:2], train, arrays(test), arrays(validation), name="text"
    )
