"""Measures, prints a table, and writes ``bench/results.json``.

Each module of this room has ``rows()``, which measures as it goes and yields dicts of name, value,
unit, against (the limit or the peer measured beside it), ratio (value / against) and how. What
cannot be measured on a machine is absent, never estimated.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

ROOMS = ("gas", "proof", "device", "registry")
RESULTS = Path(__file__).parent / "results.json"


def measure(rooms: list[str], console: Console) -> list[dict[str, Any]]:
    """The rows of ``rooms`` in order, with a line of progress for each."""
    rows = []
    for room in rooms:
        module = importlib.import_module(f"bench.{room}")
        for row in module.rows():
            console.print(f"  {row['name']} = {row['value']} {row['unit']}")
            rows.append(row)
    return rows


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), metavar="ROOM", help=str(ROOMS))
    chosen = parser.parse_args().rooms
    console = Console(stderr=True)
    rows = measure(chosen, console)
    kept = []
    if set(chosen) != set(ROOMS) and RESULTS.exists():
        measured = {row["name"] for row in rows}
        kept = [r for r in json.loads(RESULTS.read_text()) if r["name"] not in measured]
    RESULTS.write_text(json.dumps(kept + rows, indent=1) + "\n")
    table = Table("name", "value", "unit", "against", "ratio", title="Firmledger, measured")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "value", "unit", "against", "ratio")))
    Console(width=100 if not sys.stdout.isatty() else None).print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
