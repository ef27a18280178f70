"""Power cuts, counted: states tried, bad ones (there must be none), planted faults found.

The harness is that of tests/test_powercut.py, on every boot backend: a chain of updates is cut at
each operation of its medium, with what was not flushed lost, torn or out of order. Counts are
the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.world.flash_boards import BOARDS
from tests.world.life import STORY, Setting
from tests.world.planted import PLANTED
from tests.world.powercut import Tally, examine

AGAIN = {"virtual": 17, "trusting": 97}
RARELY = 151
"""Of every so-manieth state the recovery is cut as well, as in the tests."""


def rows() -> Iterator[dict[str, Any]]:
    """Three rows for each board."""
    for board in BOARDS:
        tally = examine(Setting(board), again=AGAIN.get(board, RARELY))
        yield _row(f"crash.states_{board}", tally.states, "states", None, _how(tally))
        first = f"; the first: {tally.bad[0]}" if tally.bad else ""
        told = f"of {tally.states} devices, those that do not boot, remember, or go on{first}"
        yield _row(f"crash.bad_{board}", len(tally.bad), "bad states", 0, told)
        planted = [fault for fault in PLANTED if fault.board == board]
        missed = [fault.name for fault in planted if fault.find() is None]
        names = ", ".join(fault.name for fault in planted)
        told = f"planted: {names}" + (f"; missed: {', '.join(missed)}" if missed else "")
        found = len(planted) - len(missed)
        yield _row(f"crash.faults_{board}", found, "planted faults found", len(planted), told)


def _how(tally: Tally) -> str:
    stages = ", ".join(f"{stage} {count}" for stage, count in sorted(tally.stages.items()))
    return f"a chain of {len(STORY)} updates; {tally.second} of them second cuts; {stages}"


def _row(name: str, value: int, unit: str, against: int | None, how: str) -> dict[str, Any]:
    ratio = round(value / against, 3) if against else None
    return {
        "name": name,
        "value": value,
        "unit": unit,
        "against": against,
        "ratio": ratio,
        "how": how,
    }
