"""The terminal, at the one edge where texts reach it: what others named is shown, never obeyed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import rich.console
from rich.console import ConsoleOptions, RenderableType
from rich.segment import Segment
from rich.text import Text

from penjing.printable import printable


class Console(rich.console.Console):
    """Rich's, that writes no control characters but its own.

    Texts are made printable before they are laid out, so that tables stay straight; and once more
    where they leave, whatever way they came.

    Args:
        spelled: how a text is written here that names options as Python does.
        options: Rich's own.
    """

    def __init__(self, spelled: Callable[[str], str] = str, **options: Any) -> None:
        super().__init__(**{"emoji": False, **options})  # :x: in a name is a name
        self.spelled = spelled

    def render_str(self, text: str, **options: Any) -> Text:
        """See Rich."""
        return super().render_str(printable(self.spelled(text)), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """See Rich."""
        for segment in super().render(renderable, options):
            text = segment.text if segment.control else printable(segment.text)
            yield segment if text == segment.text else Segment(text, segment.style)
