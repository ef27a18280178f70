"""The outbox: exactly once, whatever happens, and refusals in plain words."""

from __future__ import annotations

import copy
import itertools
import shutil
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from protocol.digests import sha256
from protocol.errors import LedgerRefused, LocalFault, Misuse, Refused, Unreachable
from protocol.ids import Hash
from protocol.ledger import Status as Release
from protocol.records import product_id
from registry.intents import Anchor, CreateProduct, Halt, Intent, Pause, Publish, SetFleet, intent
from registry.ports import Call, Fees
from registry.publish import MAX_ATTEMPTS
from registry.queue import Status
from registry.signer import transaction
from tests.registry.office import Office
from tests.registry.scene import SALT, Scene, SimClock, governance, person, terms, unsigned
from tests.world.chain import SimChain
from tests.world.crash import Killed, Killer

RITA = person("rita")
PRODUCT = product_id(RITA.address, SALT)
GOOD = Publish(terms(PRODUCT), unsigned(2))


class World:
    """A simulated ledger with a product on it, and a folder for registries."""

    def __init__(self, folder: Path) -> None:
        self.clock = SimClock()
        self.chain = SimChain(self.clock)
        self.folder = folder
        self._born = f"{folder.name}"
        self._registries = itertools.count()

    def twin(self, folder: str) -> World:
        """The same world, in a folder of its own, before anything else happens to it."""
        twin = World(self.folder / folder)
        twin.clock.time = self.clock.time
        twin.chain = copy.deepcopy(self.chain, {id(self.clock): twin.clock})
        shutil.copytree(self.folder / "reg", twin.folder / "reg")
        return twin

    def rest(self, seconds: float = 1) -> None:
        self.clock.time += max(1, int(seconds))
        self.chain.mine()

    def office(self, folder: str = "reg", chain: object = None, *, depth: int = 0) -> Office:
        """A registry in that folder; each has a name of its own, as each process has."""
        (self.folder / folder).mkdir(exist_ok=True)
        return Office(
            self.folder / folder,
            chain or self.chain,
            RITA,
            clock=self.clock,
            rest=self.rest,
            depth=depth,
            holder=f"process {next(self._registries)} of {self._born}",
        )

    def count(self, name: str) -> int:
        return sum(event.name == name for event in self.chain.all_events)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def with_product(world: World) -> Office:
    office = world.office()
    office.do("product", CreateProduct(SALT, governance()))
    return office


# -- the real contract ---------------------------------------------------------------------------


def on_ledger(scene: Scene) -> Office:
    return Office(
        scene.directory,
        scene.chain,
        scene.fee,
        clock=scene.clock,
        rest=scene.rest,
        start=scene.deployed_at,
    )


def test_a_release_is_published_and_halted_by_its_receipts(scene: Scene) -> None:
    office = on_ledger(scene)
    office.do("product", CreateProduct(SALT, governance(reporters=(scene.fee.address,))))
    wanted = terms(scene.product)
    row = office.do("r1", Publish(wanted, scene.agreed(wanted)))
    assert row.status is Status.MINED
    assert row.gas_used is not None and row.gas_used < 140_000
    receipt = scene.chain.receipt(row.tx) if row.tx else None
    assert receipt is not None and receipt.events[0].name == "ReleasePublished"

    # Two batches at once: the second is made from the record that the first leaves behind.
    batches = (
        Anchor(scene.product, 1, 0, 3, sha256(b"root 3"), 2, 1),
        Anchor(scene.product, 1, 3, 4, sha256(b"root 4"), 0, 1),
    )
    rows = [office.outbox.submit(f"batch {b.old_size}", b) for b in batches]
    for row_id in rows:
        office.outbox.wait(row_id, 10, rest=scene.rest)
    found = office.catalogue.release(scene.product, 1)
    assert (found.word.confirmed, found.word.failed, found.word.log_size) == (2, 2, 4)
    assert found.word.status == Release.HALTED


