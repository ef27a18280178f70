"""Long polling: requests that wait until the ledger says something else, without a thread each."""

from __future__ import annotations

import asyncio
from contextlib import suppress


class Changes:
    """Wakes whoever waits after every new head; made and used in one event loop."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._next = asyncio.Event()

    def notify(self) -> None:
        """Wakes everyone; from any thread, also after the loop is gone."""
        with suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._wake)

    def next(self) -> asyncio.Event:
        """The event of the next change; take it *before* looking at what may change."""
        return self._next

    async def wait(self, change: asyncio.Event, seconds: float) -> bool:
        """True when the change came, False when the time was over."""
        with suppress(TimeoutError):
            await asyncio.wait_for(change.wait(), seconds)
        return change.is_set()

    def _wake(self) -> None:
        self._next.set()
        self._next = asyncio.Event()
