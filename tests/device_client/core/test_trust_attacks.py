"""A device among liars: each lie is refused by its step, and what was trusted before still is."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_client.core.trust import Equivocation, Step, TrustState, advance, require_fresh
from protocol import bundle
from protocol.bundle import Bundle, Offer
from protocol.errors import FirmledgerError, Refused, Untrusted, step
from protocol.header import encode_header, trim_seals
from protocol.ids import Version
from protocol.ledger import Status
from protocol.records import Head
from tests.protocol.published import NOW, flipped
from tests.protocol.sealed import addresses, make_header, seal, validators
from tests.world.adversary_proofs import Adversary, Lie

ADVERSARY = Adversary()
LIES = list(ADVERSARY.lies())
CLOCK = NOW + 10


def tell(state: TrustState, answer: bytes) -> tuple[TrustState, Offer | None]:
    """What a device does with an answer, up to asking the ledger's conditions."""
    with step(Step.READ):
        read = Bundle.decode(answer)
    state, view = advance(state, read.fresh, ADVERSARY.anchor, clock=CLOCK)
    return state, bundle.offer(read.static, view) if read.static else None


def test_the_truth_is_believed() -> None:
    state, offer = tell(ADVERSARY.device, ADVERSARY.genuine())
    assert state.height == 21 and offer is not None
    assert state.status_of(1) is Status.HALTED


@pytest.mark.parametrize("lie", LIES, ids=lambda lie: lie.name)
def test_a_lie_is_refused_by_its_step_and_moves_nothing(lie: Lie) -> None:
    state = ADVERSARY.device
    before = state.encode()
    with pytest.raises(FirmledgerError) as caught:
        tell(state, lie.answer)
    assert (caught.value.reason, caught.value.data["step"]) == (lie.reason, lie.step)
    assert isinstance(caught.value, Equivocation) == (lie.reason == "equivocation")
    assert state.encode() == before
    # And the truth, told afterwards, is believed as if nothing had been said.
    assert tell(state, ADVERSARY.genuine())[0].status_of(1) is Status.HALTED


def test_every_step_of_a_proof_has_refused_a_lie() -> None:
    refusing = {lie.step for lie in LIES}
    assert {2, 3, 5, 6, 7, 8, 9, 10, 11, 13} <= refusing
    assert {Step.READ, Step.LINKS, Step.HEIGHT, Step.ONE_BLOCK, Step.TIME, Step.FUTURE} <= refusing


def test_the_endless_nothing_for_you() -> None:
    """A registry that withholds a release either shows that there is one, or grows stale."""
    story = ADVERSARY.active
    newer = replace(story.product, head=Head(1, Version.parse("2.0.0"), 1))
    state = ADVERSARY.device
    # Every answer carries a proof of today: the newest version is in the product's record.
    answer = Bundle(replace(story, product=newer).fresh(22, NOW + 5)).encode()
    state, offer = tell(state, answer)
    assert offer is None and state.newest == Version.parse("2.0.0")
    # The same answer for ever: believed, and after max-age the device says that it is stale.
    for later, stale in ((60, False), (61, True)):
        read = Bundle.decode(answer)
        again, view = advance(state, read.fresh, ADVERSARY.anchor, clock=NOW + 5 + later)
        assert again == state
        if not stale:
            require_fresh(view, again, 60, clock=NOW + 5 + later, build_time=0)
            continue
        with pytest.raises(Refused) as caught:
            require_fresh(view, again, 60, clock=NOW + 5 + later, build_time=0)
        assert (caught.value.reason, caught.value.data["step"]) == ("stale", Step.YOUNG)


def test_a_stick_below_the_trusted_height() -> None:
    """It was genuine once; the error names the command that renews it."""
    stick = Bundle(ADVERSARY.active.fresh(19, NOW), ADVERSARY.active.static).encode()
    young = replace(ADVERSARY.device, height=5, header=b"", statuses=())
    assert tell(young, stick)[1] is not None
    with pytest.raises(Untrusted) as caught:
        tell(ADVERSARY.device, stick)
    assert caught.value.reason == "below-trusted-height"
    assert "firmledger bundle refresh" in caught.value.fix
    renewed = Bundle(ADVERSARY.halted.fresh(23, NOW + 6), ADVERSARY.halted.static).encode()
    assert tell(ADVERSARY.device, renewed)[0].status_of(1) is Status.HALTED


def test_what_was_seen_revoked_is_not_unrevoked() -> None:
    revoked = ADVERSARY.active.with_status(Status.REVOKED)
    state, _ = tell(ADVERSARY.device, Bundle(revoked.fresh(22, NOW + 5), revoked.static).encode())
    for number in (19, 20, 21):
        with pytest.raises(Untrusted):
            tell(state, Bundle(ADVERSARY.active.fresh(number, NOW + 5)).encode())
    assert state.status_of(1) is Status.REVOKED


