"""Requests that wait, without a thread each: for the ledger's next word, or for their turn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from protocol.errors import Unreachable

RUNNING = 2  # requests to the embedded ledger at work at once
QUEUED = 64
PATIENCE = 10.0  # seconds


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


class Turns:
    """Lets few requests run strangers' code at once; some others wait a while."""

    def __init__(
        self, running: int = RUNNING, queued: int = QUEUED, patience: float = PATIENCE
    ) -> None:
        """``patience``: how many seconds one waits for its turn."""
        self._free = asyncio.Semaphore(running)
        self._queued, self._patience = queued, patience
        self.waiting = 0

    @asynccontextmanager
    async def one(self) -> AsyncIterator[None]:
        """One turn; `Unreachable` ``busy`` if it does not come in time, or too many wait."""
        if self._free.locked():
            await self._queue()
        else:
            await self._free.acquire()
        try:
            yield
        finally:
            self._free.release()

    async def _queue(self) -> None:
        if self.waiting >= self._queued:
            raise _busy()
        self.waiting += 1
        try:
            await asyncio.wait_for(self._free.acquire(), self._patience)
        except TimeoutError:
            raise _busy() from None
        finally:
            self.waiting -= 1


def _busy() -> Unreachable:
    return Unreachable(
        "busy",
        "request not answered",
        "the ledger is busy with the requests of others",
        "try again in a moment, or run a node of your own",
    )
