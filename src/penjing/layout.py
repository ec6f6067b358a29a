"""Layout: text in lines of a width, plain, so that a terminal and a pipe show the same.

Prose wraps at words. A name that is too long loses its beginning, because the end of a layer's name
or of a path tells more; and names that were different stay different.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from rich.cells import cell_len

WIDTH = 80
"""Columns of a terminal that says nothing of its width."""
GAP = "  "
Line = str | tuple[str, str]
"""A line, or one with a style."""
GLUE = "\ue000"
"""Stands for a space at which no line ends; a character that no text has."""
LEAST = 8
"""Columns that a column of a table keeps, however narrow the terminal is."""


def wrapped(text: str, width: int = WIDTH, first: str = "", rest: str | None = None) -> list[str]:
    """The text in lines of at most `width` columns, broken between words.

    A word that is wider than a line is cut from the left, unless it holds a slash: paths, addresses
    and the like stay whole and get a line of their own. A percent sign stays with its number.

    Args:
        first: what the first line begins with.
        rest: what all other lines begin with; by default as many spaces.

    >>> wrapped("a line that is too long", 14, "- ")
    ['- a line that', '  is too long']
    """
    rest = " " * cell_len(first) if rest is None else rest
    lines, line, is_empty = [], first, True
    for word in text.replace(" %", f"{GLUE}%").split():
        room = width - cell_len(rest)
        if cell_len(word) > room and "/" not in word:
            word = shortened(word, room)
        if not is_empty and cell_len(line) + 1 + cell_len(word) > width:
            lines.append(line)
            line, is_empty = rest, True
        line += word if is_empty else f" {word}"
        is_empty = False
    return [made.replace(GLUE, " ") for made in (*lines, line.rstrip())]


def in_columns(rows: Sequence[tuple[str, str]], width: int = WIDTH) -> list[str]:
    """A word, and a text that is wrapped beside it. A word that comes again isn't repeated.

    >>> in_columns([("file", "model.onnx"), ("note", "one thing"), ("note", "another")])
    ['file  model.onnx', 'note  one thing', '      another']
    """
    margin = max((cell_len(word) for word, _ in rows), default=0) + len(GAP)
    lines, before = [], ""
    for word, text in rows:
        head = "" if word == before else word
        lines += wrapped(text, width, head + " " * (margin - cell_len(head)), " " * margin)
        before = word
    return lines


def shortened(name: str, width: int) -> str:
    """The name, or as much of its end as fits, behind an ellipsis.

    >>> shortened("backbone.layer4.1.conv2", 16)
    '…layer4.1.conv2'
    """
    if cell_len(name) <= width:
        return name
    end = name[max(0, len(name) - max(width - 1, 1)) :]
    while len(end) > 1 and cell_len(end) > width - 1:
        end = end[1:]
    return "…" + end.lstrip(" .")


def told_apart(names: Sequence[str], width: int) -> list[str]:
    """Names of at most `width` columns; those that were different still are.

    Where the ends are alike, the beginnings stay as well, and what is alike even then is numbered.

    >>> told_apart(["encoder.block.conv", "decoder.block.conv"], 12)
    ['enc…ock.conv', 'dec…ock.conv']
    """
    short = {name: shortened(name, width) for name in names}
    for name in _alike(short):
        begin = name[: max(1, width // 4)]
        short[name] = begin + shortened(name, width - cell_len(begin))
    for number, name in enumerate(_alike(short), start=1):
        short[name] = f"#{number} {shortened(name, width - len(f'#{number} '))}"
    return [short[name] for name in names]


def _alike(short: Mapping[str, str]) -> list[str]:
    """The names whose short forms aren't theirs alone."""
    times = Counter(short.values())
    return [name for name, form in short.items() if times[form] > 1]


def folded(names: Sequence[str], shown: int = 2) -> str:
    """The first names, and how many more there are.

    >>> folded(["a", "b", "c", "d"]), folded(["a", "b", "c"])
    ('a, b, … and 2 more', 'a, b, c')
    """
    if len(names) <= shown + 1:
        return ", ".join(names)
    return f"{', '.join(names[:shown])}, … and {len(names) - shown} more"