def test_a_header_that_contradicts_freezes_whatever_stands_beside_it() -> None:
    state = ADVERSARY.device
    rival = ADVERSARY.active.fresh(20, NOW)
    broken = replace(rival, proof=replace(rival.proof, nodes=rival.proof.nodes[:-1]))
    for fresh in (rival, broken, replace(rival, release=ADVERSARY.halted.release)):
        with pytest.raises(Equivocation) as caught:
            advance(state, fresh, ADVERSARY.anchor, clock=CLOCK)
        assert caught.value.state.evidence == (state.header, rival.proof.header)
        assert caught.value.state.height == state.height
        assert replace(caught.value.state, evidence=()) == state


def test_a_header_is_evidence_once_its_seals_stand_in_order() -> None:
    """Refused at step 4 it is none, at step 5 it is."""
    state, group = ADVERSARY.device, list(ADVERSARY.active.group)
    rival = ADVERSARY.active.fresh(20, NOW)
    unordered = ADVERSARY.active.fresh(20, NOW, sealed_by=group[::-1])
    with pytest.raises(Untrusted) as caught:
        advance(state, unordered, ADVERSARY.anchor, clock=CLOCK)
    assert (caught.value.reason, caught.value.data["step"]) == ("seal-order", 4)
    assert not isinstance(caught.value, Equivocation)
    rootless = replace(rival, proof=replace(rival.proof, nodes=()))
    with pytest.raises(Equivocation) as contradiction:
        advance(state, rootless, ADVERSARY.anchor, clock=CLOCK)
    assert contradiction.value.data["beside"] == 5


def test_links_that_contradict_freeze() -> None:
    """The kept block against a link, a link against a link, and a link against the proof."""
    state, group = ADVERSARY.device, list(ADVERSARY.active.group)
    trusted = addresses(group)

    def link(number: int, text: bytes, listed: list = group) -> bytes:  # type: ignore[type-arg]
        made = make_header(listed, number=number, timestamp=NOW + 5, more=[text])
        return encode_header(trim_seals(seal(made, listed), trusted))

    told = ADVERSARY.halted.fresh(30, NOW + 9)
    one, two = link(25, b"one"), link(25, b"two")
    for links, evidence in (
        ((link(20, b"x"),), (state.header, link(20, b"x"))),
        ((one, two), (one, two)),
        ((link(30, b"x"),), (link(30, b"x"), told.proof.header)),
    ):
        with pytest.raises(Equivocation) as caught:
            advance(state, replace(told, links=links), ADVERSARY.anchor, clock=CLOCK)
        assert caught.value.state.evidence == evidence
    # Without two thirds of the trusted a link is no evidence, and leads nowhere.
    strangers = validators(4, start=90)
    told_past = replace(told, links=(link(20, b"x", strangers),))
    state, _ = advance(state, told_past, ADVERSARY.anchor, clock=CLOCK)
    assert state.height == 30 and state.validators == addresses(group)


def test_a_contradiction_names_the_step_that_found_it() -> None:
    state, group = ADVERSARY.device, list(ADVERSARY.active.group)
    rival = ADVERSARY.active.fresh(20, NOW)
    broken = replace(rival, proof=replace(rival.proof, nodes=rival.proof.nodes[:-1]))
    link = encode_header(seal(make_header(group, number=20), group))
    for fresh, where, beside in (
        (rival, Step.ONE_BLOCK, None),
        (broken, Step.ONE_BLOCK, 7),
        (replace(rival, release=ADVERSARY.halted.release), Step.ONE_BLOCK, 10),
        (replace(ADVERSARY.halted.fresh(30, NOW + 9), links=(link,)), Step.LINKS, None),
    ):
        with pytest.raises(Equivocation) as caught:
            advance(state, fresh, ADVERSARY.anchor, clock=CLOCK)
        assert caught.value.data["step"] == where
        assert caught.value.data.get("beside") == beside


def test_every_bit_of_a_seal_counts() -> None:
    """No other signature by the same validator passes: neither its mirror nor another key id."""
    fresh = ADVERSARY.halted.fresh(21, NOW + 5)
    header = fresh.proof.header
    for bit in range(8 * (len(header) - 65), 8 * len(header)):
        bent = replace(fresh, proof=replace(fresh.proof, header=flipped(header, bit)))
        with pytest.raises(FirmledgerError):
            advance(ADVERSARY.device, bent, ADVERSARY.anchor, clock=CLOCK)


def test_the_status_shown_is_the_ledgers() -> None:
    for status in Status:
        if status is Status.NONE:
            continue
        story = ADVERSARY.active.with_status(status)
        state, _ = tell(ADVERSARY.device, Bundle(story.fresh(22, NOW + 5)).encode())
        assert state.status_of(1) is status
