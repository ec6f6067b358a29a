"""Where the time of a fit goes, by looking at its stack twice a second.

The first of `KINDS` counts of which a module is anywhere on the stack.
"""

from __future__ import annotations

import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

EVERY = 0.5
KINDS = (
    ("penjing/tune/", "training"),
    ("penjing/passes/structure/cut_losses", "measuring losses"),
    ("penjing/measure/latency", "timing"),
    ("penjing/measure/memory", "timing"),
    ("penjing/measure/there", "timing"),
    ("penjing/measure/scores", "scoring"),
    ("penjing/measure/parity", "scoring"),
    ("penjing/passes/rounding/", "calibrating"),
    ("penjing/passes/structure/compensate", "calibrating"),
    ("penjing/passes/", "other passes"),
    ("penjing/runtimes/", "making files"),
    ("penjing/search/predict/", "the search itself"),
    ("penjing/", "all else"),
)
"""By part of a module's path, what is being done there; the first that fits counts."""
NEEDED = {"training", "measuring losses", "timing", "scoring", "calibrating"}
"""Training, calibrating and measuring."""


@contextmanager
def sampled() -> Iterator[Counter[str]]:
    """Counts, while it is open, what the calling thread does."""
    seen: Counter[str] = Counter()
    over, thread = threading.Event(), threading.get_ident()

    def look() -> None:
        while not over.wait(EVERY):
            frame = sys._current_frames().get(thread)
            if frame is not None:
                seen[kind_of(frame)] += 1

    watcher = threading.Thread(target=look, daemon=True)
    watcher.start()
    try:
        yield seen
    finally:
        over.set()
        watcher.join()


def kind_of(frame: FrameType | None) -> str:
    """What is being done in a frame, by all that called it."""
    paths = []
    while frame is not None:
        paths.append(frame.f_code.co_filename.replace("\\", "/"))
        frame = frame.f_back
    fitting = (kind for part, kind in KINDS if any(part in path for path in paths))
    return next(fitting, "all else")


def seconds(seen: Counter[str]) -> dict[str, float]:
    """About how long each kind took."""
    return {kind: EVERY * count for kind, count in seen.items()}


def in_words(seen: Counter[str]) -> str:
    """The shares, the largest first, and what isn't training, calibrating or measuring."""
    total = max(sum(seen.values()), 1)
    rest = sum(count for kind, count in seen.items() if kind not in NEEDED)
    shares = ", ".join(f"{kind} {count / total:.1%}" for kind, count in seen.most_common())
    return f"{shares}; all but training, calibrating and measuring: {rest / total:.1%}"
