"""Interrupt: Ctrl-C and SIGTERM, remembered because a library may swallow their exception."""

from __future__ import annotations

import signal
from types import FrameType
from typing import Any


class Interrupt:
    """Within this context, both signals raise KeyboardInterrupt at once, and again in `check`.

    Only the main thread can receive signals. In other threads this changes nothing.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Interrupt:
        for number in (signal.SIGINT, signal.SIGTERM):
            try:
                self._before[number] = signal.signal(number, self._stop)
            except ValueError:  # not the main thread
                break
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise KeyboardInterrupt if a signal has arrived."""
        if self.asked:
            raise KeyboardInterrupt

    def _stop(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        raise KeyboardInterrupt
