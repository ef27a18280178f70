"""No bit of a bundle is free: each is refused by the step that it belongs to, without effect."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import lru_cache

import pytest

from protocol import header
from tests.device_client.core import flips

IN_CI = bool(os.environ.get("FIRMLEDGER_NO_SKIP"))
RANDOM = 100_000 if IN_CI else 5_000
WHOLE = {"small": (flips.small, 1), "linked": (flips.linked, 1 if IN_CI else 11)}
"""With the stride: every bit of the small one anywhere, of the other in CI."""


@pytest.fixture(autouse=True, scope="module")
def remembered_seals() -> Iterator[None]:
    """Who made a seal over a digest is found once: most flips leave all seals as they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(header, "_recover", lru_cache(1000)(header._recover))
        yield


@pytest.mark.parametrize("name", WHOLE)
def test_bits_of_a_bundle_are_refused_by_their_steps_and_move_nothing(name: str) -> None:
    made, stride = WHOLE[name]
    target = made()
    parts = set(flips.ALLOWED) - (set() if target.links else {"links"})
    assert set(target.parts) == parts
    before = target.state.encode()
    refused = {target.refusal(bit)[0] for bit in range(0, 8 * len(target.data), stride)}
    assert refused == parts
    assert target.state.encode() == before
    assert target.accept(target.data).height == 9, "and the bundle itself still holds"


def test_random_bits_at_10_000_releases_are_refused_by_their_steps() -> None:
    target = flips.large()
    assert target.accept(target.data).height == 9
    assert flips.random_flips(target, RANDOM).total() == RANDOM
