"""One simulated clock for the ledger, the registry and every device of a story."""

from __future__ import annotations

import threading
import time


class StoryClock:
    """Runs with real time, and can be moved forwards by whole spans; never back. Thread-safe."""

    def __init__(self) -> None:
        self._lead = 0
        self._lock = threading.Lock()

    def now(self) -> int:
        """Unix seconds of the story."""
        with self._lock:
            return int(time.time()) + self._lead

    def forward(self, seconds: int) -> None:
        """``seconds`` (not negative) pass at once."""
        if seconds < 0:
            raise ValueError("a story's time does not run backwards")
        with self._lock:
            self._lead += seconds
