"""Re-anchoring: the one move of trust without a proof, and all that it does not touch."""

from __future__ import annotations

from dataclasses import replace

import pytest

from device_client.core.reanchor import reanchor
from device_client.core.trust import Equivocation, TrustState, advance
from protocol.errors import FirmledgerError, Misuse, Refused, Untrusted
from protocol.header import encode_header
from protocol.ids import Address, Hash
from protocol.ledger import Status
from protocol.records import Ledger
from tests.protocol.published import NOW, flipped, publish
from tests.protocol.recovering import NEW_GROUP, STATEMENT, signed, trust_file
from tests.protocol.sealed import addresses, make_header, seal, validators

TRUST = trust_file()
GOOD = publish()
HALTED = GOOD.with_status(Status.HALTED)
RENEWED = replace(GOOD, group=tuple(NEW_GROUP))
FIRST = TrustState.first(TRUST)


def accept(state: TrustState, fresh: object, **how: int) -> TrustState:
    return advance(state, fresh, TRUST.anchor, clock=None, **how)[0]  # type: ignore[arg-type]


def frozen() -> TrustState:
    state = accept(FIRST, HALTED.fresh(9, NOW))
    with pytest.raises(Equivocation) as caught:
        accept(state, GOOD.fresh(9, NOW))
    return caught.value.state


def test_a_frozen_device_believes_again_from_the_statement_on() -> None:
    state = frozen()
    moved = reanchor(state, signed(), TRUST)
    assert not moved.frozen and moved.sequence == 1
    assert moved.validators == STATEMENT.validators
    assert (moved.height, moved.time) == (50, NOW + 1000)
    assert moved.status_of(1) is Status.HALTED, "what was seen stays seen"
    assert TrustState.decode(moved.encode()) == moved
    assert accept(moved, RENEWED.fresh(50, NOW + 1000)).height == 50
    # The former validators are no more believed, and no check is skipped.
    with pytest.raises(Untrusted) as caught:
        accept(moved, GOOD.fresh(51, NOW + 1001))
    assert caught.value.reason == "validators-changed"
    with pytest.raises(Untrusted) as caught:
        accept(moved, replace(RENEWED.fresh(51, NOW + 1001), release=HALTED.release))
    assert caught.value.reason == "wrong-release-record"


def test_it_lowers_neither_height_nor_time() -> None:
    state = accept(FIRST, GOOD.fresh(60, NOW + 5000))
    moved = reanchor(state, signed(), TRUST)
    assert (moved.height, moved.time) == (60, NOW + 5000)
    with pytest.raises(Untrusted) as caught:
        accept(moved, RENEWED.fresh(59, NOW + 5000))
    assert caught.value.reason == "below-trusted-height"
    with pytest.raises(Untrusted) as caught:
        accept(moved, RENEWED.fresh(60, NOW + 4999))
    assert caught.value.reason == "time-falls"
    # At the trusted height itself the true block may stand in for the one that was a lie.
    assert accept(moved, RENEWED.fresh(60, NOW + 5000)).validators == STATEMENT.validators


def test_proofs_below_its_height_are_refused() -> None:
    moved = reanchor(FIRST, signed(), TRUST)
    for number, time, reason in (
        (49, NOW + 1000, "below-trusted-height"),
        (50, NOW + 999, "time-falls"),
    ):
        with pytest.raises(Untrusted) as caught:
            accept(moved, RENEWED.fresh(number, time))
        assert caught.value.reason == reason


def test_no_statement_is_accepted_twice_nor_after_a_later_one() -> None:
    later = replace(STATEMENT, sequence=7, height=70)
    state = reanchor(reanchor(FIRST, signed(), TRUST), signed(later), TRUST)
    for old in (STATEMENT, replace(later, height=90), replace(later, sequence=6)):
        with pytest.raises(Untrusted) as caught:
            reanchor(state, signed(old), TRUST)
        assert (caught.value.reason, caught.value.data["step"]) == ("old-statement", "R5")
    assert TrustState.decode(state.encode()).sequence == 7


def test_the_sequence_outlives_proofs() -> None:
    state = accept(reanchor(FIRST, signed(), TRUST), RENEWED.fresh(51, NOW + 2000))
    assert state.anchored == STATEMENT
    with pytest.raises(Untrusted):
        reanchor(TrustState.decode(state.encode()), signed(), TRUST)


