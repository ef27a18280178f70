"""Bundles: what a device is answered, and that it proves itself."""

from __future__ import annotations

import pytest

from protocol.bundle import Bundle
from protocol.errors import Misuse
from protocol.header import parse_header
from protocol.ids import Version
from protocol.ledger import Reason, cohort
from protocol.records import Phase
from tests.registry.place import Place, Unit

UNIT = Unit("one")
HOUR = 3600


def test_before_any_release_the_product_alone_is_proved(place: Place) -> None:
    answer = place.registry.bundles.answer(place.product, UNIT.asks())
    view, offered = place.proved(answer.body)
    assert (view.release, offered, answer.reason) == (None, None, None)
    assert view.product.head.latest_release == 0


def test_a_newer_release_is_offered_and_proves_itself(place: Place) -> None:
    draft = place.publish("1.0.0")
    answer = place.registry.bundles.answer(place.product, UNIT.asks())
    view, offered = place.proved(answer.body)
    assert offered is not None
    assert answer.offers
    assert offered.terms == draft.terms
    assert offered.envelope == draft.envelope
    assert view.number == place.registry.chain.head().number


def test_nothing_newer_is_proved_as_well(place: Place) -> None:
    place.publish("1.0.0")
    answer = place.registry.bundles.answer(place.product, UNIT.asks("1.0.0", 1))
    view, offered = place.proved(answer.body)
    assert offered is None
    assert answer.reason is None
    assert view.release is not None
    assert view.release.release_id == view.product.head.latest_release == 1


def test_a_device_hears_of_the_release_it_runs(place: Place) -> None:
    place.publish("1.0.0")
    place.publish("2.0.0")
    view, _ = place.proved(place.registry.bundles.answer(place.product, UNIT.asks("2.0.0")).body)
    assert view.release is not None and view.release.release_id == 2
    view, _ = place.proved(place.registry.bundles.answer(place.product, UNIT.asks("9.0.0")).body)
    assert view.release is not None and view.release.release_id == 2


def test_a_stepping_stone_is_offered_where_the_newest_asks_for_it(place: Place) -> None:
    place.publish("1.0.0")
    place.publish("2.0.0", min_version=int(Version.parse("1.0.0")))
    bundles = place.registry.bundles
    first = bundles.answer(place.product, UNIT.asks("0.0.0"))
    then = bundles.answer(place.product, UNIT.asks("1.0.0", 1))
    assert (first.release_id, first.reason) == (1, Reason.ELIGIBLE)
    assert (then.release_id, then.reason) == (2, Reason.ELIGIBLE)


@pytest.mark.parametrize(
    ("asks", "reason"),
    [
        (UNIT.asks(hardware=4), Reason.WRONG_HARDWARE),
        (UNIT.asks(counter=2), Reason.COUNTER_TOO_LOW),
    ],
)
def test_what_may_not_be_installed_comes_with_what_shows_why(
    place: Place, asks: object, reason: Reason
) -> None:
    place.publish("1.0.0")
    answer = place.registry.bundles.answer(place.product, asks)  # type: ignore[arg-type]
    _view, offered = place.proved(answer.body)
    assert offered is not None
    assert answer.reason is reason
    assert not answer.offers


def units_by_turn(place: Place, release: int, share: int) -> tuple[Unit, Unit]:
    """A device inside the first ``share`` of a rollout, and one outside."""
    units = [Unit(f"unit {n}") for n in range(100)]
    turns = {unit.name: cohort(place.product, release, unit.id) for unit in units}
    inside = next(unit for unit in units if turns[unit.name] < share)
    return inside, next(unit for unit in units if turns[unit.name] >= share)


