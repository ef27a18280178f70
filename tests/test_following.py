"""A registry leads devices through the changes of a consortium: what it sends, they believe.

The chain changes its validators while devices sleep; each device polls with the height it knows,
and advances by the links it is given, or is told why it cannot.
"""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from device_client.core.trust import TrustState, advance
from protocol.bundle import MAX_LINKS, Anchor, Bundle, Fresh
from protocol.errors import FirmledgerError, Refused, Unreachable, Untrusted
from protocol.header import (
    Field,
    build_header,
    encode_header,
    parse_header,
    quorum,
    sealers,
    with_seals,
)
from protocol.ids import Address
from protocol.proof import read_link
from protocol.rlp import from_uint
from protocol.trustfile import FUTURE_TOLERANCE, TrustFile
from registry import sticks
from registry.assembly import Registry
from registry.bundles import Answer
from registry.catalogue import Catalogue
from registry.embedded.sealing import seal
from registry.index import Index
from registry.links import SEARCHED, Links
from registry.links import Path as LinkPath
from registry.provisioning import trust_file
from registry.store import CATALOGUE, REGISTRY, open_database
from registry.web import views
from tests.registry.place import Place, Unit, make
from tests.world.consortium import Consortium, addresses, member

UNIT = Unit("sleeper")


class World:
    """A registry with one product, on a ledger whose validators come and go."""

    def __init__(self, place: Place) -> None:
        self.place = place
        assert place.registry.ledger is not None
        self.consortium = Consortium(place.registry.ledger)
        self.sets: dict[int, tuple[Address, ...]] = {}
        self.note()

    @property
    def registry(self) -> Registry:
        return self.place.registry

    @property
    def height(self) -> int:
        head = self.registry.catalogue.head()
        assert head is not None
        return head.number

    def note(self) -> None:
        self.sets[self.height] = self.registry.validators()

    def block(self, count: int = 1) -> int:
        for _ in range(count):
            self.place.tick(60)
            self.note()
        return self.height

    def elect(self, *members: int, sealing: tuple[int, ...] | None = None) -> int:
        """Another set, and the first block that lists it."""
        self.consortium.elect(members, sealing)
        return self.block()

    def device(self, height: int) -> TrustState:
        """One that has seen the block of this height, and nothing since."""
        block = self.registry.chain.block(height)
        assert block is not None
        header = self.registry.chain.header(block.hash)
        listed = parse_header(header)
        return TrustState(height, block.timestamp, sealed_in_order(header), listed.extra.validators)

    def poll(self, state: TrustState | None) -> Answer:
        seen = None if state is None else state.height
        return self.registry.bundles.answer(self.place.product, UNIT.asks(), seen)

    @property
    def anchor(self) -> Anchor:
        return self.place.anchor_of_trust


def sealed_in_order(header: bytes) -> bytes:
    parsed = parse_header(header)
    pairs = sorted(zip(sealers(parsed), parsed.extra.seals, strict=True))
    return encode_header(with_seals(parsed, [seal for _, seal in pairs]))


def fresh_of(answer: Answer) -> Fresh:
    return Bundle.decode(answer.body).fresh


def follow(world: World, state: TrustState) -> TrustState:
    """The device's state after one poll."""
    moved, _ = advance(state, fresh_of(world.poll(state)), world.anchor, clock=None)
    return moved


@pytest.fixture
def world(laid: Path, tmp_path: Path) -> Iterator[World]:
    shutil.copytree(laid, tmp_path / "reg")
    place = Place(tmp_path / "reg", tmp_path)
    place.registry.follow()
    try:
        yield World(place)
    finally:
        place.close()


