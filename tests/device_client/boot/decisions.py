"""What a bootloader has to decide, in every state of a board: `core.slots`, asked for each."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from device_client.core.slots import BootRecord, Entry, Standing, choose, counted, given_up
from protocol.errors import LocalFault
from tests.device_client.boot.boards import entry

State = tuple[BootRecord, bool, bool]
"""A record, and whether the image in slot a, and that in slot b, is intact."""


def states(counts: Sequence[int]) -> list[State]:
    """Both primaries x what the other slot is x attempts x which images are intact."""
    found = []
    for primary, standing, attempts, ok_a, ok_b in itertools.product(
        "ab", Standing, counts, (True, False), (True, False)
    ):
        left = attempts if standing is Standing.TRIAL else 0
        if attempts != left:
            continue
        good = entry(1, Standing.GOOD)
        other = Entry() if standing is Standing.EMPTY else entry(2, standing)
        a, b = (good, other) if primary == "a" else (other, good)
        found.append((BootRecord(primary, primary, left, a, b), ok_a, ok_b))
    return found


def rules(state: State) -> tuple[str, BootRecord]:
    """(slot, record left behind) by `core.slots`; no slot if nothing boots."""
    record, ok_a, ok_b = state
    counted_down = counted(record)
    try:
        chosen = choose(counted_down, lambda slot: ok_a if slot == "a" else ok_b)
    except LocalFault:
        return "", given_up(counted_down) if counted_down.trial else counted_down
    return chosen.running, chosen
