"""The time of this machine, for `serve` and the commands; everything else is told the time.

And times as people read them.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime


class SystemClock:
    """A `registry.embedded.Clock` of the system's time."""

    def now(self) -> int:
        """Seconds since 1970."""
        return int(time.time())


def moment(seconds: int) -> str:
    """A Unix time for people: UTC, to the second; as a number where no calendar goes so far."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
    except (ValueError, OverflowError, OSError):
        return str(seconds)