def test_a_refusal_by_the_contract_is_kept_and_said(scene: Scene) -> None:
    office = on_ledger(scene)
    office.do("product", CreateProduct(SALT, governance()))
    wanted = terms(scene.product)
    row = office.outbox.submit("r1", Publish(wanted, scene.agreed(wanted, "alice")))
    with pytest.raises(LedgerRefused) as refused:
        office.outbox.wait(row, 10, rest=scene.rest)
    assert refused.value.reason == "too-few-approvals"
    assert office.outbox.row(row).status is Status.FAILED

    # With enough approvals the same key is queued anew.
    assert office.outbox.submit("r1", Publish(wanted, scene.agreed(wanted))) == row
    assert office.outbox.wait(row, 10, rest=scene.rest).status is Status.MINED


def test_a_revert_in_the_block_is_explained(scene: Scene) -> None:
    """Estimated while allowed, run when no longer: the reason comes from running it again."""
    office = on_ledger(scene)
    office.do("product", CreateProduct(SALT, governance(guardians=(scene.fee.address,))))
    wanted = terms(scene.product)
    office.do("r1", Publish(wanted, scene.agreed(wanted)))
    row = office.outbox.submit("halt", Halt(scene.product, 1, "field returns"))
    office.outbox.step()
    product = office.catalogue.product(scene.product).record
    release = office.catalogue.release(scene.product, 1).record
    stranger = Call("halt", (scene.product, product, release, "first"))
    # The same guardian's other transaction, from elsewhere, gets in first with the same nonce.
    fields = transaction(
        scene.ledger, scene.contract, scene.chain.encode(stranger), nonce=3, gas=200_000,
        fees=Fees(1),
    )  # fmt: skip
    scene.chain.send(scene.fee.sign(fields))
    with pytest.raises(LedgerRefused) as refused:
        office.outbox.wait(row, 10, rest=scene.rest)
    assert refused.value.reason == "wrong-status"
    assert "the release is halted" in refused.value.why


# -- once ----------------------------------------------------------------------------------------


def test_the_same_key_is_the_same_row(world: World) -> None:
    office = with_product(world)
    assert office.outbox.submit("r1", GOOD) == office.outbox.submit("r1", GOOD)
    with pytest.raises(Misuse) as misused:
        office.outbox.submit("r1", Publish(terms(PRODUCT, "2.0.0"), unsigned(2)))
    assert misused.value.reason == "key-reused"
    office.do("r1", GOOD)
    assert office.outbox.submit("r1", GOOD) == office.outbox.row(2).id
    assert world.count("ReleasePublished") == 1


def test_the_same_release_under_another_key_is_found_on_the_ledger(world: World) -> None:
    office = with_product(world)
    first = office.do("r1", GOOD)
    second = office.do("r1 again", GOOD)
    assert (second.status, second.tx) == (Status.MINED, first.tx)
    assert world.count("ReleasePublished") == 1


def drive(world: World, office: Office, rounds: int) -> None:
    office.outbox.submit("r1", GOOD)
    for _ in range(rounds):
        office.outbox.step()
        world.rest()


Mishap = Callable[[World], None]


def nothing(world: World) -> None:
    """The node goes on as if nothing had been."""


def pool_lost(world: World) -> None:
    """The node, too, is restarted, and has lost what waited."""
    world.chain.forget_pool()


def block_lost(world: World) -> None:
    """While the registry is down, the newest block never was."""
    world.rest()
    world.chain.reorganise(2)


def chain_forgets(world: World) -> None:
    """While the registry is down, the newest blocks never were, nor what was in them."""
    world.rest()
    world.chain.reorganise(2, lose=True)