@pytest.fixture(scope="module")
def laid(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("laid")
    make(folder / "reg", folder)
    return folder / "reg"


FOUR = (1, 2, 3, 4)


def found(world: World) -> int:
    """The numbered members take over from those that the ledger began with; a height of theirs."""
    first = world.registry.validators()
    world.consortium.elect(FOUR)
    height = world.block(2)
    assert world.sets[height] != first
    return height


# -- sleeping through changes --------------------------------------------------------------------


def test_a_device_that_slept_through_several_changes_follows(world: World) -> None:
    state = world.device(found(world))
    world.elect(1, 2, 3, 5)
    world.elect(1, 2, 3, 5, 6)
    world.block(3)
    world.elect(1, 2, 5, 6)
    head = world.block(2)
    with pytest.raises(Untrusted) as refused:  # what such a device makes of an answer without links
        fresh = fresh_of(world.poll(state))
        advance(state, replace(fresh, links=()), world.anchor, clock=None)
    assert refused.value.reason == "validators-changed"
    assert len(fresh.links) == 3
    moved = follow(world, state)
    assert (moved.height, moved.validators) == (head, addresses((1, 2, 5, 6)))


def test_a_changed_link_is_refused_and_trust_stays(world: World) -> None:
    state = world.device(found(world))
    world.elect(1, 2, 3, 5)
    world.block()
    fresh = fresh_of(world.poll(state))
    (link,) = fresh.links
    chance = random.Random(7)
    for _ in range(150):
        place = chance.randrange(len(link))
        spoiled = link[:place] + bytes([link[place] ^ 1 << chance.randrange(8)]) + link[place + 1 :]
        with pytest.raises(FirmledgerError):
            advance(state, replace(fresh, links=(spoiled,)), world.anchor, clock=None)
    assert follow(world, state).height == world.height


def test_devices_of_every_height_follow_what_one_stick_holds(world: World) -> None:
    """Each passes over what is below its own height."""
    first = found(world)
    for members in ((1, 2, 3, 5), (1, 2, 5, 6), (1, 5, 6, 7), (5, 6, 7, 8)):
        world.elect(*members)
        world.block(2)
    world.place.publish("1.0.0")
    answer = world.registry.bundles.of_release(world.place.product, 1, first)
    fresh = fresh_of(answer)
    for height in range(first, world.height + 1):
        moved, _ = advance(world.device(height), fresh, world.anchor, clock=None)
        assert moved.validators == world.registry.validators()


def test_a_link_is_searched_behind_a_block_that_too_few_of_before_sealed(world: World) -> None:
    state = world.device(found(world))
    world.elect(1, 2, 3, 5, sealing=(1, 2, 5))  # its own quorum, and two of the four before
    without = world.poll(state)
    assert fresh_of(without).links == ()
    with pytest.raises(Untrusted) as refused:
        follow(world, state)
    assert refused.value.reason == "validators-changed"
    world.block(2)
    world.consortium.elect((1, 2, 3, 5), (1, 2, 3))
    fitting = world.block()
    world.block()
    moved = follow(world, state)
    assert moved.validators == addresses((1, 2, 3, 5))
    (link,) = fresh_of(world.poll(state)).links
    assert read_link(link).number == fitting


def test_the_search_ends(world: World) -> None:
    state = world.device(found(world))
    world.elect(1, 2, 3, 5, sealing=(1, 2, 5))
    world.block(SEARCHED)
    asked: list[int] = []
    chain = world.registry.chain
    real, chain.header = chain.header, lambda block: asked.append(1) or real(block)  # type: ignore
    for _ in range(3):
        assert fresh_of(world.poll(state)).links == ()
    assert len(asked) <= SEARCHED + 1


def test_a_set_that_nothing_leads_to_is_left_out(world: World) -> None:
    state = world.device(found(world))
    world.elect(5, 6, 7, 8)  # nobody of before
    world.elect(1, 2, 3, 9)
    world.block()
    assert follow(world, state).validators == addresses((1, 2, 3, 9))


def test_where_no_chain_of_links_leads_the_device_says_so(world: World) -> None:
    state = world.device(found(world))
    world.elect(5, 6, 7, 8)
    world.block()
    with pytest.raises(Untrusted) as refused:
        follow(world, state)
    assert refused.value.reason == "validators-changed"


@pytest.mark.parametrize("seed", range(6))
def test_whatever_the_consortium_does_devices_follow_where_links_exist(
    world: World, seed: int
) -> None:
    chance, first = random.Random(seed), found(world)
    members = list(FOUR)
    for _ in range(14):
        if chance.random() < 0.5:
            if len(members) > 4 or chance.random() < 0.4:
                members.remove(chance.choice(members))
            members.append(chance.choice([n for n in range(1, 12) if n not in members]))
            members = members[-chance.choice([4, 5, 7]) :]
        some = chance.sample(members, chance.randint(quorum(len(members)), len(members)))
        world.consortium.elect(tuple(members), tuple(some))
        world.block(chance.randint(1, 2))
    for height in range(first, world.height + 1):
        state = world.device(height)
        try:
            moved = follow(world, state)
        except Untrusted as refusal:
            assert refusal.reason == "validators-changed"
            assert not leads(world, height)
        else:
            assert moved.validators == world.registry.validators()


def leads(world: World, height: int) -> bool:
    """Whether any chain of headers leads on from there: all of them tried, in plain words."""
    reached = {world.sets[height]}
    for number in range(height + 1, world.height + 1):
        block = world.registry.chain.block(number)
        assert block is not None
        header = parse_header(world.registry.chain.header(block.hash))
        signed = set(sealers(header))
        if any(len(signed & set(one)) >= quorum(len(one)) for one in reached):
            reached.add(header.extra.validators)
    return world.registry.validators() in reached


# -- far behind ----------------------------------------------------------------------------------


def many_changes(world: World, count: int) -> None:
    """One member in, one out, at every block."""
    for last in range(5, 5 + count):
        world.elect(*range(last - 3, last + 1))
    world.block()


def test_a_device_behind_more_changes_than_a_bundle_follows_goes_step_by_step(
    world: World,
) -> None:
    state = world.device(found(world))
    many_changes(world, 2 * MAX_LINKS + 3)
    heights = []
    while state.height < world.height:
        answer = world.poll(state)
        state, view = advance(state, fresh_of(answer), world.anchor, clock=None)
        heights.append(state.height)
        assert answer.offers is (state.height == world.height) or view.release is None
        assert len(heights) < 5
    assert len(heights) == 3 and heights == sorted(set(heights))
    assert state.validators == world.registry.validators()


def test_where_old_states_are_gone_it_is_refused_and_told_to_re_anchor(world: World) -> None:
    state = world.device(found(world))
    many_changes(world, MAX_LINKS + 1)
    chain, head = world.registry.chain, world.registry.catalogue.head()
    real = chain.proof

    def pruned(slots: Any, block: Any) -> Any:
        if head is not None and block != head.hash:
            raise Unreachable("rpc-refused", "eth_getProof not answered", "missing trie node", "-")
        return real(slots, block)

    chain.proof = pruned  # type: ignore[method-assign]
    with pytest.raises(Refused) as refused:
        world.poll(state)
    assert refused.value.reason == "too-far-behind" and "reanchor" in refused.value.fix
    near = world.device(world.height - 3)
    assert follow(world, near).height == world.height


def test_who_does_not_say_its_height_gets_the_newest_links(world: World) -> None:
    found(world)
    many_changes(world, MAX_LINKS + 4)
    fresh = fresh_of(world.poll(None))
    assert len(fresh.links) == MAX_LINKS
    numbers = [read_link(link).number for link in fresh.links]
    assert numbers == sorted(numbers) and numbers[-1] == world.height - 1


def test_links_stay_within_the_seals_that_a_bundle_may_hold(world: World) -> None:
    found(world)
    large = tuple(range(1, 50))
    for last in range(len(large), len(large) + 20):  # no link leads here, but to each other
        world.elect(*range(last - 48, last + 1))
    world.block()
    seals = [len(read_link(link).sealers) for link in fresh_of(world.poll(None)).links]
    assert 0 < sum(seals) <= 512 < sum(seals) + max(seals)


# -- what devices do not need --------------------------------------------------------------------


def test_links_that_a_device_does_not_need_change_nothing_for_it(world: World) -> None:
    behind = world.device(found(world))
    world.elect(1, 2, 3, 5)
    world.block(2)
    ahead = world.device(world.height)
    before = world.poll(ahead)
    assert fresh_of(before).links == ()
    assert fresh_of(world.poll(behind)).links != ()
    assert world.poll(ahead).etag == before.etag
    assert world.poll(behind).etag == world.poll(behind).etag != before.etag


def test_the_proof_is_never_below_a_link(world: World) -> None:
    """An answer kept from before a change has no link to what came after it."""
    state = world.device(found(world))
    kept = world.poll(state)
    world.elect(1, 2, 3, 5)  # within max-age/10: the answer still holds
    assert world.poll(state).etag == kept.etag
    assert fresh_of(world.poll(state)).links == ()


def test_a_link_found_later_is_above_an_earlier_block(world: World) -> None:
    """Two products' proofs may be of two blocks: what leads to one is too high for the other."""
    state = world.device(found(world))
    early = world.elect(1, 2, 3, 5, sealing=(1, 2, 5))
    world.consortium.elect((1, 2, 3, 5), (1, 2, 3))
    late = world.block()
    links = Links(world.registry.chain, world.registry.catalogue)
    links.refresh()
    (link,) = links.first(state.height, late).links
    assert link.block.number == late
    assert links.first(state.height, early) == LinkPath(leads=False)


# -- the catalogue -------------------------------------------------------------------------------


def test_the_catalogue_made_anew_has_the_same_sets(world: World, tmp_path: Path) -> None:
    found(world)
    many_changes(world, 5)
    anew = Catalogue(open_database(tmp_path / "anew.sqlite", CATALOGUE, durable=False))
    own = open_database(tmp_path / "own.sqlite", REGISTRY, durable=True)
    index = Index(
        world.registry.chain, anew, own, start=world.registry.settings.deployed_at, depth=0
    )
    index.catch_up()
    assert anew.validator_sets() == world.registry.catalogue.validator_sets()
    assert len(anew.validator_sets()) == 7
    assert anew.dump() == world.registry.catalogue.dump()
    anew.engine.dispose()
    own.dispose()


# -- sticks ----------------------------------------------------------------------------------------


@pytest.fixture
def stick(world: World, tmp_path: Path) -> tuple[Path, dict[str, TrustFile]]:
    """A stick of a release, and trust files of before the changes, in between, and after."""
    place, times = world.place, {"before": found(world)}
    draft = place.publish("1.0.0")
    world.elect(1, 2, 3, 5)
    times["between"] = world.block()
    world.elect(1, 2, 5, 6)
    times["after"] = world.block()
    world.block()
    trust = {}
    for name, height in times.items():
        listed = world.device(height)
        plain = trust_file(place.keys, views.status_view(world.registry), (), "http://127.0.0.1")
        trust[name] = replace(plain, validators=listed.validators, min_height=height)
    answer = world.registry.bundles.of_release(place.product, 1)
    path = tmp_path / "stick.flb"
    sticks.write(path, answer.body, [draft.payload_path.read_bytes()])
    return path, trust


def checked(path: Path, trust: TrustFile, now: int = 2**40) -> sticks.Verdict:
    return sticks.verify(path, trust, now, lambda _bytes: None)


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_a_stick_proves_itself_to_devices_of_any_age(stick: Any, when: str) -> None:
    path, trust = stick
    verdict = checked(path, trust[when])
    assert verdict.ok, verdict.error


@pytest.mark.parametrize("when", ["before", "between", "after"])
def test_no_bit_of_a_sticks_links_is_free(stick: Any, when: str) -> None:
    path, trust = stick
    bundle, file = sticks.open_stick(path)
    with file:
        payload = file.read()
    chance = random.Random(3)
    for number, link in enumerate(bundle.fresh.links):
        for _ in range(25):
            place = chance.randrange(len(link))
            bit = 1 << chance.randrange(8)
            spoiled = link[:place] + bytes([link[place] ^ bit]) + link[place + 1 :]
            links = (*bundle.fresh.links[:number], spoiled, *bundle.fresh.links[number + 1 :])
            fresh = replace(bundle.fresh, links=links)
            sticks.write(path, replace(bundle, fresh=fresh).encode(), [payload])
            assert checked(path, trust[when]).failed == "T4"


def test_links_out_of_order_or_without_the_trusted_are_refused(stick: Any) -> None:
    path, trust = stick
    bundle, file = sticks.open_stick(path)
    with file:
        payload = file.read()
    one, two = bundle.fresh.links[-2:]
    cases = [
        ((two, one), "after", "link-order"),
        ((one, one), "after", "link-order"),
        ((two,), "before", "no-overlap"),
        ((), "before", "validators-changed"),
    ]
    for links, when, reason in cases:
        fresh = replace(bundle.fresh, links=links)
        sticks.write(path, replace(bundle, fresh=fresh).encode(), [payload])
        error = checked(path, trust[when]).error
        assert error is not None and error.reason == reason


def test_a_stick_holds_the_links_above_its_trust_file_only(world: World, stick: Any) -> None:
    _, trust = stick
    for when, count in (("before", 2), ("between", 1), ("after", 0)):
        height = trust[when].min_height
        answer = world.registry.bundles.of_release(world.place.product, 1, height)
        assert len(fresh_of(answer).links) == count


def test_a_stick_whose_link_is_another_block_or_above_its_proof_is_refused(
    world: World, stick: Any
) -> None:
    path, trust = stick
    bundle, file = sticks.open_stick(path)
    with file:
        payload = file.read()
    header = parse_header(bundle.fresh.proof.header)
    for field, change, reason in (
        (Field.TIMESTAMP, 1, "equivocation"),
        (Field.NUMBER, 1, "below-trusted-height"),
    ):
        fields = list(header.fields)
        fields[field] = from_uint(int.from_bytes(fields[field], "big") + change)
        draft = with_seals(build_header(fields, header.extra), ())
        rival = encode_header(seal(draft, [member(number) for number in (1, 2, 5, 6)]))
        fresh = replace(bundle.fresh, links=(*bundle.fresh.links, rival))
        sticks.write(path, replace(bundle, fresh=fresh).encode(), [payload])
        for when in trust:
            error = checked(path, trust[when]).error
            assert error is not None and error.reason == reason


def test_a_stick_of_the_future_is_refused(stick: Any) -> None:
    path, trust = stick
    bundle, file = sticks.open_stick(path)
    file.close()
    stamped = parse_header(bundle.fresh.proof.header).timestamp
    assert checked(path, trust["before"], stamped - FUTURE_TOLERANCE).ok
    verdict = checked(path, trust["before"], stamped - FUTURE_TOLERANCE - 1)
    assert verdict.failed == "T8" and verdict.error is not None
    assert verdict.error.reason == "from-the-future"
