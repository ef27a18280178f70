"""Following a chain that changes its mind."""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import delete

from protocol.errors import Untrusted
from protocol.records import product_id
from registry.catalogue import Catalogue
from registry.index import Index, orphans
from registry.intents import CreateProduct, Publish
from registry.store import CATALOGUE, REGISTRY, open_database, writing
from registry.tables import VALIDATORS
from tests.registry.office import Office
from tests.registry.scene import (
    SALT,
    SimClock,
    governance,
    person,
    sorted_accounts,
    terms,
    unsigned,
)
from tests.world.chain import SimChain
from tests.world.crash import Killed, Killer

PRODUCT = product_id(person("rita").address, SALT)


@dataclass
class World:
    clock: SimClock
    chain: SimChain
    folder: Path

    def office(self, depth: int | None) -> Office:
        return Office(
            self.folder, self.chain, person("rita"), clock=self.clock, rest=self.rest, depth=depth
        )

    def rest(self, _seconds: float = 0) -> None:
        self.clock.time += 1
        self.chain.mine()

    def rebuilt(self) -> bytes:
        """The dump of a catalogue made from nothing."""
        engine = open_database(self.folder / "again.sqlite", CATALOGUE, durable=False)
        other = open_database(self.folder / "others.sqlite", REGISTRY, durable=True)
        try:
            Index(self.chain, Catalogue(engine), other, start=0, depth=10**6).catch_up()
            return Catalogue(engine).dump()
        finally:
            engine.dispose()
            other.dispose()
            for left in self.folder.glob("again.sqlite*"):
                left.unlink()


@pytest.fixture
def world(tmp_path: Path) -> World:
    clock = SimClock()
    return World(clock, SimChain(clock), tmp_path)


def publish(office: Office, *versions: str) -> None:
    office.do("product", CreateProduct(SALT, governance()))
    for version in versions:
        office.do(version, Publish(terms(PRODUCT, version), unsigned(2)))


def test_a_rebuilt_catalogue_is_the_same_byte_for_byte(world: World) -> None:
    office = world.office(depth=0)
    publish(office, "1.0.0", "1.1.0")
    assert office.catalogue.dump() == world.rebuilt()


def test_blocks_are_given_back_and_their_events_kept_for_auditors(world: World) -> None:
    office = world.office(depth=100)
    office.outbox.submit("product", CreateProduct(SALT, governance()))
    office.outbox.step()
    world.rest()
    office.index.catch_up()
    (before,) = world.chain.all_events
    assert [entry.id for entry in office.catalogue.products()] == [PRODUCT]

    world.chain.reorganise(1, lose=True)
    for _ in range(4):
        world.rest()
    office.index.catch_up()

    assert office.catalogue.dump() == world.rebuilt()
    assert office.catalogue.products() == []
    (kept,) = orphans(office.engine)
    assert (kept["name"], kept["block_hash"]) == ("ProductCreated", str(before.block_hash))


def test_a_change_of_validators_is_given_back_with_its_block(world: World) -> None:
    office, first, second = world.office(depth=100), sorted_accounts("ann"), sorted_accounts("ben")
    world.chain.validators = first
    world.rest()
    world.chain.validators = second
    world.rest()
    office.index.catch_up()
    assert [each.members for each in office.catalogue.validator_sets()] == [(), first, second]
    world.chain.reorganise(1)
    world.chain.validators = first
    for _ in range(2):
        world.rest()
    office.index.catch_up()
    assert [each.members for each in office.catalogue.validator_sets()] == [(), first]
    assert office.catalogue.dump() == world.rebuilt()


def test_a_catalogue_begun_without_its_validators_is_followed_anew(world: World) -> None:
    office = world.office(depth=0)
    world.chain.validators = sorted_accounts("ann")
    publish(office, "1.0.0")
    with writing(office.catalogue.engine) as sql:
        sql.execute(delete(VALIDATORS))  # as it was before there were any
    again = world.office(depth=0)
    assert again.catalogue.head() is None
    again.index.catch_up()
    assert again.catalogue.dump() == world.rebuilt()
    assert len(again.catalogue.validator_sets()) == 2


def test_any_history_of_reorganisations_ends_as_if_it_had_never_been(world: World) -> None:
    office, chance = world.office(depth=6), random.Random(7)
    office.outbox.submit("product", CreateProduct(SALT, governance()))
    for round_number in range(120):
        if round_number % 10 == 3:
            version = f"1.{round_number}.0"
            office.outbox.submit(version, Publish(terms(PRODUCT, version), unsigned(2)))
        office.outbox.step()
        world.rest()
        if chance.random() < 0.2:
            world.chain.validators = sorted_accounts(*chance.sample(["ann", "ben", "cy"], 2))
        if round_number > 10 and chance.random() < 0.3:
            world.chain.reorganise(chance.randint(1, 5))
            for _ in range(chance.randint(0, 6)):
                world.rest()
        if chance.random() < 0.7:
            office.index.catch_up(limit=chance.randint(1, 8))
    for _ in range(8):
        world.rest()
        office.index.catch_up()
    assert office.catalogue.dump() == world.rebuilt()
    published = [e for e in world.chain.all_events if e.name == "ReleasePublished"]
    assert len(published) == len({e.args["terms"].version for e in published}) > 5
    assert orphans(office.engine)


def test_what_was_final_is_not_given_back(world: World) -> None:
    office = world.office(depth=0)
    publish(office, "1.0.0")
    dump = office.catalogue.dump()
    world.chain.reorganise(2)
    for _ in range(4):
        world.rest()
    with pytest.raises(Untrusted, match="it was final") as broken:
        office.index.catch_up()
    assert broken.value.reason == "finality-broken"
    assert office.catalogue.dump() == dump
    assert orphans(office.engine) == []


def test_the_chains_own_word_makes_final(world: World) -> None:
    office = world.office(depth=None)
    for _ in range(9):
        world.rest()
    office.index.catch_up()
    assert office.catalogue.final_height() == world.chain.finalized().number == 7


def test_a_node_that_lags_behind_takes_nothing_back(world: World) -> None:
    office = world.office(depth=3)
    for _ in range(9):
        world.rest()
    office.index.catch_up()
    head = office.catalogue.head()
    world.chain._chain, newest = world.chain._chain[:-2], world.chain._chain
    assert office.index.catch_up() == 0
    assert office.catalogue.head() == head
    world.chain._chain = newest
    assert office.index.catch_up() == 0


def test_killed_anywhere_it_goes_on_as_if_nothing_had_been(world: World) -> None:
    office = world.office(depth=100)
    office.outbox.submit("product", CreateProduct(SALT, governance()))
    office.outbox.step()
    world.rest()
    office.index.catch_up()
    world.chain.reorganise(1, lose=True)
    world.rest()
    world.rest()
    before = {path.name: path.read_bytes() for path in world.folder.iterdir()}
    office.close()
    at = 0
    while True:
        at += 1
        for path in world.folder.iterdir():
            path.unlink()
        for name, content in before.items():
            (world.folder / name).write_bytes(content)
        killer, doomed = Killer(at), world.office(depth=100)
        killer.watch(doomed.catalogue.engine, doomed.engine)
        try:
            doomed.index.catch_up()
            break
        except Killed:
            doomed.close()
        office = world.office(depth=100)
        office.index.catch_up()
        assert office.catalogue.dump() == world.rebuilt()
        assert [kept["name"] for kept in orphans(office.engine)] == ["ProductCreated"]
        office.close()
    assert at > 5