@pytest.mark.parametrize("mishap", [nothing, pool_lost, block_lost, chain_forgets])
def test_killed_anywhere_a_release_is_published_exactly_once(
    tmp_path: Path, mishap: Mishap
) -> None:
    start = World(tmp_path)
    with_product(start).close()
    for _ in range(4):
        start.rest(5)  # the product is out of reach of reorganisations, the lease free
    for at in itertools.count(1):
        world = start.twin(str(at))
        killer = Killer(at)
        doomed = world.office(chain=killer.around(world.chain, "send"), depth=3)
        killer.watch(doomed.engine, doomed.catalogue.engine)
        died = False
        try:
            drive(world, doomed, rounds=6)
        except Killed:
            died = True
        doomed.close()

        mishap(world)
        world.rest(20)  # until the dead one's lease has run out
        office = world.office(depth=3)
        row = office.do("r1", GOOD)
        assert world.count("ReleasePublished") == 1, at
        assert row.status is Status.MINED
        published = office.catalogue.published(PRODUCT, GOOD.terms.hash_struct())
        assert published is not None and published.published.tx == row.tx
        assert office.catalogue.product(PRODUCT).record.head.latest_release == 1
        office.close()
        if not died:
            break
    assert at > 20


def test_an_answer_that_is_lost_is_no_loss(world: World) -> None:
    office = with_product(world)
    world.chain.lose_answers = 1
    row = office.outbox.submit("r1", GOOD)
    with pytest.raises(Unreachable):
        office.outbox.step()
    assert office.outbox.wait(row, 10, rest=world.rest).status is Status.MINED
    assert world.count("ReleasePublished") == 1


def test_the_same_bytes_are_offered_until_they_are_in_a_block(world: World) -> None:
    office = with_product(world)
    row = office.outbox.submit("r1", GOOD)
    office.outbox.step()
    offered = office.outbox.row(row).tx
    for _ in range(4):
        world.chain.forget_pool()
        world.rest(20)
        office.outbox.step()
    assert office.outbox.wait(row, 10, rest=world.rest).tx == offered


def test_a_reorganisation_before_finality_sends_the_same_bytes_again(world: World) -> None:
    world.office(depth=0).do("product", CreateProduct(SALT, governance()))
    for _ in range(6):
        world.rest()
    office = world.office(depth=4)
    world.clock.time += 20
    row = office.outbox.submit("r1", GOOD)
    office.outbox.step()
    world.rest()
    office.outbox.step()
    assert world.count("ReleasePublished") == 1
    assert office.outbox.row(row).status is Status.SENT
    tx = office.outbox.row(row).tx
    world.chain.reorganise(1, lose=True)
    assert world.count("ReleasePublished") == 0
    assert office.outbox.wait(row, 10, rest=world.rest).tx == tx
    assert world.count("ReleasePublished") == 1


# -- records that move ---------------------------------------------------------------------------


def test_what_is_stale_when_it_runs_is_made_anew_from_the_newest_record(world: World) -> None:
    office = with_product(world)
    row = office.outbox.submit("r1", GOOD)
    office.outbox.step()
    (mine,) = world.chain.pool.values()
    # A transaction of the same account from elsewhere takes the nonce, and changes the product.
    other = terms(PRODUCT, "0.9.0")
    product = office.catalogue.product(PRODUCT).record
    call = world.chain.encode(Call("publish", (product, other, unsigned(2))))
    fields = transaction(
        world.chain.ledger, world.chain.ledger.contract, call, nonce=mine.nonce, gas=10**6,
        fees=Fees(5),
    )  # fmt: skip
    world.chain.send(RITA.sign(fields))
    done = office.outbox.wait(row, 10, rest=world.rest)
    assert done.attempts == 1
    assert office.catalogue.product(PRODUCT).record.head.latest_release == 2
    assert world.count("ReleasePublished") == 2


def test_a_reverted_stale_record_is_retried_with_a_new_nonce(world: World) -> None:
    office = with_product(world)
    # The simulated chain orders a block by sender.
    guardian = min(map(person, ("alice", "bob", "gus")), key=lambda who: who.address)
    assert guardian.address < RITA.address
    row = office.outbox.submit("r1", GOOD)
    office.outbox.step()
    # Somebody else's pause and the publication meet in one block; the pause comes first.
    product = office.catalogue.product(PRODUCT).record
    call = world.chain.encode(Call("pause", (PRODUCT, product)))
    fields = transaction(
        world.chain.ledger, world.chain.ledger.contract, call, nonce=0, gas=10**6, fees=Fees(0)
    )
    world.chain.send(guardian.sign(fields))
    done = office.outbox.wait(row, 10, rest=world.rest)
    assert (done.status, done.attempts) == (Status.MINED, 1)
    assert [e.name for e in world.chain.all_events][-2:] == ["ProductPaused", "ReleasePublished"]


