"""The command line: reads arguments, calls the rest, prints."""

from penjing.cli.commands import main

__all__ = ["main"]
