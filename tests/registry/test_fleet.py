"""Enrolment, names, and the tree that both fleets and receipts stand in."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from protocol.digests import inclusion_proof, leaf_hash, merkle_root, verify_inclusion
from protocol.errors import FirmledgerError, Malformed, Misuse
from protocol.ids import Digest, Hash, ProductId
from registry.fleet import MAX_AT_ONCE
from registry.intents import SetFleet
from registry.merkle import Tree
from tests.registry.place import Place, Unit, rules


@given(st.integers(0, 70))
def test_the_tree_is_that_of_the_protocol(size: int) -> None:
    leaves = [leaf_hash(bytes([n])) for n in range(size)]
    tree = Tree(leaves)
    assert tree.root == merkle_root(leaves)
    for index in range(size):
        path = tree.path(index)
        assert path == inclusion_proof(leaves, index)
        assert verify_inclusion(leaves[index], index, size, path, tree.root)


def test_a_tree_has_no_path_for_what_it_has_not() -> None:
    with pytest.raises(IndexError):
        Tree([leaf_hash(b"")]).path(1)
    with pytest.raises(IndexError):
        Tree([]).path(0)


def test_the_ledger_gets_the_root_over_ascending_ids(place: Place) -> None:
    units = [Unit(f"unit {n}") for n in range(5)]
    place.enrol(*units[:2])
    place.enrol(*units[1:])
    ids = sorted(bytes(unit.id) for unit in units)
    fleet = place.registry.catalogue.product(place.product).fleet
    assert fleet is not None
    assert (fleet.size, fleet.epoch) == (5, 2)
    assert fleet.root == merkle_root([leaf_hash(one) for one in ids])
    assert place.registry.receipts.fleet(place.product, fleet.root) == ids


def test_former_states_can_still_be_listed(place: Place) -> None:
    first, second = Unit("first"), Unit("second")
    place.enrol(first)
    former = place.registry.fleets.newest(place.product)
    place.enrol(second)
    assert former is not None
    assert place.registry.receipts.fleet(place.product, former.root) == [bytes(first.id)]
    assert place.registry.receipts.fleet(place.product, Digest(bytes(32))) is None


def test_enrolling_the_same_again_changes_nothing(place: Place) -> None:
    unit = Unit("unit")
    place.enrol(unit)
    place.enrol(unit)
    place.enrol(unit, unit)
    fleet = place.registry.catalogue.product(place.product).fleet
    assert fleet is not None
    assert (fleet.size, fleet.epoch) == (1, 1)


def test_too_many_or_none_at_once_are_refused(place: Place) -> None:
    fleets = place.registry.fleets
    with pytest.raises(Misuse):
        fleets.enrol(place.product, [], 0)
    with pytest.raises(Misuse):
        fleets.enrol(place.product, [Unit("x").public] * (MAX_AT_ONCE + 1), 0)
    assert fleets.newest(place.product) is None


def test_a_key_of_another_kind_enrols_nobody(place: Place) -> None:
    with pytest.raises(Malformed):
        place.registry.enrol(place.product, [b"short"])
    assert place.registry.fleets.newest(place.product) is None


def test_a_name_means_one_product(place: Place) -> None:
    names = place.registry.names
    other = ProductId(bytes(32))
    assert names.resolve("thermostat") == place.product
    assert names.resolve(str(place.product)) == place.product
    assert names.of(place.product) == "thermostat"
    for name, product in (("thermostat", other), ("boiler", place.product)):
        with pytest.raises(Misuse) as refusal:
            names.give(name, product)
        assert refusal.value.reason == "name-taken"
    names.give("thermostat", place.product)
    assert names.of(other) is None


@pytest.mark.parametrize("name", ["", "-a", "a-", "a b", "A", "../x", "a" * 65, "ä", "a\n"])
def test_names_are_words(place: Place, name: str) -> None:
    with pytest.raises(Misuse):
        place.registry.names.give(name, ProductId(bytes(32)))
    with pytest.raises(FirmledgerError):
        place.registry.names.resolve(name)


def test_a_product_name_is_taken_before_the_ledger_hears_of_it(place: Place) -> None:
    people = [place.keyring.account(name) for name in place.keyring.account_names()]
    with pytest.raises(Misuse):
        place.registry.create_product(
            "thermostat", Hash(b"\1" * 32), rules(place.keys, people, place)
        )
    assert len(place.registry.catalogue.products()) == 1


def test_a_fleet_that_a_crash_kept_from_the_queue_is_queued_at_start(place: Place) -> None:
    unit = Unit("unit")
    fleet = place.registry.fleets.enrol(place.product, [unit.public], place.clock.now())
    assert place.registry.catalogue.product(place.product).fleet is None
    place.registry.start()
    row = place.registry.outbox.submit(
        f"fleet:{place.product}:1", SetFleet(place.product, fleet.root, 1)
    )
    place.registry.outbox.wait(row, 30)
    found = place.registry.catalogue.product(place.product).fleet
    assert found is not None and found.root == fleet.root


def test_an_unknown_product_has_no_fleet(place: Place) -> None:
    with pytest.raises(Misuse):
        place.registry.enrol(ProductId(bytes(32)), [Unit("unit").public.raw])
    assert place.registry.fleets.all_newest() == []
