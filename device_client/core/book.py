"""Everything a device must remember, in one record that is committed as a whole.

Because it is one record, a transition and what follows from it (a receipt, a penalty, the counter)
are durable together or not at all. What boots is not in here: that is the boot record's.

Receipts are linked here (sequence, hash of the previous one): one *final* outcome per release, one
refusal per release and reason. They leave the queue by `acknowledged` alone. Refusals are not even
made when the queue is long; and nothing is installed without `room` for what may come of it, so
that no receipt of a final outcome is ever dropped.

It does *not* sign, send or store anything.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Self

from device_client.core.machine import State
from device_client.core.policy import Spoilt
from device_client.core.types import damaged, natural, octets, truth, words
from protocol import cbor
from protocol.digests import sha256
from protocol.errors import FirmledgerError, LocalFault
from protocol.ids import U32_MAX, Digest, Version
from protocol.receipt import MAX_RECEIPT_BYTES, NO_PREVIOUS, Consent, Outcome

FORMAT = 2
MAX_BOOK_BYTES = 104 * 1024
MAX_QUEUE = 64
REFUSALS_UP_TO = 32
OUTCOMES_TO_COME = 3
"""Of one installation: its own, and the owner's leaving of either of two images afterwards."""
MAX_SPOKEN = 64
MAX_HISTORY = 64
OWNER = "owner"
"""The reason of an outcome that the owner brought about."""


def lost() -> LocalFault:
    """The error for a device without a book: it is never made up anew."""
    return LocalFault(
        "not-set-up",
        "the device's journal refused",
        "nothing was ever written to it, or it was erased",
        "restore journal.bin, or accept its loss with `init --force --forget`",
    )


@dataclass(frozen=True, slots=True)
class Queued:
    """A signed receipt on its way. ``sent``: handed over, and not yet shown to be anchored."""

    receipt: bytes
    release_id: int
    sent: bool = False


@dataclass(frozen=True, slots=True)
class Happening:
    """One line of the device's own history, for people."""

    time: int
    what: str
    release_id: int
    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class Glance:
    """The trusted state for people who only look: read by position from `TrustState.encode`.

    Whoever believes anything of it decodes the whole (`core.trust`), which loads what verifies.
    """

    height: int
    time: int
    newest: Version
    frozen: bool
    statuses: dict[int, int]