def counted(number: int, thing: str) -> str:
    """A number of things.

    >>> counted(1, "file"), counted(3, "file")
    ('1 file', '3 files')
    """
    return f"{number} {thing}" if number == 1 else f"{number} {thing}s"


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        heading: in lines of its own where it holds line breaks.
        right: whether its cells are flush right, as numbers are.
        fit: what happens to cells that are too wide: `"wrap"`, `"cut"` from the left, or nothing.
        mark: how many characters of each cell are a mark, which stays in front of its first line.
    """

    heading: str
    right: bool = False
    fit: str = ""
    mark: int = 0

    @property
    def hanging(self) -> int:
        """By how much further lines of a cell are indented."""
        return self.mark + 2 if self.mark else 0


@dataclass(frozen=True)
class Laid:
    """A table in lines.

    Attributes:
        head: the lines of the headings.
        rows: the lines of each row.
    """

    head: list[str]
    rows: list[list[str]]

    @property
    def body(self) -> list[str]:
        """The lines of all rows."""
        return [line for row in self.rows for line in row]

    @property
    def lines(self) -> list[str]:
        """All of them."""
        return [*self.head, *self.body]


def table(columns: Sequence[Column], rows: Sequence[Sequence[str]], width: int = WIDTH) -> Laid:
    """Rows of cells under their headings, in lines of at most `width` columns.

    Columns whose cells are all empty are left out. Only columns that may wrap or be cut give way.
    """
    used = [at for at in range(len(columns)) if not rows or any(row[at] for row in rows)]
    columns, rows = [columns[at] for at in used], [[row[at] for at in used] for row in rows]
    headings = [column.heading.split("\n") for column in columns]
    natural = [
        max([*map(cell_len, heading), *(_natural(column, row[at]) for row in rows)])
        for at, (column, heading) in enumerate(zip(columns, headings, strict=True))
    ]
    widths = _narrowed(columns, natural, headings, width - len(GAP) * (len(columns) - 1))
    height = max((len(heading) for heading in headings), default=0)
    tops = [[""] * (height - len(heading)) + heading for heading in headings]
    cells = [_fitted(column, [row[at] for row in rows], widths[at])
             for at, column in enumerate(columns)]  # fmt: skip
    laid = [_row(columns, widths, [cell[number] for cell in cells]) for number in range(len(rows))]
    return Laid(_row(columns, widths, tops), laid)


def _natural(column: Column, cell: str) -> int:
    """The width that a cell has in one line, and that its longest word has in another one."""
    words = (cell_len(word) for word in cell.split())
    return max(cell_len(cell), column.hanging + max(words, default=0) if column.mark else 0)


def _narrowed(
    columns: Sequence[Column], natural: list[int], headings: Sequence[Sequence[str]], room: int
) -> list[int]:
    """Widths of which the sum is at most `room`: the widest column that may gives way first."""
    widths = list(natural)
    least = [
        max([LEAST, *map(cell_len, heading)]) if column.fit else width
        for column, width, heading in zip(columns, widths, headings, strict=True)
    ]
    while sum(widths) > room:
        able = [at for at, width in enumerate(widths) if width > least[at]]
        if not able:
            break
        widths[max(able, key=widths.__getitem__)] -= 1
    return widths


def _fitted(column: Column, cells: Sequence[str], width: int) -> list[list[str]]:
    """The lines of each cell of a column."""
    if column.fit == "wrap":
        hanging = " " * column.hanging
        words = list(dict.fromkeys(word for cell in cells for word in cell[column.mark :].split()))
        short = dict(zip(words, told_apart(words, width - len(hanging)), strict=True))
        texts = [" ".join(short[word] for word in cell[column.mark :].split()) for cell in cells]
        return [
            wrapped(text, width, cell[: column.mark], hanging)
            for text, cell in zip(texts, cells, strict=True)
        ]
    if column.fit == "cut":
        return [[cell] for cell in told_apart(cells, width)]
    return [[cell] for cell in cells]


def _row(
    columns: Sequence[Column], widths: Sequence[int], cells: Sequence[Sequence[str]]
) -> list[str]:
    height = max((len(cell) for cell in cells), default=0)
    lines = []
    for at in range(height):
        parts = [cell[at] if at < len(cell) else "" for cell in cells]
        padded = []
        for column, width, part in zip(columns, widths, parts, strict=True):
            space = " " * (width - cell_len(part))
            padded.append(space + part if column.right else part + space)
        lines.append(GAP.join(padded).rstrip())
    return lines
