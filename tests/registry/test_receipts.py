"""Receipts: taken once, logged in order, counted by rule, anchored, and shown to be anchored."""

from __future__ import annotations

from pathlib import Path

import pytest

from protocol.bundle import Acknowledgement, prove
from protocol.digests import leaf_hash, merkle_root
from protocol.errors import Malformed, Misuse, Refused, Untrusted
from protocol.ids import Digest, ProductId
from protocol.ledger import Status
from protocol.receipt import MAX_RECEIPT_BYTES, Outcome
from registry import receipts
from registry.catalogue import ReleaseEntry
from tests.registry.place import Place, Unit

CONFIRMED, FAILED, ROLLED_BACK, REFUSED = Outcome


def released(place: Place, release: int = 1) -> ReleaseEntry:
    return place.registry.catalogue.release(place.product, release)


def take(place: Place, data: bytes) -> receipts.Taken:
    return place.registry.receipts.accept(data, place.clock.now())


@pytest.fixture
def units(place: Place) -> list[Unit]:
    """Twenty enrolled devices, and release 1.0.0."""
    place.publish("1.0.0")
    found = [Unit(f"unit {n}") for n in range(20)]
    place.enrol(*found)
    return found


def test_receipts_are_anchored_and_each_shown_to_be(place: Place, units: list[Unit]) -> None:
    data = [unit.reports(place.product, 1) for unit in units[:5]]
    leaves = [take(place, one).leaf for one in data]
    assert place.registry.anchoring.acknowledge(leaves[0]) is None
    assert place.anchor() == 1
    state = released(place).state
    assert state.log_root == merkle_root([leaf_hash(one) for one in data])
    assert (released(place).word.log_size, released(place).word.confirmed) == (5, 5)
    for leaf in leaves:
        shown = place.registry.anchoring.acknowledge(leaf)
        assert shown is not None
        again = Acknowledgement.decode(shown.encode())
        again.check(leaf, 1, prove(again.fresh, place.anchor_of_trust))
    assert place.registry.receipts.entries(place.product, 1) == data


def test_an_acknowledgement_is_not_another_receipts(place: Place, units: list[Unit]) -> None:
    leaves = [take(place, unit.reports(place.product, 1)).leaf for unit in units[:4]]
    place.anchor()
    shown = place.registry.anchoring.acknowledge(leaves[1])
    assert shown is not None
    view = prove(shown.fresh, place.anchor_of_trust)
    with pytest.raises(Untrusted):
        shown.check(leaves[2], 1, view)
    with pytest.raises(Untrusted):
        shown.check(leaves[1], 2, view)


def test_logs_only_grow_and_old_receipts_stay_shown(place: Place, units: list[Unit]) -> None:
    first = [take(place, unit.reports(place.product, 1)).leaf for unit in units[:3]]
    place.anchor()
    second = [take(place, unit.reports(place.product, 1)).leaf for unit in units[3:7]]
    place.anchor()
    for leaf in first + second:
        shown = place.registry.anchoring.acknowledge(leaf)
        assert shown is not None and shown.size == 7
        shown.check(leaf, 1, prove(shown.fresh, place.anchor_of_trust))


def test_the_same_receipt_again_changes_nothing(place: Place, units: list[Unit]) -> None:
    data = units[0].reports(place.product, 1)
    assert take(place, data) == take(place, data)
    place.anchor()
    assert take(place, data).enrolled
    assert place.anchor() == 0
    assert released(place).word.log_size == 1


def test_one_final_outcome_counts_per_device_and_release(place: Place, units: list[Unit]) -> None:
    unit = units[0]
    for outcome in (REFUSED, CONFIRMED, FAILED, CONFIRMED):
        take(place, unit.reports(place.product, 1, outcome))
    place.anchor()
    take(place, unit.reports(place.product, 1, ROLLED_BACK))
    place.anchor()
    word = released(place).word
    assert (word.log_size, word.confirmed, word.failed) == (5, 1, 0)


def test_failures_are_anchored_at_once_and_halt_the_release(
    place: Place, units: list[Unit]
) -> None:
    take(place, units[0].reports(place.product, 1))
    assert place.registry.anchoring.step(place.clock.now()) == 0
    for unit in units[1:3]:
        take(place, unit.reports(place.product, 1, ROLLED_BACK))
    assert place.registry.anchoring.step(place.clock.now()) == 1
    place.anchor()
    word = released(place).word
    assert (word.confirmed, word.failed) == (1, 2)
    assert word.status == Status.HALTED


def test_a_refusal_of_what_is_not_on_the_ledger_goes_to_the_newest_log(
    place: Place, units: list[Unit]
) -> None:
    leaf = take(place, units[0].reports(place.product, 0, REFUSED, "not-on-ledger")).leaf
    place.anchor()
    shown = place.registry.anchoring.acknowledge(leaf)
    assert shown is not None
    shown.check(leaf, 1, prove(shown.fresh, place.anchor_of_trust))
    assert released(place).word.confirmed == released(place).word.failed == 0


