"""Book, boot record and their double-buffered copies: round trips, golden bytes, garbage."""

from __future__ import annotations

import zlib
from contextlib import suppress
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.core import copies, slots
from device_client.core.book import (
    MAX_HISTORY,
    MAX_QUEUE,
    MAX_SPOKEN,
    REFUSALS_UP_TO,
    Book,
    Happening,
    Queued,
)
from device_client.core.machine import Stage, State
from device_client.core.policy import Spoilt
from device_client.core.slots import BootRecord, Entry, Standing
from device_client.core.trust import TrustState
from device_client.core.types import Target
from protocol.errors import LocalFault, Malformed, Misuse
from protocol.ids import Digest, Version
from protocol.receipt import MAX_RECEIPT_BYTES, Consent, Outcome
from tests.device_client.registry import Chain, trust_file

DIGEST = Digest(bytes(range(32)))
TARGET = Target(7, Version.of(1, 2, 3), 4, DIGEST, 1000, DIGEST, 1000, DIGEST, critical=True)
TRUST = TrustState.first(trust_file(Chain())).encode()

digests = st.binary(min_size=32, max_size=32).map(Digest)
u32, u64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
targets = st.builds(
    Target, u32, u64.map(Version), u32, digests, u64, digests, u64, digests, st.booleans(),
    st.booleans(),
)  # fmt: skip
states = st.builds(
    State, st.sampled_from(Stage), st.none() | targets, u64, u32,
    st.lists(digests, max_size=4).map(tuple), st.text(max_size=20), u64, st.none() | u64,
)  # fmt: skip
consents = st.builds(Consent, st.text(max_size=20), st.none() | u64)
books = st.builds(
    Book,
    states,
    st.just(TRUST),
    st.lists(st.builds(Queued, st.binary(max_size=50), u32, st.booleans()), max_size=3).map(tuple),
    u64,
    digests,
    st.lists(st.tuples(u32, st.text(max_size=20)), max_size=3).map(tuple),
    st.none() | st.tuples(digests, consents),
    u64,
    st.lists(
        st.builds(Happening, u64, st.text(max_size=9), u32, u64, st.text(max_size=9)), max_size=3
    ).map(tuple),
    st.none() | st.builds(Spoilt, digests, u32, u64),
)
entries = st.builds(Entry, st.sampled_from(Standing), digests, u64, u64.map(Version), u32, u32)
records = st.builds(
    BootRecord, st.sampled_from("ab"), st.sampled_from("ab"), st.integers(0, 255), entries, entries
)


@given(books)
def test_books_survive(book: Book) -> None:
    assert Book.decode(book.encode()) == book


@given(st.binary(max_size=300))
def test_garbage_is_no_book(data: bytes) -> None:
    with pytest.raises(Malformed) as caught:
        Book.decode(data)
    assert caught.value.reason == "state-damaged"


