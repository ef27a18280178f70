"""No bit of a bundle is free: each is refused by the step that it belongs to, without effect."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.device_client.core import flips

SMALL, LARGE = flips.small(), flips.large(1000)


def test_the_bundles_hold_as_they_are() -> None:
    for target in (SMALL, LARGE):
        assert target.accept(target.data).height == 9
        assert set(target.parts) == set(flips.ALLOWED)


def test_bits_of_a_small_bundle_are_refused_by_their_steps_and_move_nothing() -> None:
    before = SMALL.state.encode()
    # Every fifth bit: every byte, and every position in a byte; `flips` by itself does them all.
    refused = {SMALL.refusal(bit)[0] for bit in range(0, 8 * len(SMALL.data), 5)}
    assert SMALL.state.encode() == before
    assert refused == set(flips.ALLOWED)


@settings(max_examples=500, deadline=None)
@given(st.integers(0, 8 * len(LARGE.data) - 1))
def test_bits_of_a_large_bundle_are_refused_by_their_steps(bit: int) -> None:
    LARGE.refusal(bit)