def test_acts_on_one_record_go_one_after_the_other_and_others_together(world: World) -> None:
    office = with_product(world)
    office.do("r1", GOOD)
    two = [
        Anchor(PRODUCT, 1, 0, 1, sha256(b"1"), 1, 0),
        Anchor(PRODUCT, 1, 1, 2, sha256(b"2"), 1, 0),
    ]
    rows = [office.outbox.submit(f"batch {b.new_size}", b) for b in two]
    elsewhere = office.outbox.submit("other", CreateProduct(Hash(sha256(b"other")), governance()))
    office.outbox.step()
    assert [office.outbox.row(r).status for r in (*rows, elsewhere)] == [
        Status.SENT,
        Status.QUEUED,
        Status.SENT,
    ]
    for row in rows:
        office.outbox.wait(row, 10, rest=world.rest)
    assert office.catalogue.release(PRODUCT, 1).word.log_size == 2


def test_a_batch_that_another_reporter_overtook_is_refused_not_miscounted(world: World) -> None:
    office = with_product(world)
    office.do("r1", GOOD)
    office.do("theirs", Anchor(PRODUCT, 1, 0, 2, sha256(b"theirs"), 2, 0))
    row = office.outbox.submit("ours", Anchor(PRODUCT, 1, 0, 3, sha256(b"ours"), 3, 0))
    with pytest.raises(Refused) as refused:
        office.outbox.wait(row, 10, rest=world.rest)
    assert refused.value.reason == "log-moved"
    assert refused.value.data == {"size": 2}


@pytest.mark.parametrize(
    ("poison", "reason"),
    [
        (Anchor(PRODUCT, 77, 0, 1, sha256(b"1"), 1, 0), "unknown-release"),
        (Anchor(PRODUCT, 1, 0, 2**32, sha256(b"1"), 1, 0), "bad-arguments"),
        (Pause(product_id(RITA.address, bytes(32))), "unknown-product"),
    ],
)
def test_an_act_that_cannot_be_stops_nobody_else(world: World, poison: Intent, reason: str) -> None:
    office = with_product(world)
    office.do("r1", GOOD)
    row = office.outbox.submit("poison", poison)
    office.do("other", CreateProduct(Hash(sha256(b"other")), governance()))
    with pytest.raises(Misuse) as refused:
        office.outbox.wait(row, 10)
    assert refused.value.reason == reason


# -- fees and the node's moods -------------------------------------------------------------------


def test_a_fee_that_is_too_low_is_raised_up_to_the_cap(world: World) -> None:
    office = with_product(world)
    world.chain.price = 100
    row = office.outbox.submit("r1", GOOD)
    office.outbox.step()
    world.chain.floor = 150
    first = office.outbox.row(row).tx
    for _ in range(5):
        world.rest(61)
        office.outbox.step()
    done = office.outbox.wait(row, 10, rest=world.rest)
    assert done.tx != first
    assert world.count("ReleasePublished") == 1

    world.chain.floor = 2_000  # above fee_cap
    world.chain.price = 1_500
    row = office.outbox.submit("r2", Publish(terms(PRODUCT, "2.0.0"), unsigned(2)))
    for _ in range(5):
        office.outbox.step()
        world.rest(61)
    assert office.outbox.row(row).status is Status.SENT
    assert {tx.price for tx in world.chain.pool.values()} == {1_000}


def test_on_a_free_chain_nothing_is_bumped(world: World) -> None:
    office = with_product(world)
    row = office.outbox.submit("r1", GOOD)
    world.chain.floor = 1
    for _ in range(4):
        office.outbox.step()
        world.rest(61)
    tx = office.outbox.row(row).tx
    world.chain.floor = 0
    assert office.outbox.wait(row, 10, rest=world.rest).tx == tx