@given(books, st.data())
def test_a_changed_bit_of_a_book_is_another_book_or_none(book: Book, data: st.DataObject) -> None:
    raw = bytearray(book.encode())
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    raw[bit // 8] ^= 1 << bit % 8
    with suppress(Malformed):
        assert Book.decode(bytes(raw)) != book


def test_the_glance_says_what_the_trusted_state_says() -> None:
    state = replace(
        TrustState.first(trust_file(Chain())), height=9, time=8, newest=7, statuses=((3, 2),)
    )
    book = Book(State(), state.encode())
    assert (book.glance.height, book.glance.time, book.glance.newest) == (9, 8, 7)
    assert (book.glance.frozen, book.glance.statuses) == (False, {3: 2})
    frozen = Book(State(), replace(state, evidence=(b"a", b"b")).encode())
    assert frozen.glance.frozen


def test_the_fullest_book_fits() -> None:
    book = Book(
        State(
            Stage.TRIAL, TARGET, 2**64 - 1, 2**32 - 1, (DIGEST,) * 32, "r" * 128, 2**32, 2**64 - 1
        ),
        bytes(4 * 4096),
        tuple(Queued(bytes([n]) * MAX_RECEIPT_BYTES, n) for n in range(MAX_QUEUE)),
        2**64 - 1,
        DIGEST,
        ((2**32 - 1, "r" * 100),) * MAX_SPOKEN,
        (DIGEST, Consent("x" * 64, 2**64 - 1)),
        1000,
        tuple(Happening(2**64 - 1, "refused", 2**32 - 1, 2**64 - 1, "r" * 100)
              for _ in range(MAX_HISTORY)),
        Spoilt(DIGEST, 2**32 - 1, 2**64 - 1),
    )  # fmt: skip
    assert Book.decode(book.encode()) == book


def test_refusals_give_way_and_outcomes_do_not() -> None:
    book = Book(State(), TRUST)
    for number in range(100):
        if book.wants(number, Outcome.REFUSED, "halted"):
            book = book.queued(b"%d" % number, number, Outcome.REFUSED, "halted")
    assert len(book.queue) == REFUSALS_UP_TO
    assert book.wants(500, Outcome.CONFIRMED, "")
    book = book.queued(b"end", 500, Outcome.CONFIRMED, "")
    assert not book.wants(500, Outcome.ROLLED_BACK, "self-test")
    assert book.wants(500, Outcome.ROLLED_BACK, "owner")
    assert book.wants(501, Outcome.CONFIRMED, "")


def test_a_line_of_history_is_not_repeated() -> None:
    book = Book(State(), TRUST)
    for time in range(5):
        book = book.noted(Happening(time, "refused", 1, 2, "halted"))
    assert len(book.history) == 1
    for number in range(100):
        book = book.noted(Happening(9, "refused", number, 2, "halted"))
    assert len(book.history) == MAX_HISTORY


# -- the boot record -------------------------------------------------------------------------------


@given(records)
def test_boot_records_survive_in_their_117_bytes(record: BootRecord) -> None:
    assert len(record.encode()) == 117
    assert BootRecord.decode(record.encode()) == record


@given(st.binary(max_size=200))
def test_garbage_is_no_boot_record(data: bytes) -> None:
    with suppress(Malformed):
        assert BootRecord.decode(data).encode() == data


def test_golden_boot_record() -> None:
    entry = Entry(Standing.TRIAL, DIGEST, 5, Version.of(1, 2, 3), 6, 7)
    record = BootRecord("a", "b", 3, Entry(Standing.GOOD), entry)
    assert record.encode().hex() == (
        "000103"
        "02" + "00" * 56 + "01" + bytes(range(32)).hex() + "0000000000000005" + "0001000200000003"
        "00000006" + "00000007"
    )


def intact(slot: str) -> bool:
    return True


ARMED = slots.armed(slots.factory(Entry()), "b", Entry.of(TARGET, Standing.TRIAL), 2)


def test_only_the_inactive_slot_is_ever_touched() -> None:
    record = slots.factory(Entry())
    for act in (
        lambda: slots.vacated(record, "a"),
        lambda: slots.armed(record, "a", Entry(), 1),
        lambda: slots.armed(record, "b", Entry(), 0),
        lambda: slots.armed(record, "b", Entry(), 256),
        lambda: slots.kept(record),
        lambda: slots.given_up(record),
        lambda: slots.kept(ARMED),  # it never ran
    ):
        with pytest.raises(Misuse):
            act()
    running = slots.choose(ARMED, intact)
    with pytest.raises(LocalFault):
        _ = running.inactive


def test_attempts_count_down_on_trial_only() -> None:
    record, seen = ARMED, []
    for _ in range(5):
        record = slots.choose(slots.counted(record), intact)
        seen.append((record.running, record.attempts))
    assert seen == [("b", 1), ("b", 0), ("a", 0), ("a", 0), ("a", 0)]
    kept = slots.kept(slots.choose(slots.counted(ARMED), intact))
    for _ in range(300):
        kept = slots.choose(slots.counted(kept), intact)
    assert (kept.running, kept.primary, kept.attempts) == ("b", "b", 0)


def test_a_damaged_trial_falls_back_and_nothing_at_all_is_said() -> None:
    assert slots.choose(ARMED, lambda slot: slot == "a").running == "a"
    with pytest.raises(LocalFault) as caught:
        slots.choose(ARMED, lambda slot: False)
    assert caught.value.reason == "nothing-boots"


# -- copies ----------------------------------------------------------------------------------------


@given(st.integers(0, 2**64 - 1), st.binary(max_size=100), st.binary(max_size=20))
def test_sealed_copies_are_read_whatever_follows(number: int, body: bytes, more: bytes) -> None:
    assert copies.unseal(b"TEST", copies.seal(b"TEST", number, body) + more) == (number, body)
    assert copies.unseal(b"ELSE", copies.seal(b"TEST", number, body)) is None


@given(st.binary(max_size=60), st.data())
def test_a_copy_with_a_changed_bit_or_a_missing_end_is_none(
    body: bytes, data: st.DataObject
) -> None:
    raw = copies.seal(b"TEST", 5, body)
    bit = data.draw(st.integers(0, 8 * len(raw) - 1))
    changed = bytearray(raw)
    changed[bit // 8] ^= 1 << bit % 8
    assert copies.unseal(b"TEST", bytes(changed)) is None
    assert copies.unseal(b"TEST", raw[: data.draw(st.integers(0, len(raw) - 1))]) is None


def test_the_newest_whole_copy_counts() -> None:
    old, new = copies.seal(b"TEST", 4, b"old"), copies.seal(b"TEST", 5, b"new")
    assert copies.newest(b"TEST", old, new) == (5, b"new") == copies.newest(b"TEST", new, old)
    assert copies.newest(b"TEST", old, new[:-1]) == (4, b"old")
    assert copies.newest(b"TEST", b"", new[:3]) is None
    assert {copies.place(4), copies.place(5)} == {0, 1}
    with pytest.raises(OverflowError):
        copies.following(2**64 - 1)


def test_golden_copy() -> None:
    crc = zlib.crc32(b"TEST" + bytes(7) + b"\x05" + b"\0\0\0\x03" + bytes(4) + b"abc")
    expected = b"TEST" + bytes(7) + b"\x05" + b"\0\0\0\x03" + crc.to_bytes(4, "big") + b"abc"
    assert copies.seal(b"TEST", 5, b"abc") == expected
