"""The command line: reads arguments, calls the rest, prints."""

from penjing.cli.main import main

__all__ = ["main"]