def test_a_confirmed_outcome_of_release_0_counts_for_nothing(
    place: Place, units: list[Unit]
) -> None:
    take(place, units[0].reports(place.product, 0))
    place.anchor()
    word = released(place).word
    assert (word.log_size, word.confirmed) == (1, 0)


def test_who_is_not_enrolled_waits_and_counts_from_enrolment_on(
    place: Place, units: list[Unit]
) -> None:
    stranger = Unit("stranger")
    leaf = take(place, stranger.reports(place.product, 1)).leaf
    assert not take(place, stranger.reports(place.product, 1, REFUSED, "window")).enrolled
    assert place.anchor() == 0
    assert place.registry.anchoring.acknowledge(leaf) is None
    place.enrol(stranger)
    place.anchor()
    assert (released(place).word.log_size, released(place).word.confirmed) == (2, 1)
    assert place.registry.anchoring.acknowledge(leaf) is not None


def test_receipts_wait_until_the_ledger_has_their_device(place: Place, units: list[Unit]) -> None:
    late = Unit("late")
    fleet, queued = place.registry.enrol(place.product, [late.public.raw])
    assert fleet.size == len(units) + 1
    take(place, late.reports(place.product, 1))
    place.clock.time += 1000
    assert place.registry.anchoring.step(place.clock.now()) == 0
    place.settle(queued.row)
    place.anchor()
    assert released(place).word.confirmed == 1


def test_what_a_strangers_key_signed_is_dropped_at_enrolment(
    place: Place, units: list[Unit]
) -> None:
    honest, forger = Unit("honest"), Unit("forger")
    forged = bytearray(honest.reports(place.product, 1))
    forged[-1] ^= 1
    leaf = take(place, bytes(forged)).leaf
    place.enrol(honest, forger)
    with pytest.raises(Misuse):
        place.registry.anchoring.acknowledge(leaf)
    assert place.anchor() == 0


@pytest.mark.parametrize("place_of_bit", [0, 5, 40, 80, 150, -1])
def test_a_flipped_bit_is_refused(place: Place, units: list[Unit], place_of_bit: int) -> None:
    data = bytearray(units[0].reports(place.product, 1))
    data[place_of_bit] ^= 1
    try:
        taken = take(place, bytes(data))
    except (Malformed, Untrusted):
        return
    assert not taken.enrolled, "a device id that nobody has was taken as one"


def test_garbage_is_malformed(place: Place, units: list[Unit]) -> None:
    for data in (b"", b"\xff" * 40, b"\0" * MAX_RECEIPT_BYTES, b"\0" * (MAX_RECEIPT_BYTES + 1)):
        with pytest.raises(Malformed):
            take(place, data)


def test_a_release_that_is_not_indexed_yet_is_asked_for_again(
    place: Place, units: list[Unit]
) -> None:
    data = units[0].reports(place.product, 2, version="2.0.0")
    with pytest.raises(Refused) as refusal:
        take(place, data)
    assert refusal.value.reason == "release-not-indexed"
    place.publish("2.0.0")
    assert take(place, data).enrolled
    place.anchor()
    assert released(place, 2).word.confirmed == 1


def test_another_products_receipt_does_not_count_here(place: Place, units: list[Unit]) -> None:
    elsewhere = ProductId(bytes(32))
    assert not take(place, units[0].reports(elsewhere, 1)).enrolled
    assert place.anchor() == 0


def test_what_waits_is_bounded(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.publish("1.0.0")
    flooder, other = Unit("flooder"), Unit("other")
    for _ in range(receipts.MAX_WAITING_PER_DEVICE):
        take(place, flooder.reports(place.product, 1))
    with pytest.raises(Refused) as refusal:
        take(place, flooder.reports(place.product, 1))
    assert refusal.value.reason == "not-enrolled"
    take(place, other.reports(place.product, 1))
    monkeypatch.setattr(receipts, "MAX_WAITING", receipts.MAX_WAITING_PER_DEVICE + 1)
    with pytest.raises(Refused):
        take(place, other.reports(place.product, 1))


def test_an_unknown_receipt_is_said_to_be_so(place: Place) -> None:
    with pytest.raises(Misuse) as refusal:
        place.registry.anchoring.acknowledge(Digest(bytes(32)))
    assert refusal.value.reason == "receipt-unknown"


def test_a_batch_recorded_before_a_crash_is_anchored_after_it(
    place: Place, units: list[Unit], tmp_path: Path
) -> None:
    """Killed between recording a batch and queueing it: the places given stay, nothing is lost."""
    leaf = take(place, units[0].reports(place.product, 1)).leaf
    place.clock.time += 1000
    anchoring = place.registry.anchoring
    assert anchoring._gather(place.product, 1, None) is not None  # what `step` does first
    place.close()
    again = Place(place.directory, tmp_path, place.clock)
    try:
        take(again, units[1].reports(again.product, 1))
        again.clock.time += 1000
        assert again.anchor() == 2
        assert released(again).word.confirmed == 2
        assert again.registry.anchoring.acknowledge(leaf) is not None
    finally:
        again.close()
