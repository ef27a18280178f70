"""Receipts for every outcome: none lost, none twice, in order, whatever the queue holds already."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_client.core.book import MAX_QUEUE, MAX_SPOKEN, OUTCOMES_TO_COME, OWNER, Book
from device_client.core.machine import State
from device_client.core.policy import Hold, Leave
from device_client.core.slots import Standing
from protocol.digests import sha256
from protocol.errors import Malformed
from protocol.ids import Digest
from protocol.receipt import Outcome, receipt_leaf
from tests.device_client.bench_top import BenchTop, bench_top
from tests.device_client.registry import image_of, make, receipts_of


def publish(top: BenchTop, number: int, **terms: object) -> None:
    image = image_of(f"1.0.{number}", 60)
    top.registry.chain.publish(make(image, f"1.0.{number}", 4, **terms))


def months_offline(top: BenchTop) -> list[Outcome]:
    """Installs from a source that takes no receipts until the device will not go on."""
    seen: list[Outcome] = []
    for number in range(1, 2 * MAX_QUEUE):
        publish(top, number)
        if number % 3 == 0:
            top.doctor.bad.add(sha256(image_of(f"1.0.{number}", 60)))
        report = top.agent().update(Leave.NOW)
        if report.hold is not None and report.hold.hold is Hold.RECEIPTS:
            assert report.outcome == "waiting"
            return seen
        seen.append(Outcome(report.outcome))
    raise AssertionError("the queue never filled")


def test_nothing_is_installed_whose_outcome_could_not_be_kept() -> None:
    top = bench_top()
    seen = months_offline(top)
    assert len(seen) == MAX_QUEUE - OUTCOMES_TO_COME + 1
    before = top.runs()
    queue = top.agent().book.queue
    assert top.agent().update(Leave.NOW).reason == str(Hold.RECEIPTS)
    assert top.runs() == before and top.agent().book.queue == queue


def test_all_of_it_arrives_in_order_when_a_registry_is_back_and_updates_go_on() -> None:
    top = bench_top()
    seen = months_offline(top)
    agent = top.agent()
    agent.deliver()
    read = receipts_of(top.registry)
    assert [r.outcome for r in read] == seen
    assert [r.sequence for r in read] == list(range(len(seen)))
    for earlier, receipt in zip(top.registry.receipts, read[1:], strict=False):
        assert receipt.follows(earlier)
    top.registry.anchor_all()
    top.clock.time = top.registry.chain.time
    assert top.agent().deliver() == 0
    assert top.agent().update().outcome in (Outcome.CONFIRMED, Outcome.ROLLED_BACK)


def test_a_full_queue_bars_no_way_back() -> None:
    top = bench_top()
    months_offline(top)
    for _ in range(4):
        record = top.agent().parts.boot.record()
        if record.entry(record.inactive).standing is not Standing.GOOD:
            break
        before = top.runs()
        assert top.agent().rollback().outcome == Outcome.ROLLED_BACK
        assert top.runs() != before
    assert len(top.agent().book.queue) <= MAX_QUEUE


acts = st.lists(
    st.tuples(
        st.sampled_from(["install", "fail", "rollback", "refuse", "deliver"]), st.integers(0, 3)
    ),
    max_size=400,
)


@given(acts)
def test_no_final_outcome_is_ever_dropped_nor_told_twice(acts: list[tuple[str, int]]) -> None:
    """The book under any life that the gate (`room`) allows; receipts are numbers."""
    book = Book(State(), b"\x80")
    made: list[bytes] = []
    slots, newest = [0, 0], 0

    def tell(release: int, outcome: Outcome, reason: str) -> None:
        nonlocal book
        if release and book.wants(release, outcome, reason):
            receipt = b"%d %s %s" % (release, str(outcome).encode(), reason.encode())
            made.append(receipt)
            book = book.queued(receipt, release, outcome, reason)

    taken: list[bytes] = []
    for act, choice in acts:
        if act == "install" and book.room:
            newest += 1
            slots = [newest, slots[0]]
            tell(newest, Outcome.CONFIRMED, "")
        elif act == "fail" and book.room:
            newest += 1
            tell(newest, Outcome.ROLLED_BACK, "self-test")
        elif act == "rollback" and slots[1]:
            slots.reverse()
            tell(slots[1], Outcome.ROLLED_BACK, OWNER)
        elif act == "refuse":
            tell(newest, Outcome.REFUSED, f"reason-{choice}")
        elif act == "deliver":
            for queued in book.queue[:choice]:
                taken.append(queued.receipt)
                book = book.acknowledged(queued.receipt)
    assert taken + [q.receipt for q in book.queue] == made
    finals = [receipt for receipt in made if b"refused" not in receipt]
    assert len(finals) == len(set(finals))
    assert len(book.queue) <= MAX_QUEUE and len(book.spoken) <= MAX_SPOKEN


def test_refusals_are_forgotten_before_any_outcome() -> None:
    book = Book(State(), b"\x80").queued(b"first", 1, Outcome.CONFIRMED, "")
    book = book.acknowledged(b"first")
    for number in range(2 * MAX_SPOKEN):
        receipt = b"%d" % number
        book = book.queued(receipt, 2, Outcome.REFUSED, f"reason-{number}").acknowledged(receipt)
    assert not book.wants(1, Outcome.ROLLED_BACK, "self-test")
    assert len(book.spoken) == MAX_SPOKEN


def test_a_receipt_without_room_is_an_error_and_never_a_loss() -> None:
    book = Book(State(), b"\x80")
    for number in range(MAX_QUEUE):
        book = book.queued(b"%d" % number, number + 1, Outcome.CONFIRMED, "")
    with pytest.raises(OverflowError):
        book.queued(b"more", 500, Outcome.CONFIRMED, "")


def test_a_receipt_is_handed_over_until_its_anchor_is_shown() -> None:
    """Who took it last time may have lost it since."""
    top = bench_top()
    publish(top, 1)
    agent = top.agent()
    agent.update()
    agent.deliver()
    first, top.registry.receipts = top.registry.receipts, []  # a backup from before
    assert agent.deliver() == 1
    assert top.registry.receipts == first
    top.registry.anchor_all()
    top.clock.time = top.registry.chain.time
    assert agent.deliver() == 0
    top.registry.receipts = []
    assert agent.deliver() == 0 and top.registry.receipts == []


def test_one_receipt_in_trouble_holds_up_no_other() -> None:
    top = bench_top()
    for number in (1, 2, 3):
        publish(top, number)
        top.agent().update(Leave.NOW)
    agent = top.agent()
    honest = top.registry.acknowledgement
    troubled = receipt_leaf(agent.book.queue[0].receipt)
    agent.deliver()
    top.registry.anchor_all()
    top.clock.time = top.registry.chain.time

    def acknowledgement(leaf: Digest, maximum: int) -> bytes | None:
        return b"garbage" if leaf == troubled else honest(leaf, maximum)

    top.registry.acknowledgement = acknowledgement  # type: ignore[method-assign]
    with pytest.raises(Malformed):
        agent.deliver()
    assert [receipt_leaf(q.receipt) for q in agent.book.queue] == [troubled]
    top.registry.acknowledgement = honest  # type: ignore[method-assign]
    assert agent.deliver() == 0


# -- an outcome for each way in which a round may end ----------------------------------------------


def test_every_refusal_of_the_ledger_is_told() -> None:
    told = []
    for terms, changed in (
        ({"hardware_min": 3}, {}),
        ({"min_version": 9 << 48}, {}),
        ({}, {"status": 2}),
        ({}, {"status": 3}),
        ({"expiry": 5}, {}),
    ):
        top = bench_top()
        publish(top, 1, **terms)
        if changed:
            top.registry.chain.change(1, **changed)
        top.agent().update()
        top.agent().deliver()
        (receipt,) = receipts_of(top.registry)
        assert receipt.outcome is Outcome.REFUSED and receipt.release == 1
        told.append(receipt.reason)
    assert len(set(told)) == 5


def test_the_room_that_is_kept_is_what_one_installation_may_need() -> None:
    """Its own outcome, and the owner's leaving of the new image and of the former one."""
    book, number = Book(State(), b"\x80"), 0
    while book.room:
        number += 1
        last, book = book, book.queued(b"%d" % number, number, Outcome.CONFIRMED, "")
    old, new = number - 1, number + 1
    for release, outcome, reason in (
        (new, Outcome.CONFIRMED, ""),
        (new, Outcome.ROLLED_BACK, OWNER),
        (old, Outcome.ROLLED_BACK, OWNER),
    ):
        assert last.wants(release, outcome, reason)
        last = last.queued(reason.encode() + b"%d" % release, release, outcome, reason)
    assert len(last.queue) == MAX_QUEUE
    for release in (old, new):
        assert not last.wants(release, Outcome.ROLLED_BACK, OWNER)