@dataclass(frozen=True, slots=True)
class Book:
    """``trust``: an encoded `core.trust.TrustState`, carried as it is. ``spoken``: (release,
    reason, final) of receipts made, so that none is made twice. ``consent``: the manifest digest
    the owner agreed to, and who and when. ``failures``: polls in a row that failed. ``spoilt``: the
    release whose bytes came wrong last."""

    state: State
    trust: bytes
    queue: tuple[Queued, ...] = ()
    sequence: int = 0
    previous: Digest = NO_PREVIOUS
    spoken: tuple[tuple[int, str], ...] = ()
    consent: tuple[Digest, Consent] | None = None
    failures: int = 0
    history: tuple[Happening, ...] = ()
    spoilt: Spoilt | None = None

    # -- receipts --------------------------------------------------------------------------------

    def wants(self, release_id: int, outcome: Outcome, reason: str) -> bool:
        """Whether a receipt of this outcome is still to be made."""
        if (release_id, _mark_of(outcome, reason)) in self.spoken:
            return False
        return outcome.final or len(self.queue) < REFUSALS_UP_TO

    @property
    def room(self) -> bool:
        """Whether all that may come of one more installation finds its place in the queue."""
        return len(self.queue) + OUTCOMES_TO_COME <= MAX_QUEUE

    def queued(self, receipt: bytes, release_id: int, outcome: Outcome, reason: str) -> Book:
        """With a signed receipt at the end of the queue; there is `room`, or it was kept before."""
        if len(self.queue) >= MAX_QUEUE:
            raise OverflowError("a receipt without room in the queue")
        mark = (release_id, _mark_of(outcome, reason))
        return replace(
            self,
            queue=(*self.queue, Queued(receipt, release_id)),
            sequence=self.sequence + 1,
            previous=sha256(receipt),
            spoken=_remembered((*self.spoken, mark)),
        )

    def handed_over(self, receipt: bytes) -> Book:
        """With a receipt marked as sent."""
        queue = tuple(replace(q, sent=True) if q.receipt == receipt else q for q in self.queue)
        return replace(self, queue=queue)

    def acknowledged(self, receipt: bytes) -> Book:
        """Without a receipt whose inclusion under a proven anchor was shown."""
        return replace(self, queue=tuple(q for q in self.queue if q.receipt != receipt))

    # -- the rest --------------------------------------------------------------------------------

    def came_wrong(self, manifest_digest: Digest, now: int) -> Book:
        """With one more time that a release's bytes were not what its manifest says."""
        last = self.spoilt
        again = last is not None and last.manifest_digest == manifest_digest
        times = min(last.times + 1, U32_MAX) if last is not None and again else 1
        return replace(self, spoilt=Spoilt(manifest_digest, times, now))

    def noted(self, happening: Happening) -> Book:
        """With one more line of history; the same line twice in a row is one."""
        last = self.history[-1] if self.history else None
        if last is not None and replace(last, time=happening.time) == happening:
            return self
        return replace(self, history=(*self.history, happening)[-MAX_HISTORY:])

    @property
    def glance(self) -> Glance:
        """The trusted state, as far as `Glance` goes."""
        row = cbor.loads(self.trust, max_bytes=MAX_BOOK_BYTES)
        return Glance(row[1], row[2], Version(row[5]), bool(row[7]), dict(row[6]))

    def agreed(self, manifest_digest: Digest) -> Consent | None:
        """The owner's consent to that release, if given."""
        if self.consent is None or self.consent[0] != manifest_digest:
            return None
        return self.consent[1]

    def encode(self) -> bytes:
        """Deterministic CBOR, at most `MAX_BOOK_BYTES`."""
        consent = None
        if self.consent is not None:
            consent = [bytes(self.consent[0]), self.consent[1].by, self.consent[1].at]
        data = cbor.dumps(
            [
                FORMAT,
                self.state.to_list(),
                self.trust,
                [[q.receipt, q.release_id, q.sent] for q in self.queue],
                self.sequence,
                bytes(self.previous),
                [list(mark) for mark in self.spoken],
                consent,
                self.failures,
                [[h.time, h.what, h.release_id, h.version, h.reason] for h in self.history],
                _spoilt_row(self.spoilt),
            ]
        )
        if len(data) > MAX_BOOK_BYTES:
            raise OverflowError("the book outgrew its bound")
        return data

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """The book of `encode`; `Malformed` (state-damaged) otherwise."""
        try:
            row = cbor.loads(data, max_bytes=MAX_BOOK_BYTES)
        except FirmledgerError as error:
            raise damaged(f"it is not canonical CBOR: {error.why}") from None
        if not isinstance(row, list) or len(row) != 11 or row[0] != FORMAT:
            raise damaged("it is of another format")
        consent = None
        if row[7] is not None:
            digest, by, at = _row(row[7], 3)
            moment = None if at is None else natural(at)
            consent = (Digest(octets(digest)), Consent(words(by), moment))
        return cls(
            state=State.from_list(row[1]),
            trust=octets(row[2]),
            queue=tuple(_queued(q) for q in _rows(row[3], MAX_QUEUE)),
            sequence=natural(row[4]),
            previous=Digest(octets(row[5])),
            spoken=tuple(_read_mark(m) for m in _rows(row[6], MAX_SPOKEN)),
            consent=consent,
            failures=natural(row[8]),
            history=tuple(_happening(h) for h in _rows(row[9], MAX_HISTORY)),
            spoilt=_read_spoilt(row[10]),
        )


def _mark_of(outcome: Outcome, reason: str) -> str:
    """One final outcome per release, but that the owner may leave it later; refusals by reason."""
    return "" if outcome.final and reason != OWNER else reason


def _remembered(spoken: tuple[tuple[int, str], ...]) -> tuple[tuple[int, str], ...]:
    """At most `MAX_SPOKEN` marks: the oldest refusals are forgotten before any final outcome."""
    surplus = len(spoken) - MAX_SPOKEN
    if surplus <= 0:
        return spoken
    refusals = [mark for mark in spoken if mark[1] not in ("", OWNER)]
    forgotten = refusals[:surplus] or list(spoken[:surplus])
    return tuple(mark for mark in spoken if mark not in forgotten)


def _spoilt_row(spoilt: Spoilt | None) -> list[Any] | None:
    return None if spoilt is None else [bytes(spoilt.manifest_digest), spoilt.times, spoilt.last]


def _read_spoilt(value: Any) -> Spoilt | None:
    if value is None:
        return None
    digest, times, last = _row(value, 3)
    return Spoilt(Digest(octets(digest)), natural(times, U32_MAX), natural(last))


def _rows(value: Any, most: int) -> list[Any]:
    if not isinstance(value, list) or len(value) > most:
        raise damaged(f"a list is missing or longer than {most}")
    return value


def _row(value: Any, size: int) -> list[Any]:
    if not isinstance(value, list) or len(value) != size:
        raise damaged(f"a row has not {size} members")
    return value


def _queued(value: Any) -> Queued:
    receipt, release_id, sent = _row(value, 3)
    if len(octets(receipt)) > MAX_RECEIPT_BYTES:
        raise damaged("a receipt is too long")
    return Queued(receipt, natural(release_id, U32_MAX), truth(sent))


def _read_mark(value: Any) -> tuple[int, str]:
    release_id, reason = _row(value, 2)
    return natural(release_id, U32_MAX), words(reason)


def _happening(value: Any) -> Happening:
    time, what, release_id, version, reason = _row(value, 5)
    return Happening(
        natural(time), words(what), natural(release_id, U32_MAX), natural(version), words(reason)
    )
