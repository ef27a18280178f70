"""Receipts: made with the step they tell of, kept until they are shown to be anchored.

Guarantees: a receipt is in the queue before anybody hears of its outcome; it is sent in order,
again and again; it leaves when a proof shows its inclusion in the release's log under a root the
ledger commits to, from whichever registry. That one said "accepted" is not enough.

It does *not* retry by itself: `deliver` is one round.
"""

from __future__ import annotations

from collections.abc import Callable

from device_client.core.book import Book, Queued
from device_client.core.trust import Equivocation
from device_client.memory import Memory
from device_client.ports import Source
from device_client.profile import Parts, Profile
from protocol.bundle import MAX_ACK_BYTES, Acknowledgement, Fresh, View
from protocol.errors import FirmledgerError, Malformed, Unreachable, Untrusted
from protocol.ids import Version
from protocol.receipt import Consent, Outcome, Receipt, receipt_leaf


class Outbox:
    """The receipts of one device."""

    def __init__(self, profile: Profile, parts: Parts, memory: Memory) -> None:
        """Receipts are signed by ``parts.identity`` and kept in ``memory``."""
        self._profile, self._parts, self._memory = profile, parts, memory

    def concluded(
        self,
        book: Book,
        release_id: int,
        outcome: Outcome,
        reason: str,
        versions: tuple[Version, Version],
        consent: Consent | None = None,
    ) -> Book:
        """``book`` with a receipt at the end of its queue, unless it was made before.

        ``versions``: what ran before and what runs after. The caller commits the book.
        """
        if not book.wants(release_id, outcome, reason):
            return book
        memory = self._memory
        counter_before = memory.book.state.counter
        receipt = Receipt(
            product=self._profile.trust.product_id,
            release=release_id,
            outcome=outcome,
            reason=reason,
            version_before=versions[0],
            version_after=versions[1],
            counter_before=counter_before,
            counter_after=max(counter_before, book.state.counter),
            height=memory.trust.height,
            time=memory.clock(),
            sequence=book.sequence,
            previous=book.previous,
            consent=consent,
        )
        return book.queued(self._parts.identity.sign(receipt), release_id, outcome, reason)

    def refused(self, release_id: int, reason: str, version: int = 0) -> None:
        """Remember a refusal and queue its receipt; release 0 is one that the ledger has not."""
        book = self._memory.noted("refused", release_id, version, reason)
        record = self._parts.boot.record()
        running = record.entry(record.running).version
        book = self.concluded(book, release_id, Outcome.REFUSED, reason, (running, running))
        self._memory.commit(book)

    def deliver(
        self, prove: Callable[[Fresh], View], beat: Callable[[], None] = lambda: None
    ) -> int:
        """One round: hand over every receipt, ask for its proof; how many are left.

        ``prove`` moves trust by the proof of an acknowledgement; ``beat`` hears before each receipt
        that the round goes on. What the source gets wrong is
        raised (`Unreachable`, `Malformed`, `Untrusted`), and no receipt is lost by it.
        """
        memory, problem = self._memory, None
        for queued in memory.book.queue:
            beat()
            try:
                self._forward(queued, prove)
            except Unreachable:
                raise
            except FirmledgerError as error:
                problem = problem or error  # one receipt in trouble does not hold up the others
        if problem is not None:
            raise problem
        return len(memory.book.queue)

    def _forward(self, queued: Queued, prove: Callable[[Fresh], View]) -> None:
        memory, source = self._memory, self._parts.source
        source.send(queued.receipt)  # every time: who took it last time may have lost it since
        memory.commit(memory.book.handed_over(queued.receipt))
        problem: FirmledgerError | None = None
        answered = False
        for one in source.each():
            try:
                if self._acknowledged(queued, one, prove):
                    return
                answered = True
            except Equivocation:
                raise
            except (Unreachable, Malformed, Untrusted) as error:
                problem = problem or error
        if problem is not None and not (answered and isinstance(problem, Unreachable)):
            raise problem

    def _acknowledged(self, queued: Queued, source: Source, prove: Callable[[Fresh], View]) -> bool:
        """Whether the source proves that the receipt is anchored; it leaves the queue then."""
        leaf = receipt_leaf(queued.receipt)
        raw = source.acknowledgement(leaf, MAX_ACK_BYTES)
        if raw is None:
            return False
        shown = Acknowledgement.decode(raw)
        view = prove(shown.fresh)
        # What is not on the ledger has no log of its own: any release's of this product will do.
        release_id = queued.release_id or (view.release.release_id if view.release else 0)
        shown.check(leaf, release_id, view)
        self._memory.commit(self._memory.book.acknowledged(queued.receipt))
        return True
