"""Long polling: requests that wait until the ledger says something else, without a thread each."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Changes:
    """Wakes whoever waits after every new head; made and used in one event loop.

    ``waiting``: how many do. ``closing``: nobody shall wait any more.
    """

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = asyncio.Event()
        self.closing, self.waiting = False, 0

    def close(self) -> None:
        """Nobody waits any more: the server ends. From any thread."""
        self.closing = True
        self.notify()

    def notify(self) -> None:
        """Wakes everyone; from any thread, also after the loop is gone."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def next(self) -> asyncio.Event:
        """The event of the next change; take it *before* looking at what may change."""
        return self._next

    async def wait(self, change: asyncio.Event, seconds: float) -> bool:
        """True when the change came, False when the time was over."""
        self.waiting += 1
        try:
            with suppress(TimeoutError):
                await asyncio.wait_for(change.wait(), seconds)
        finally:
            self.waiting -= 1
        return change.is_set()

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()
