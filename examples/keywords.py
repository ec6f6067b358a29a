"""Keyword spotting: `penjing fit examples/keywords.py --max-drop 1.0`.

Is one of five words said in a second of sound, or another? They are synthesised: two formants glide
from vowel to vowel, in a voice of any pitch and speed, in noise. The data is spectrograms, as a
device makes them of its microphone, so the network gets no sound. It learns in half a minute.
"""

import numpy as np
import torch
from torch import Tensor, nn

import penjing

RATE = 8000  # samples of sound in a second
VOWELS = {"a": (750, 1200), "e": (450, 1900), "i": (280, 2300), "o": (450, 850), "u": (310, 700)}
WORDS = ("ai", "ia", "oe", "ue", "ao")


def sound(word: str, draw: np.random.Generator) -> np.ndarray:
    """A second with a word in it, at any place, by a speaker of any pitch, size and speed."""
    length = int(draw.uniform(0.4, 0.9) * RATE)
    time, turn = np.linspace(0, len(word) - 1, length), 2 * np.pi / RATE
    pitch = np.linspace(draw.uniform(90, 250), draw.uniform(90, 250), length)
    voice = np.exp(3 * np.cos(turn * pitch.cumsum()) - 3)
    for steps in np.array([VOWELS[vowel] for vowel in word]).T * draw.uniform(0.85, 1.2):
        formant = np.interp(time, np.arange(len(word)), steps)
        voice = voice * (1 + np.sin(turn * formant.cumsum()))
    before = draw.integers(RATE - length)
    return np.pad(voice * draw.uniform(0.3, 1.0), (before, RATE - length - before))


def spectrograms(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Spectrograms of shape (N, 1, 32 bands, 50 times), and which word is in each of them."""
    draw = np.random.default_rng(seed)
    others = [a + b for a in VOWELS for b in VOWELS if a + b not in WORDS]
    classes = draw.integers(0, len(WORDS) + 1, count)
    words = [WORDS[kind] if kind < len(WORDS) else str(draw.choice(others)) for kind in classes]
    clean = np.stack([sound(word, draw) for word in words])
    noisy = torch.tensor(clean + draw.normal(0, 0.3, clean.shape)).float()
    bins = torch.stft(noisy, 256, 160, window=torch.hann_window(256), return_complex=True).abs()
    bands = bins[:, 1:97, :50].reshape(count, 32, 3, 50).mean(2)  # up to 3 kHz
    return (bands + 0.1).log()[:, None], torch.tensor(classes)


def network(width: int) -> nn.Sequential:
    """Four convolutions, and the mean over bands and times: x_N1FT -> y_NK."""
    layers, before = list[nn.Module](), 1
    for size, stride in ((width, 1), (width, 2), (2 * width, 2), (2 * width, 2)):
        layers.append(nn.Conv2d(before, size, 3, stride, 1, bias=False))
        layers += [nn.BatchNorm2d(size), nn.ReLU()]
        before = size
    head = nn.Linear(before, len(WORDS) + 1)
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


def task(width: int = 24, epochs: int = 6, count: int = 3000) -> penjing.Task:
    """The trained network and its data; the metric is accuracy, as by default."""
    train = penjing.Arrays(*spectrograms(count, seed=1), batch_size=32, shuffle=True)
    validation = penjing.Arrays(*spectrograms(1000, seed=2))
    test = penjing.Arrays(*spectrograms(1000, seed=3))
    torch.manual_seed(0)
    model, loss = network(width), nn.CrossEntropyLoss()
    optimizer = torch.optim.Adam(model.parameters())
    rates = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1e-2, epochs * len(train))
    for _ in range(epochs):
        for x, y in train:
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
            rates.step()
    return penjing.Task(model.eval(), test.x[:2], train, test, validation, name="keywords")
