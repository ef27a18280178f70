"""The device's book while it is open: what is remembered is what was committed, never more.

`Memory` holds the book and the trusted state in step with the journal: an assignment happens after
the commit that makes it durable, so that an exception in between leaves the old one in both places.
"""

from __future__ import annotations

from dataclasses import replace

from device_client.core.book import Book, Happening, lost
from device_client.core.clock import BUILD_TIME, ClockState, judged
from device_client.core.trust import TrustState
from device_client.ports import Clock, Journal


class Memory:
    """The open book."""

    def __init__(self, journal: Journal, clock: Clock) -> None:
        """Reads the book; `LocalFault` where there is none, for it is never made up anew."""
        raw = journal.read()
        if raw is None:
            raise lost()
        self._journal = journal
        self._device_clock = clock
        self._book = Book.decode(raw)
        self._trust = TrustState.decode(self._book.trust)

    @property
    def book(self) -> Book:
        """What is remembered."""
        return self._book

    @property
    def trust(self) -> TrustState:
        """What is believed of the ledger."""
        return self._trust

    def commit(self, book: Book) -> None:
        """Remember ``book`` durably; nothing is written where nothing changed."""
        if book != self._book:
            self._journal.commit(book.encode())
            self._book = book

    def believe(self, trust: TrustState, book: Book | None = None) -> None:
        """Move trust, durably; with ``book``, what else changes by it in the same commit."""
        self.commit(replace(book or self._book, trust=trust.encode()))
        self._trust = trust

    def clock(self) -> int | None:
        """The clock's time; None if there is none, or it shows a time that is past for certain."""
        now = self._device_clock.now()
        return now if judged(now, self._trust.time) is ClockState.SET else None

    def now(self) -> int:
        """The latest time known to have come."""
        return max(self.clock() or 0, self._trust.time, BUILD_TIME)

    def noted(self, what: str, release_id: int, version: int, reason: str) -> Book:
        """The book with one more line of history, not committed yet."""
        return self._book.noted(Happening(self.now(), what, release_id, version, reason))
