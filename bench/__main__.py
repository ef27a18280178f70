"""Measures, prints a table, and writes ``bench/results.json`` and the README's table of it.

Each module of this room has ``rows()``, which measures as it goes and yields dicts of name, value,
unit, against (the limit or the peer measured beside it), ratio (value / against) and how. What
cannot be measured on a machine is absent, never estimated.

Gas does not depend on the machine: where a figure is over 2 % above the one in the committed
results, the run fails and keeps the old results, unless ``--accept`` says that this is meant.
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

from bench import readme

ROOMS = ("gas", "proof", "device", "registry", "crash")
RESULTS = Path(__file__).parent / "results.json"
GAS_DRIFT = 1.02

Row = dict[str, Any]


def measure(rooms: list[str], console: Console) -> list[Row]:
    """The rows of ``rooms`` in order, with a line of progress for each."""
    rows = []
    for room in rooms:
        module = importlib.import_module(f"bench.{room}")
        for row in module.rows():
            console.print(f"  {row['name']} = {row['value']} {row['unit']}")
            rows.append(row)
    return rows


def drifted(before: list[Row], now: list[Row]) -> list[str]:
    """A sentence for each gas figure that got worse by more than `GAS_DRIFT`."""
    known = {row["name"]: row["value"] for row in before}
    return [
        f"{row['name']} takes {row['value']} gas, it took {known[row['name']]}"
        for row in now
        if row["unit"] == "gas" and row["value"] > known.get(row["name"], row["value"]) * GAS_DRIFT
    ]


def show(rows: list[Row]) -> None:
    """The table, on standard output."""
    table = Table("name", "value", "unit", "against", "ratio", title="Firmledger, measured")
    for row in rows:
        table.add_row(*(str(row[key]) for key in ("name", "value", "unit", "against", "ratio")))
    Console(width=None if sys.stdout.isatty() else 100).print(table)


def main() -> int:
    """The command: exit code 0, or 1 if gas drifted."""
    parser = argparse.ArgumentParser(prog="make bench", description=__doc__)
    parser.add_argument("rooms", nargs="*", default=list(ROOMS), metavar="ROOM", help=str(ROOMS))
    parser.add_argument("--accept", action="store_true", help="take worse gas figures as meant")
    args = parser.parse_args()
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    rows = measure(args.rooms, Console(stderr=True))
    show(rows)
    worse = drifted(before, rows)
    if worse and not args.accept:
        why = "; ".join(worse)
        print(f"error: results not kept / {why} / mend it, or say ARGS=--accept", file=sys.stderr)
        return 1
    measured = {row["name"] for row in rows}
    whole = set(args.rooms) == set(ROOMS)
    kept = [] if whole else [row for row in before if row["name"] not in measured]
    order = {row["name"]: place for place, row in enumerate(before)}
    everything = sorted(kept + rows, key=lambda row: order.get(row["name"], len(order)))
    RESULTS.write_text(json.dumps(everything, indent=1) + "\n")
    readme.write(everything)
    return 0


if __name__ == "__main__":
    sys.exit(main())
