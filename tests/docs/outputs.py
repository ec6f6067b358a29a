"""Write what the commands in the documentation print now into its pages.

    python -m tests.docs.outputs docs/runtimes/litert.md ...

A command that is shown without output stays so. An output that ends with a line of three dots is
shown up to its first empty line, and a block `python printed` behind it has the rest. One that has
such a line elsewhere is left as it is.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tests.docs.pages import ROOT, Block, Page, commands, run

CUT = "..."


def refresh(page: Page, folder: Path) -> None:
    """Run the page in a folder, and put the outputs of now in the place of those that it has."""
    lines = page.path.read_text().split("\n")
    printed, last = run(page, folder, as_printed=False), ""
    new: dict[Block, str] = {}
    for block in page.blocks:
        if block.line in printed:
            new[block], last = with_outputs(block, printed[block.line]), printed[block.line][-1]
        elif block.was_printed:
            new[block] = last.partition("\n\n")[2]
    for block, text in reversed(new.items()):
        begin = block.line - 1
        lines[begin : begin + block.text.count("\n")] = text.rstrip("\n").split("\n")
    page.path.write_text("\n".join(lines))


def with_outputs(block: Block, printed: list[str]) -> str:
    """A console block's text with these outputs, one for each command.

    >>> print(with_outputs(Block("console", "$ date\\nold\\n$ cd x\\n", 1), ["new\\n", "more"]))
    $ date
    new
    $ cd x
    """
    parts = [f"$ {part}" for part in f"\n{block.text}".split("\n$ ")[1:]]
    texts = []
    for part, (command, code), output in zip(parts, commands(block.text), printed, strict=True):
        head = part.rstrip("\n").split("\n")[: command.count("\n") + 1]
        told = part.rstrip("\n").split("\n")[len(head) :]
        if told and CUT not in told[:-1] and told != [f"[exit {code}]"]:
            shown = output.partition("\n\n")[0] if told[-1] == CUT else output
            end = [CUT] if told[-1] == CUT else []
            end += [f"[exit {code}]"] if code else []
            told = [line.rstrip() for line in shown.rstrip().split("\n")] + end
        texts.append("\n".join([*head, *told]))
    return "\n".join(texts)


def main() -> None:
    """Refresh the pages that are named."""
    for name in sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            refresh(Page((ROOT / name).resolve()), Path(folder))


if __name__ == "__main__":
    main()
