"""Whether a clock may be believed, as far as that is known without another clock.

It is not believed where it shows a time that has passed for certain: one before this software was
made, or before the newest block that was proved, by more than clocks of honest parties differ
(docs/spec/trust.md). Whoever believed such a clock would refuse every block of today as one from
the future. A clock that runs ahead cannot be told from the right time here.
"""

from __future__ import annotations

from enum import StrEnum

BUILD_TIME = 1_760_000_000
"""A time that has passed for certain: no clock that shows an earlier one is believed."""
TOLERANCE = 600
"""Seconds; `protocol.trustfile.FUTURE_TOLERANCE`, without what that loads."""


class ClockState(StrEnum):
    """What there is to say of the clock; the words of ``--json``."""

    SET = "set"
    NOT_SET = "not-set"
    BEHIND = "behind"


def judged(now: int | None, seen: int) -> ClockState:
    """Of a clock that shows ``now``; ``seen``: the time of the newest block that was proved."""
    if now is None or now < BUILD_TIME:
        return ClockState.NOT_SET
    return ClockState.BEHIND if now < seen - TOLERANCE else ClockState.SET