def test_a_node_that_refuses_is_asked_again_later(world: World) -> None:
    office = with_product(world)
    row = office.outbox.submit("r1", GOOD)
    world.chain.refuse = Refused("rejected", "transaction not taken", "no funds", "send some")
    office.outbox.step()
    kept = office.outbox.row(row)
    assert (kept.status, kept.error and kept.error["why"]) == (Status.SIGNED, "no funds")
    done = office.outbox.wait(row, 10, rest=world.rest)
    assert (done.status, done.error) == (Status.MINED, None)


def test_it_does_not_try_for_ever(world: World) -> None:
    office = with_product(world)
    row = office.outbox.submit("r1", GOOD)
    for _ in range(2 * MAX_ATTEMPTS):  # every other round it only rests
        office.outbox.step()
        world.chain.forget_pool()
        nonce = world.chain.nonce(RITA.address)
        elsewhere = Call("createProduct", (sha256(bytes([nonce])), governance()))
        fields = transaction(
            world.chain.ledger, world.chain.ledger.contract, world.chain.encode(elsewhere),
            nonce=nonce, gas=10**6, fees=Fees(0),
        )  # fmt: skip
        world.chain.send(RITA.sign(fields))
        world.rest(70)
    office.outbox.step()
    assert office.outbox.row(row).status is Status.FAILED
    with pytest.raises(Refused) as refused:
        office.outbox.wait(row, 10)
    assert refused.value.reason == "nonce-spent"


# -- one writer ----------------------------------------------------------------------------------


def test_only_one_of_two_registries_writes(world: World) -> None:
    first, second = world.office(), world.office()
    first.do("product", CreateProduct(SALT, governance()))
    row = second.outbox.submit("r1", GOOD)
    assert not second.outbox.step()
    assert second.outbox.row(row).status is Status.QUEUED
    world.clock.time += 11  # the first has gone quiet
    assert second.outbox.step()
    assert not first.outbox.step()
    second.outbox.wait(row, 10, rest=world.rest)
    assert world.count("ReleasePublished") == 1


def test_a_writer_that_slept_through_its_lease_is_fenced_off(world: World) -> None:
    slow, quick = with_product(world), world.office()
    slow.outbox.submit("r1", GOOD)

    class Sleepy:
        """The chain as a process sees it that stands still in the middle of a step."""

        def __getattr__(self, name: str) -> object:
            return getattr(world.chain, name)

        def fees(self) -> Fees:
            world.clock.time += 11
            quick.outbox.step()
            return world.chain.fees()

    slow.outbox._chain = Sleepy()  # type: ignore[assignment]
    with pytest.raises(LocalFault) as fenced:
        slow.outbox.step()
    assert fenced.value.reason == "lease-lost"
    assert len(world.chain.pool) == 1
    world.rest()
    quick.outbox.step()
    assert world.count("ReleasePublished") == 1


def test_a_database_of_another_ledger_is_refused(world: World) -> None:
    with_product(world).close()
    stranger = World(world.folder)
    stranger.chain.ledger = type(stranger.chain.ledger)(99, stranger.chain.ledger.contract)
    with pytest.raises(Misuse) as refused:
        stranger.office()
    assert refused.value.reason == "another-ledger"


def test_the_worker_follows_publishes_and_stops(world: World) -> None:
    office, stop = with_product(world), threading.Event()
    row = office.outbox.submit("r1", GOOD)
    worker = threading.Thread(target=office.outbox.run, args=(stop,))
    worker.start()
    try:
        done = office.outbox.wait(row, 30, rest=lambda _: (time.sleep(0.05), world.rest())[1])
    finally:
        stop.set()
        worker.join()
    assert done.status is Status.MINED
    assert world.office().outbox.step() is False  # free at once, and nothing left to do


# -- intents -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wanted",
    [
        GOOD,
        CreateProduct(SALT, governance()),
        Anchor(PRODUCT, 1, 0, 3, sha256(b"root"), 2, 1),
        Halt(PRODUCT, 1, "why not"),
        Pause(PRODUCT),
        SetFleet(PRODUCT, sha256(b"fleet"), 3),
    ],
)
def test_an_intent_survives_storage(wanted: Intent) -> None:
    assert intent(wanted.to_json()) == wanted
