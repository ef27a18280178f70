"""A chain that changes its validators at random, and a device that follows it by links and proofs.

Whatever it is shown, the device's validators are those that the chain had at the height the device
stands at; or it refuses. Where a chain of links exists it does not refuse; where the validators
contradict themselves before its eyes it freezes, until the recovery keys name the chain anew.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace
from functools import lru_cache

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from device_client.core.reanchor import reanchor
from device_client.core.trust import Equivocation, TrustState, advance
from protocol.bundle import MAX_LINKS, Fresh
from protocol.errors import Refused, Untrusted
from protocol.header import Header, encode_header, quorum, trim_seals
from protocol.ids import Address
from protocol.ledger import Status
from protocol.proof import Proof, assemble
from tests.protocol import recovering
from tests.protocol.published import LEDGER, NOW, PRODUCT_ID, Published, publish
from tests.protocol.sealed import CODE_HASH, Validator, World, addresses, make_header, seal

ACTIVE = publish()
HALTED = ACTIVE.with_status(Status.HALTED)
EVERYBODY = tuple(sorted((Validator(n) for n in range(12)), key=lambda one: one.address))
SLOTS = ACTIVE.anchor.slots(1)
Group = tuple[Validator, ...]

groups = st.sets(st.integers(0, 11), min_size=1, max_size=8).map(
    lambda chosen: tuple(EVERYBODY[n] for n in sorted(chosen))
)


def _world(story: Published) -> World:
    product = LEDGER.product_slot(PRODUCT_ID, story.product, NOW)
    release = LEDGER.release_slot(PRODUCT_ID, 1, story.terms.hash_struct(), story.state)
    words = (int.from_bytes(word, "big") for word in (product, release))
    return World(dict(zip(SLOTS, words, strict=True)), accounts=3)


STORIES = {False: (ACTIVE, _world(ACTIVE)), True: (HALTED, _world(HALTED))}


@dataclass(frozen=True)
class Block:
    """A block of the chain, or one that rivals it, sealed by all of its validators or by some."""

    number: int
    group: Group
    rival: bool = False
    round_number: int = 0
    sealed_by: Group | None = None

    def link(self, trusted: tuple[Address, ...]) -> bytes:
        """As a registry would send it to who trusts these; untrimmed where it could not hold."""
        try:
            return encode_header(trim_seals(_header(self), trusted))
        except Untrusted:
            return encode_header(_header(self))

    def fresh(self, links: tuple[bytes, ...] = ()) -> Fresh:
        (story, world), genuine = STORIES[self.rival], replace(self, sealed_by=None)
        nodes = assemble(encode_header(_header(genuine)), world.get_proof(SLOTS)).nodes
        return Fresh(Proof(self.link(()), nodes), story.product, story.release, links)


@lru_cache(maxsize=2000)
def _header(block: Block) -> Header:
    unsealed = make_header(
        block.group,
        state_root=STORIES[block.rival][1].header(sealed_by=()).state_root,
        number=block.number,
        timestamp=NOW + 10 * block.number,
        round_number=block.round_number,
    )
    return seal(unsealed, block.group if block.sealed_by is None else block.sealed_by)


class LightClient(RuleBasedStateMachine):
    """The chain is always the true one: blocks of rivals are made up for the moment."""

    @initialize(group=groups)
    def start(self, group: Group) -> None:
        self.chain = [Block(1, group)]
        self.trust = recovering.trust_file(validators=addresses(group), min_height=0)
        self.state = TrustState.first(self.trust)
        self.sequence = 0

    # -- the chain --------------------------------------------------------------------------------

    @rule(blocks=st.integers(1, 3), round_number=st.sampled_from((0, 0, 1, 5)))
    def grow(self, blocks: int, round_number: int) -> None:
        for _ in range(blocks):
            last = self.chain[-1]
            self.chain.append(Block(last.number + 1, last.group, round_number=round_number))

    @rule(leaving=st.integers(0, 2), coming=st.sets(st.integers(0, 11), max_size=2))
    def vote(self, leaving: int, coming: set[int]) -> None:
        last = self.chain[-1]
        staying = set(last.group[leaving:]) | {EVERYBODY[n] for n in coming} or set(last.group)
        group = tuple(one for one in EVERYBODY if one in staying)[:8]
        self.chain.append(Block(last.number + 1, group))

    @rule(group=groups)
    def change_all(self, group: Group) -> None:
        self.chain.append(Block(self.chain[-1].number + 1, group))

    # -- what the device is shown -----------------------------------------------------------------

    def show(self, fresh: Fresh) -> str:
        """``read``, or why it was refused, which changes nothing but that it may freeze."""
        before = self.state
        try:
            self.state, _ = advance(before, fresh, self.trust.anchor, clock=None)
        except Equivocation as error:
            self.state = error.state
            assert self.state == replace(before, evidence=self.state.evidence)
            return error.reason
        except (Untrusted, Refused) as error:
            assert self.state is before
            return error.reason
        return "read"

    def links(self) -> tuple[bytes, ...] | None:
        """The fewest links from the device's validators to the head's; None if there are none."""
        start, head = (self.state.height, set(self.state.validators)), self.chain[-1]
        waiting: deque[tuple[tuple[int, set[Address]], tuple[bytes, ...]]] = deque([(start, ())])
        seen: set[frozenset[Address]] = set()
        while waiting:
            (height, trusted), path = waiting.popleft()
            if trusted == set(addresses(head.group)):
                return path
            if frozenset(trusted) in seen or len(path) == MAX_LINKS:
                continue
            seen.add(frozenset(trusted))
            for block in self.chain:
                listed = set(addresses(block.group))
                if block.number > height and len(listed & trusted) >= quorum(len(trusted)):
                    link = block.link(tuple(trusted))
                    waiting.append(((block.number, listed), (*path, link)))
        return None

    @rule()
    def follow(self) -> None:
        """An honest registry: what can be followed is followed."""
        frozen, found = self.state.frozen, self.links()
        answer = self.show(self.chain[-1].fresh(found or ()))
        if frozen:
            assert answer == "frozen"
        elif found is not None:
            assert answer == "read" and self.state.height == self.chain[-1].number
        else:
            assert answer == "validators-changed"

    @rule(past=st.sets(st.integers(0, 30), max_size=6))
    def follow_from_the_start(self, past: set[int]) -> None:
        """A registry that does not know the device's height sends links from before it, too."""
        frozen, found = self.state.frozen, self.links()
        if found is None or frozen:
            return
        passed = [b for b in self.chain if b.number in past and b.number <= self.state.height]
        links = (*(block.link(()) for block in passed), *found)[-MAX_LINKS:]
        assert self.show(self.chain[-1].fresh(links)) == "read"
        assert self.state.height == self.chain[-1].number

    @rule(data=st.data())
    def mixed(self, data: st.DataObject) -> None:
        """True blocks in any order and choice: nothing false is ever believed."""
        frozen = self.state.frozen
        some = st.lists(st.sampled_from(self.chain), max_size=3)
        trusted = self.state.validators
        links = tuple(block.link(trusted) for block in data.draw(some))
        self.show(data.draw(st.sampled_from(self.chain)).fresh(links))
        assert self.state.frozen == frozen, "true blocks do not contradict each other"

    @rule(data=st.data(), group=groups, ahead=st.integers(0, 40))
    def minority(self, data: st.DataObject, group: Group, ahead: int) -> None:
        """Less than a quorum, with whomever else: another block, a jump ahead, their own set."""
        trusted = tuple(one for one in EVERYBODY if one.address in self.state.validators)
        few = data.draw(st.permutations(trusted))[: quorum(len(trusted)) - 1]
        own = tuple(one for one in group if one not in trusted or one in few)
        own = tuple(sorted({*own, *few}, key=lambda one: one.address))
        number = max(1, self.state.height + ahead)
        strangers = tuple(one for one in EVERYBODY if one not in trusted)
        past = Block(max(1, self.state.height - ahead), own or strangers, rival=True)
        lies = [Block(number, trusted, rival=True, sealed_by=own)]
        if own:
            lies.append(Block(number, own, rival=True))
        before = self.state
        for lie in lies:
            for links in ((), (lie.link(before.validators),), (past.link(()),)):
                assert self.show(lie.fresh(links)) not in ("read", "equivocation")
        assert self.state == before

    @precondition(lambda self: self.state.header and not self.state.frozen)
    @rule(as_link=st.booleans(), round_number=st.integers(0, 3))
    def contradict(self, as_link: bool, round_number: int) -> None:
        """A quorum of the trusted seals another block at the height that the device stands at."""
        trusted = tuple(one for one in EVERYBODY if one.address in self.state.validators)
        rival = Block(self.state.height, trusted, True, round_number)
        links = (rival.link(self.state.validators),) if as_link else ()
        shown = self.chain[-1] if as_link else rival
        assert self.show(shown.fresh(links)) == "equivocation"
        assert len(self.state.evidence) == 2

    @rule()
    def recover(self) -> None:
        """The recovery keys name the chain as it is now."""
        head = self.chain[-1]
        self.sequence += 1
        said = replace(
            recovering.STATEMENT,
            sequence=self.sequence,
            validators=addresses(head.group),
            height=head.number,
            time=NOW + 10 * head.number,
            ledger=LEDGER,
            code_hash=CODE_HASH,
        )
        before = self.state
        self.state = reanchor(before, recovering.signed(said), self.trust)
        assert self.state.height >= before.height and self.state.time >= before.time
        assert self.show(head.fresh()) == "read"

    # -- what holds whatever was shown ------------------------------------------------------------

    @invariant()
    def its_validators_are_the_chains(self) -> None:
        there = {block.number: block for block in self.chain}.get(self.state.height, self.chain[0])
        assert set(self.state.validators) == set(addresses(there.group))

    @invariant()
    def it_survives_a_power_cut(self) -> None:
        assert TrustState.decode(self.state.encode()) == self.state


TestLightClient = LightClient.TestCase
TestLightClient.settings = settings(max_examples=40, stateful_step_count=25, deadline=None)