def test_another_contract_may_be_named_and_is_checked_like_the_first() -> None:
    code = Hash(b"\x0c" * 32)
    ledger = Ledger(77, Address(b"\x77" * 20))
    state = accept(FIRST, HALTED.fresh(9, NOW))
    moved = reanchor(state, signed(replace(STATEMENT, ledger=ledger, code_hash=code)), TRUST)
    anchor = moved.anchor(TRUST.anchor)
    assert (anchor.ledger, anchor.code_hash) == (ledger, code)
    assert anchor.product_id == TRUST.product_id
    assert moved.height == 50 and moved.status_of(1) is Status.NONE and moved.newest == 0
    # What the first contract says has no say any more, whoever seals it.
    with pytest.raises(Untrusted) as caught:
        accept(moved, RENEWED.fresh(51, NOW + 2000))
    assert caught.value.data["step"] == 5
    named = replace(STATEMENT, ledger=replace(STATEMENT.ledger, chain_id=77))
    with pytest.raises(Untrusted) as caught:
        accept(reanchor(state, signed(named), TRUST), RENEWED.fresh(51, NOW + 2000))
    assert caught.value.reason == "wrong-product-record"
    # And a statement that names the first contract again leads back to it.
    back = reanchor(moved, signed(replace(STATEMENT, sequence=2)), TRUST)
    assert accept(back, RENEWED.fresh(51, NOW + 2000)).height == 51


def test_other_code_at_the_same_contract_is_refused_after_it_as_before() -> None:
    other = replace(STATEMENT, code_hash=Hash(b"\x0c" * 32))
    moved = reanchor(FIRST, signed(other), TRUST)
    with pytest.raises(Untrusted) as caught:
        accept(moved, RENEWED.fresh(51, NOW + 2000))
    assert caught.value.reason == "wrong-code"


def test_links_lead_on_from_the_validators_of_the_statement() -> None:
    moved = reanchor(FIRST, signed(), TRUST)
    group = sorted([*NEW_GROUP[1:], *validators(1, start=300)], key=lambda one: one.address)
    link = encode_header(seal(make_header(group, number=60, timestamp=NOW + 1500), group))
    later = replace(GOOD, group=tuple(group)).fresh(61, NOW + 2000)
    assert accept(moved, replace(later, links=(link,))).validators == addresses(group)
    with pytest.raises(Untrusted) as caught:
        accept(FIRST, replace(later, links=(link,)))
    assert (caught.value.reason, caught.value.data["step"]) == ("no-overlap", "T4")


def test_a_refused_statement_changes_nothing() -> None:
    state, data = frozen(), signed()
    before = state.encode()
    for bad in (data[:-1], flipped(data, 300), signed(keys=())):
        with pytest.raises(FirmledgerError):
            reanchor(state, bad, TRUST)
    assert state.encode() == before
    with pytest.raises(Refused):
        accept(state, RENEWED.fresh(50, NOW + 1000))


def test_without_recovery_keys_there_is_no_way_back() -> None:
    with pytest.raises(Misuse) as caught:
        reanchor(frozen(), signed(), trust_file(0, ()))
    assert caught.value.reason == "no-recovery-keys"
    assert "set the device up again" in caught.value.fix


def test_after_the_trusting_period_only_a_statement_leads_on() -> None:
    state = accept(FIRST, GOOD.fresh(9, NOW))
    period, late = 1000, NOW + 1001
    fresh = GOOD.fresh(10, late)
    in_time, at = GOOD.fresh(10, NOW), NOW + period
    assert advance(state, in_time, TRUST.anchor, clock=at, trusting_period=period)[0].height == 10
    for clock, build_time in ((late, 0), (None, late)):
        with pytest.raises(Refused) as caught:
            advance(
                *(state, fresh, TRUST.anchor),
                clock=clock,
                build_time=build_time,
                trusting_period=period,
            )
        assert (caught.value.reason, caught.value.data["step"]) == ("trusting-period", "T3")
    assert accept(state, fresh, trusting_period=0).height == 10, "0 sets no limit"
    moved = reanchor(state, signed(replace(STATEMENT, time=late)), TRUST)
    again = RENEWED.fresh(50, late)
    assert advance(moved, again, TRUST.anchor, clock=late, trusting_period=period)[0].height == 50


def test_a_clock_set_back_again_ends_the_lapse() -> None:
    """A spoofed clock may refuse, as long as it lasts; it leaves no mark."""
    state = accept(FIRST, GOOD.fresh(9, NOW))
    with pytest.raises(Refused):
        advance(state, GOOD.fresh(10, NOW + 5), TRUST.anchor, clock=NOW + 10**9)
    assert advance(state, GOOD.fresh(10, NOW + 5), TRUST.anchor, clock=NOW + 5)[0].height == 10


def test_before_the_first_block_there_is_no_period() -> None:
    assert advance(FIRST, GOOD.fresh(9, NOW), TRUST.anchor, clock=NOW, trusting_period=1)
