"""What a device that is set up again keeps, and what a factory reset takes away: pure.

Rules:

* Accepted height and time, statuses seen, the number of the last re-anchor and the security counter
  outlive both (promise 3): a device is not made to forget what it saw by setting it up again.
* Receipts on their way, and what was said before, outlive both: one final outcome per release.
* What concerns another product, or another ledger, is not carried over: its heights, counters and
  releases are counted there.
* The penalty box, consents and half an installation outlive neither: whoever stands beside the
  device knows what he does.

The device's key, and what is in the slots, are not in the book and not touched here.
"""

from __future__ import annotations

from dataclasses import replace

from device_client.core.belief import TrustState
from device_client.core.book import Book
from device_client.core.machine import BOOTING, Stage, State
from device_client.core.slots import BootRecord, Standing
from protocol.errors import Refused
from protocol.receipt import NO_PREVIOUS
from protocol.trustfile import TrustFile


def first(trusted: TrustFile, counter: int = 0) -> Book:
    """The book of a device that knows its trust file and, at most, a security counter."""
    return Book(State(counter=counter), TrustState.first(trusted).encode())


def counter_of(record: BootRecord) -> int:
    """The highest security counter of an image that was confirmed here."""
    good = [e.security_counter for e in (record.a, record.b) if e.standing is Standing.GOOD]
    return max(good, default=0)


def carried_over(book: Book, before: TrustFile, trusted: TrustFile) -> Book:
    """The book of a device that is set up again with ``trusted``; ``before``: its trust file."""
    if before.product_id != trusted.product_id:
        return first(trusted)
    state = State(counter=book.state.counter)
    trust = TrustState.decode(book.trust)
    believed = trust.anchor(before.anchor).ledger
    if trusted.anchor.ledger not in (believed, before.anchor.ledger):
        return replace(first(trusted, state.counter), history=book.history)
    if trust.frozen or trusted.min_height > trust.height:
        # The trust file leads on from here; the block kept is no evidence against its validators.
        trust = replace(
            trust,
            height=max(trust.height, trusted.min_height),
            header=b"",
            evidence=(),
            validators=trusted.validators,
        )
    return replace(book, state=state, trust=trust.encode(), consent=None, failures=0, spoilt=None)


def as_another(book: Book) -> Book:
    """The book of a device that lost its key, and is another one from now on: it has said nothing
    yet. Receipts that the former one signed are still its word."""
    return replace(book, sequence=0, previous=NO_PREVIOUS, spoken=())


def reset(book: Book) -> Book:
    """The book after a factory reset; `Refused` while the boot record has the word."""
    if book.state.stage in BOOTING:
        raise Refused(
            "trial-pending",
            "factory reset refused",
            f"an image is on its way through a trial, the device is {book.state.stage}",
            "let the trial end first: `firmledger-device update`, `confirm` or `rollback`",
        )
    stage = book.state.stage if book.state.stage is Stage.FROZEN else Stage.IDLE
    state = State(stage=stage, counter=book.state.counter)
    return replace(book, state=state, consent=None, failures=0, spoilt=None, history=())
