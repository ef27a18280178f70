"""One simulated clock for the ledger, the registry and every device of a story."""

from __future__ import annotations

import threading
import time


class StoryClock:
    """Runs ``pace`` times as fast as real time, and can be moved forwards; never back.

    Implements the clock ports of both sides. Thread-safe.
    """

    def __init__(self, pace: int = 1) -> None:
        self._pace = pace
        self._start = int(time.time())
        self._began = time.monotonic()
        self._lead = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """Unix seconds of the story."""
        with self._lock:
            passed = (time.monotonic() - self._began) * self._pace
            return self._start + int(passed) + self._lead

    def forward(self, seconds: int) -> None:
        """``seconds`` (not negative) pass at once."""
        if seconds < 0:
            raise ValueError("a story's time does not run backwards")
        with self._lock:
            self._lead += seconds

    def sleep(self, seconds: float) -> None:
        """Let that much of the story's time pass."""
        time.sleep(seconds / self._pace)
