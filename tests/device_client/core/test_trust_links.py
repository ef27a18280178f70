"""Links that lead on are believed or refused; those from before the device's time are passed over.

Passed over is not unread: they are well formed, in order, and sealed by a quorum of the validators
they list. At the device's own height they are compared with the block it knows.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import pytest

from device_client.core.trust import Equivocation, Step, TrustState, advance
from protocol.bundle import MAX_LINKS, Fresh
from protocol.errors import FirmledgerError, Malformed, Untrusted
from protocol.header import encode_header, with_seals
from protocol.links import MAX_LINK_SEALS
from tests.protocol.published import NOW, flipped, publish
from tests.protocol.sealed import Validator, addresses, make_header, seal, validators

GOOD = publish()
EVERYBODY = validators(9)
GROUPS = [EVERYBODY[n : n + 5] for n in range(5)]
"""One joins and one leaves with each: 4 of 5 stay."""
LAST = replace(GOOD, group=tuple(GROUPS[4]))


def link(group: list[Validator], number: int, sealed_by: list[Validator] | None = None) -> bytes:
    return encode_header(seal(make_header(group, number=number, timestamp=NOW), sealed_by or group))


LINKS = tuple(link(group, 10 * n) for n, group in enumerate(GROUPS[1:], 1))
"""At heights 10, 20, 30 and 40, to the groups 1, 2, 3 and 4."""


def at(height: int) -> TrustState:
    """A device of the chain whose validators are those of its height."""
    return TrustState(height, NOW, b"", addresses(GROUPS[min(height // 10, 4)]))


@cache
def block(number: int) -> Fresh:
    return LAST.fresh(number, NOW + 5)


def show(state: TrustState, *links: bytes, number: int = 50) -> TrustState:
    return advance(state, replace(block(number), links=links), GOOD.anchor, clock=None)[0]


@pytest.mark.parametrize("height", [3, 9, 10, 11, 25, 30, 39, 40, 41, 50])
def test_all_links_serve_devices_of_every_height(height: int) -> None:
    """What was made for a device without a height holds for one that has seen some of it."""
    assert show(at(height), *LINKS).validators == addresses(GROUPS[4])


def test_those_needed_must_be_there_whoever_is_passed_over() -> None:
    with pytest.raises(Untrusted) as caught:
        show(at(25), *LINKS[:2])
    assert (caught.value.reason, caught.value.data["step"]) == ("validators-changed", 3)
    with pytest.raises(Untrusted) as caught:
        show(at(15), LINKS[0], LINKS[3])
    assert (caught.value.reason, caught.value.data["step"]) == ("no-overlap", Step.LINKS)


def test_what_is_passed_over_moves_nothing() -> None:
    strangers = validators(4, start=90)
    state = show(at(25), link(strangers, 5), link(strangers, 24), *LINKS[2:])
    assert state.validators == addresses(GROUPS[4]) and state.height == 50


def test_no_bit_of_a_link_passed_over_is_free() -> None:
    state, good = at(25), LINKS[0]
    before = state.encode()
    for bit in range(8 * len(good)):
        with pytest.raises((Malformed, Untrusted)) as caught:
            show(state, flipped(good, bit), *LINKS[1:])
        assert caught.value.data["step"] == Step.LINKS
    assert state.encode() == before


def test_a_link_passed_over_is_sealed_and_in_its_place() -> None:
    ours, strangers = GROUPS[1], validators(1, start=90)
    for first, reason in (
        (link(ours, 10, ours[:3]), "no-quorum"),
        (link(ours, 10, [*ours[:4], *strangers]), "foreign-seal"),
        (link(ours, 10, [*ours[:4], ours[0]]), "duplicate-seal"),
        (link(ours, 10, ours[::-1]), "seal-order"),
        (link(ours, 20), "link-order"),
        (link(ours, 21), "link-order"),
        (link(ours, 0), "genesis"),
        (LINKS[0][:-1], "rlp-truncated"),
        (b"", "rlp-truncated"),
    ):
        with pytest.raises(FirmledgerError) as caught:
            show(at(25), first, *LINKS[1:])
        assert (caught.value.reason, caught.value.data["step"]) == (reason, Step.LINKS)


def test_at_the_height_trusted_another_block_is_a_contradiction() -> None:
    kept = link(GROUPS[2], 25)
    state = replace(at(25), header=kept)
    assert show(state, LINKS[0], kept, *LINKS[2:]).height == 50  # the same block
    rival = encode_header(seal(make_header(GROUPS[2], number=25, more=[b"rival"]), GROUPS[2]))
    with pytest.raises(Equivocation) as caught:
        show(state, LINKS[0], rival, *LINKS[2:])
    assert caught.value.data["step"] == Step.LINKS
    assert caught.value.state == replace(state, evidence=(kept, rival))
    # Too few of the trusted: their word against itself it is not.
    own = [*GROUPS[2][:3], *validators(1, start=90)]
    assert show(state, link(sorted(own, key=lambda one: one.address), 25), *LINKS[2:]).height == 50
    # Without a block kept, the one shown beside the link is compared with it.
    with pytest.raises(Equivocation) as caught:
        show(replace(at(50), header=b""), link(GROUPS[4], 50), number=50)
    assert caught.value.data["step"] == Step.ONE_BLOCK
    # Below that height it is not for this device to judge.
    for number in (24, 9):
        assert show(state, link(GROUPS[2], number), *LINKS[2:]).height == 50


def test_strangers_cost_no_recovery_above_the_height() -> None:
    """Whom a link does not list cannot have sealed it: refused with seals that are none."""
    strangers = validators(4, start=90)
    made = make_header([*strangers], number=45)
    unsealed = encode_header(with_seals(made, [bytes(65)] * 4))
    with pytest.raises(Untrusted) as caught:
        show(at(40), unsealed)
    assert (caught.value.reason, caught.value.data["step"]) == ("no-overlap", Step.LINKS)
    with pytest.raises(Untrusted) as caught:  # below, there is nobody to compare them with
        show(at(46), unsealed)
    assert caught.value.reason == "bad-seal"


def test_a_link_past_a_set_that_nothing_leads_to_changes_nothing() -> None:
    """The set came, went, and left no link: the way leads from those before to the same."""
    for again in (link(GROUPS[3], 35), link(GROUPS[3], 38, GROUPS[3][:4])):
        assert show(at(30), again, LINKS[3]).validators == addresses(GROUPS[4])


def test_seals_of_all_links_together_are_bounded_before_they_are_looked_at() -> None:
    """Strangers can make links that hold; what a device does for them is bounded."""
    many = validators(64, start=200)
    whole = [link(many, number) for number in range(1, 1 + MAX_LINK_SEALS // 64)]
    assert show(at(40), *whole).height == 50
    spoiled = make_header(many[:1], number=30)
    one_more = encode_header(seal(spoiled, validators(1, start=90)))  # its seal is never looked at
    with pytest.raises(Untrusted) as caught:
        show(at(40), *whole, one_more)
    assert (caught.value.reason, caught.value.data["step"]) == ("too-many-seals", Step.LINKS)
    assert MAX_LINK_SEALS >= MAX_LINKS * 31, "sets of 31 have all their links"
