"""`python -m tests.slow_fit OPTIONS`: `penjing fit` on the slow task, in a runtime that takes no
time to lower to, and with times that are told; so that a test may interrupt it on any machine."""

import sys
from pathlib import Path

import pytest

from penjing.cli.commands import main
from tests.instruments import Direct, Told, only
from tests.slow_task import task

TASK = Path(__file__).with_name("slow_task.py")


def run() -> None:
    patch = pytest.MonkeyPatch()
    only(patch, Direct)
    out = Path(sys.argv[sys.argv.index("--out") + 1])
    patch.setattr(Direct, "store", (out.with_name(f"{out.name}-networks"), task()))
    told = Told(lambda _: 1.0).instruments()
    patch.setattr("penjing.search.options.Instruments", lambda: told)
    options = ["--epochs", "4", "--max-drop", "20", "--goal", "size", "--strategy", "quick"]
    sys.argv = ["penjing", "fit", str(TASK), *options, *sys.argv[1:]]
    main()


if __name__ == "__main__":
    run()
