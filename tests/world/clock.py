"""A clock that moves only when it is told to, or when somebody sleeps."""

from __future__ import annotations


class HandClock:
    """Implements the device's `Clock`; ``now`` None is a clock that was never set."""

    def __init__(self, now: int | None = 1_800_000_000) -> None:
        self.time = now
        self.slept: list[float] = []
        self.since = 0.0

    def now(self) -> int | None:
        return self.time

    def seconds(self) -> float:
        """Implements the device's `Uptime`, too: seconds since it was made."""
        return self.since

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.advance(round(seconds))

    def advance(self, seconds: int) -> None:
        self.since += seconds
        if self.time is not None:
            self.time += seconds