def test_time_alone_opens_the_next_phase_without_waiting_for_renewal(place: Place) -> None:
    place.publish("1.0.0", rollout=(Phase(5_000), Phase(10_000, HOUR)))
    inside, outside = units_by_turn(place, 1, 5_000)
    bundles = place.registry.bundles
    assert bundles.answer(place.product, inside.asks()).reason is Reason.ELIGIBLE
    assert bundles.answer(place.product, outside.asks()).reason is Reason.COHORT_WAITS
    assert bundles.renewed_every > HOUR
    place.tick(HOUR)
    answer = bundles.answer(place.product, outside.asks())
    assert answer.reason is Reason.ELIGIBLE
    view, _ = place.proved(answer.body)
    assert view.timestamp >= place.clock.now()


def test_the_same_bytes_until_the_fresh_part_is_due(place: Place) -> None:
    place.publish("1.0.0")
    bundles = place.registry.bundles
    first = bundles.answer(place.product, UNIT.asks())
    place.tick(10)
    assert bundles.answer(place.product, UNIT.asks()) == first
    place.tick(bundles.renewed_every)
    renewed = bundles.answer(place.product, UNIT.asks())
    assert renewed.etag != first.etag
    assert renewed.made_at > first.made_at
    assert Bundle.decode(renewed.body).static == Bundle.decode(first.body).static


def test_no_answer_goes_back_behind_another(place: Place) -> None:
    """A device that has seen a block through one release takes an earlier one for a replay."""
    place.publish("1.0.0")
    place.publish("2.0.0")
    bundles = place.registry.bundles

    def offered() -> int:
        answer = bundles.answer(place.product, UNIT.asks())
        assert answer.release_id == 2
        return place.proved(answer.body)[0].number

    def acknowledged() -> int:
        return parse_header(bundles.fresh(place.product, 1).proof.header).number

    first = offered()
    place.tick()
    assert offered() == first
    second = acknowledged()  # of the other release, made only now
    assert second > first
    assert offered() == second
    place.tick()
    assert (offered(), acknowledged()) == (second, second)


def test_a_device_is_shown_no_less_than_it_has_seen(place: Place) -> None:
    """It heard of a later block elsewhere, from a mirror or on a stick."""
    place.publish("1.0.0")
    bundles = place.registry.bundles
    first = bundles.answer(place.product, UNIT.asks())
    place.tick()
    head = place.registry.chain.head().number
    assert bundles.answer(place.product, UNIT.asks()) == first
    shown = bundles.answer(place.product, UNIT.asks(), seen=head)
    assert place.proved(shown.body)[0].number == head
    beyond = bundles.answer(place.product, UNIT.asks(), seen=head + 100)
    assert beyond == shown


def test_a_halt_shows_at_once(place: Place) -> None:
    place.publish("1.0.0")
    bundles = place.registry.bundles
    before = bundles.answer(place.product, UNIT.asks())
    place.halt("1.0.0", "carol")
    after = bundles.answer(place.product, UNIT.asks())
    assert after.reason is Reason.HALTED
    assert after.etag != before.etag
    place.proved(after.body)


def test_every_answer_speaks_of_the_head_it_was_made_at(place: Place) -> None:
    place.publish("1.0.0")
    fresh = place.registry.bundles.fresh(place.product, 1)
    assert parse_header(fresh.proof.header).number == place.registry.chain.head().number


def test_unknown_products_and_releases_are_said_to_be_so(place: Place) -> None:
    bundles = place.registry.bundles
    with pytest.raises(Misuse):
        bundles.answer(type(place.product)(bytes(32)), UNIT.asks())
    with pytest.raises(Misuse):
        bundles.of_release(place.product, 1)


def test_a_release_without_its_parts_is_shown_but_not_offered(place: Place) -> None:
    """Published through another registry: its state is proved, there is nothing to install."""
    draft = place.approved(place.build("1.0.0"))
    place.publish_elsewhere(draft)
    answer = place.registry.bundles.answer(place.product, UNIT.asks())
    view, offered = place.proved(answer.body)
    assert offered is None and not answer.offers
    assert view.release is not None and view.release.release_id == 1
    with pytest.raises(Misuse, match="does not hold"):
        place.registry.bundles.of_release(place.product, 1)
