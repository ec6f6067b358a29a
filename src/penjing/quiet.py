"""Quiet: hide what other libraries print and log while they work."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress warnings, log lines and prints within this context. Exceptions pass."""
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)


@contextlib.contextmanager
def quiet_below() -> Iterator[None]:
    """As `quiet`, but also silence C++ libraries, which write to the file descriptors directly."""
    before, nowhere = {to: os.dup(to) for to in (1, 2)}, os.open(os.devnull, os.O_WRONLY)
    try:
        for to in before:
            os.dup2(nowhere, to)
        with quiet():
            yield
    finally:
        for to, own in before.items():
            os.dup2(own, to)
            os.close(own)
        os.close(nowhere)
