"""What the device believes moves forwards by proof, or not at all."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_client.core.trust import (
    FUTURE_TOLERANCE,
    KEPT_STATUSES,
    Equivocation,
    TrustState,
    advance,
    require_fresh,
)
from protocol.bundle import Fresh
from protocol.errors import FirmledgerError, Malformed, Refused, Untrusted
from protocol.header import encode_header
from protocol.ledger import Status, eligible
from protocol.records import Device, Head
from tests.protocol.published import NOW, Published, publish
from tests.protocol.sealed import Validator, make_header, seal, validators

GOOD = publish()
HALTED = GOOD.with_status(Status.HALTED)
START = TrustState(height=0, time=0, header=b"", validators=GOOD.anchor.validators)


def accept(state: TrustState, fresh: Fresh, clock: int | None = None) -> TrustState:
    return advance(state, fresh, GOOD.anchor, clock=clock)[0]


def test_a_proof_that_holds_moves_height_time_and_status() -> None:
    state = accept(START, GOOD.fresh(9, NOW))
    assert (state.height, state.time) == (9, NOW)
    assert state.status_of(1) is Status.ACTIVE and state.status_of(2) is Status.NONE
    assert TrustState.decode(state.encode()) == state
    assert accept(state, GOOD.fresh(9, NOW)) == state


@pytest.mark.parametrize("status", [0, *range(4, 16)])
def test_a_status_that_the_contract_never_writes_is_refused_and_not_kept(status: int) -> None:
    """Sealed by all validators, and still no state of a release."""
    odd = replace(GOOD, state=replace(GOOD.state, word=GOOD.state.word & ~15 | status))
    state = accept(START, GOOD.fresh(8, NOW))
    with pytest.raises(Untrusted) as caught:
        accept(state, odd.fresh(9, NOW))
    assert (caught.value.reason, caught.value.data["step"]) == ("unknown-status", 10)
    with pytest.raises(Untrusted) as caught:
        eligible(odd.product, odd.terms, 1, odd.state, Device(bytes(32), 0, 0, 2), NOW)
    assert caught.value.reason == "unknown-status"
    with pytest.raises(FirmledgerError):
        TrustState.decode(replace(state, statuses=((1, status),)).encode())
    assert accept(state, GOOD.fresh(9, NOW)).status_of(1) is Status.ACTIVE


def test_the_statuses_of_the_newest_releases_are_kept() -> None:
    state = replace(START, statuses=tuple((n, Status.HALTED) for n in range(2, 2 + KEPT_STATUSES)))
    assert accept(state, GOOD.fresh(9, NOW)).statuses == state.statuses  # release 1 is the oldest
    state = replace(START, statuses=tuple((n, Status.HALTED) for n in range(1, KEPT_STATUSES)))
    last = replace(GOOD, release_id=99, product=replace(GOOD.product, head=Head(99)))
    kept = accept(accept(state, GOOD.fresh(9, NOW)), last.fresh(10, NOW)).statuses
    assert kept == ((1, Status.ACTIVE), *state.statuses[1:], (99, Status.ACTIVE))
    one_more = replace(last, release_id=100, product=replace(GOOD.product, head=Head(100)))
    assert accept(replace(START, statuses=kept), one_more.fresh(11, NOW)).statuses == (
        *kept[1:],
        (100, Status.ACTIVE),
    )


def test_shown_halted_then_replayed_active_is_refused() -> None:
    earlier, later = GOOD.fresh(8, NOW), HALTED.fresh(9, NOW + 5)
    seen = accept(START, later)
    assert seen.status_of(1) is Status.HALTED
    with pytest.raises(Untrusted) as caught:
        accept(seen, earlier)
    assert caught.value.reason == "below-trusted-height"
    assert "refresh" in caught.value.fix


def test_a_failed_proof_changes_nothing() -> None:
    strangers = validators(4, start=90)
    forged = replace(GOOD, group=tuple(strangers)).fresh(99, NOW + 99)
    with pytest.raises(Untrusted):
        accept(START, forged)
    assert accept(START, GOOD.fresh(1, NOW)).height == 1


def test_time_never_falls_with_height() -> None:
    state = accept(START, GOOD.fresh(9, NOW))
    with pytest.raises(Untrusted) as caught:
        accept(state, GOOD.fresh(10, NOW - 1))
    assert caught.value.reason == "time-falls"


def test_a_header_from_the_future_is_refused_without_effect() -> None:
    limit = NOW - FUTURE_TOLERANCE
    assert accept(START, GOOD.fresh(9, NOW), clock=limit).height == 9
    with pytest.raises(Untrusted) as caught:
        accept(START, GOOD.fresh(9, NOW), clock=limit - 1)
    assert caught.value.reason == "from-the-future"


def test_an_old_proof_is_believed_but_not_acted_on() -> None:
    state, view = advance(START, GOOD.fresh(9, NOW), GOOD.anchor, clock=None)
    for clock, build in ((NOW + 60, 0), (None, NOW + 60), (None, 0)):
        require_fresh(view, state, 60, clock=clock, build_time=build)
    for clock, build in ((NOW + 61, 0), (None, NOW + 61)):
        with pytest.raises(Refused) as caught:
            require_fresh(view, state, 60, clock=clock, build_time=build)
        assert caught.value.reason == "stale"


def test_a_spoofed_clock_cannot_make_an_old_proof_young() -> None:
    old = GOOD.fresh(8, NOW)
    later = accept(START, GOOD.fresh(8, NOW))
    later = replace(later, time=NOW + 500)
    _, view = advance(START, old, GOOD.anchor, clock=NOW)
    with pytest.raises(Refused):
        require_fresh(view, later, 60, clock=NOW - 10_000, build_time=0)


def test_two_blocks_at_one_height_freeze_the_device() -> None:
    first, second = GOOD.fresh(9, NOW), HALTED.fresh(9, NOW)
    state = accept(START, first)
    with pytest.raises(Equivocation) as caught:
        accept(state, second)
    frozen = caught.value.state
    assert frozen.frozen and frozen.evidence == (first.proof.header, second.proof.header)
    assert TrustState.decode(frozen.encode()) == frozen
    with pytest.raises(Refused) as refused:
        accept(frozen, GOOD.fresh(10, NOW + 1))
    assert refused.value.reason == "frozen"


def test_the_same_block_agreed_in_another_round_is_no_contradiction() -> None:
    state = accept(START, GOOD.fresh(9, NOW))
    assert not accept(state, GOOD.fresh(9, NOW, round_number=3)).frozen


def test_evidence_without_a_quorum_never_freezes() -> None:
    state = accept(START, GOOD.fresh(9, NOW))
    two_of_four = GOOD.group[:2]
    with pytest.raises(Untrusted) as caught:
        accept(state, HALTED.fresh(9, NOW, sealed_by=two_of_four))
    assert not isinstance(caught.value, Equivocation)


def link(
    old: list[Validator], new: list[Validator], sealed_by: list[Validator], number: int
) -> bytes:
    """A header that lists ``new``, sealed by some of both."""
    del old
    return encode_header(seal(make_header(new, number=number, timestamp=NOW), sealed_by))


def changed(count: int) -> tuple[list[Validator], list[Validator], Published]:
    """Old and new validators, ``count`` of four replaced, and a world sealed by the new ones."""
    old = list(GOOD.group)
    new = sorted([*old[count:], *validators(count, start=70)], key=lambda v: v.address)
    return old, new, replace(GOOD, group=tuple(new))


def test_validators_are_followed_over_links_of_two_thirds() -> None:
    old, new, world = changed(1)
    step = link(old, new, new, 8)
    fresh = replace(world.fresh(9, NOW), links=(step,))
    state = accept(START, fresh)
    assert set(state.validators) == {v.address for v in new}
    # Without the link, or with one of too little overlap, the same block is refused.
    with pytest.raises(Untrusted):
        accept(START, replace(fresh, links=()))
    _, too_new, far_world = changed(2)
    with pytest.raises(Untrusted) as caught:
        accept(START, replace(far_world.fresh(9, NOW), links=(link(old, too_new, too_new, 8),)))
    assert caught.value.reason == "no-overlap"


def test_links_climb_and_the_proof_is_not_below_them() -> None:
    old, new, world = changed(1)
    step = link(old, new, new, 8)
    with pytest.raises(Untrusted) as caught:
        accept(START, replace(world.fresh(9, NOW), links=(step, step)))
    assert caught.value.reason == "link-order"
    with pytest.raises(Untrusted) as caught:
        accept(START, replace(world.fresh(7, NOW), links=(step,)))
    assert caught.value.reason == "below-trusted-height"
    assert caught.value.why == "it shows block 7, its own links lead to block 8"
    with pytest.raises(Untrusted) as caught:  # below both: what this device has seen says more
        accept(replace(START, height=8), replace(GOOD.fresh(7, NOW), links=()))
    assert caught.value.why == "it shows block 7, this device has seen block 8"


@pytest.mark.parametrize("bad", [b"", b"\x80", b"\x88" + b"\x01" * 8, b"\xff" * 40])
def test_a_damaged_state_is_malformed(bad: bytes) -> None:
    with pytest.raises(Malformed):
        TrustState.decode(bad)
    whole = accept(START, GOOD.fresh(9, NOW)).encode()
    with pytest.raises(FirmledgerError):
        TrustState.decode(whole[:-1])


def test_a_state_that_no_device_wrote_is_malformed() -> None:
    state = accept(START, GOOD.fresh(9, NOW))
    assert TrustState.decode(replace(state, evidence=(b"a", b"b")).encode()).frozen
    for odd in (
        {"validators": (*state.validators, state.validators[0])},
        {"validators": ()},
        {"evidence": (state.header,)},
        {"evidence": (state.header,) * 3},
    ):
        with pytest.raises(Malformed) as caught:
            TrustState.decode(replace(state, **odd).encode())
        assert caught.value.reason == "unknown-format"
