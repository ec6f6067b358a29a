"""`penjing targets` and `penjing runtimes`: what there is."""

from __future__ import annotations

import json
from dataclasses import asdict

from penjing.cli.console import console
from penjing.cli.flags import AsJson


def targets(as_json: AsJson = False) -> None:
    """List the devices that penjing knows, each with the source of its figures."""
    from penjing.report.table import targets_table
    from penjing.targets import all_targets

    known = all_targets()
    if as_json:
        print(json.dumps({name: asdict(target) for name, target in known.items()}))
    else:
        table = targets_table(known)
        table.caption_justify = "left"
        table.caption = "sources of all figures: penjing targets --json"
        console().print(table)


def runtimes(as_json: AsJson = False) -> None:
    """List the runtimes that penjing lowers to, and the line that installs one that is missing."""
    from penjing.report.table import runtimes_table
    from penjing.runtimes.registry import ENTRIES

    if as_json:
        rows = {
            name: asdict(entry) | {"version": entry.version, "missing": entry.missing}
            for name, entry in ENTRIES.items()
        }
        print(json.dumps(rows))
    else:
        console().print(runtimes_table(ENTRIES))
