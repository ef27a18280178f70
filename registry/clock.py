"""The time of this machine, for `serve` and the commands; everything else is told the time."""

from __future__ import annotations

import time


class SystemClock:
    """A `registry.embedded.Clock` of the system's time."""

    def now(self) -> int:
        """Seconds since 1970."""
        return int(time.time())
