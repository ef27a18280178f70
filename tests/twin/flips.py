"""Every single-bit change of three bundles, judged by the product and by its twin.

``python -m tests.twin.flips [from] [to]`` tries all bits (of all bundles, or of a stretch of each),
and says at which steps both refused them. The tests try samples; all of them take a quarter of an
hour, as the twin's curve is its own.
"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from functools import cache

from protocol.bundle import Bundle
from tests.protocol.published import NOW, flipped, publish
from tests.protocol.sealed import addresses, validators
from tests.twin import forgery
from tests.twin.verdicts import Pinned, agreed

_STORY = publish()
_ONE = replace(_STORY, group=tuple(validators(1)))
_GROWN = replace(_STORY, group=tuple(validators(5)))


@cache
def small() -> tuple[bytes, Pinned]:
    """One validator, two other accounts."""
    fresh = replace(_ONE.fresh(), proof=forgery.proof_of(_ONE, accounts=2))
    return Bundle(fresh, _ONE.static).encode(), Pinned(_ONE.anchor)


@cache
def sealed_by_four() -> tuple[bytes, Pinned]:
    """Four validators, twenty other accounts."""
    return Bundle(_STORY.fresh(), _STORY.static).encode(), Pinned(_STORY.anchor)


@cache
def linked() -> tuple[bytes, Pinned]:
    """After a link that is passed over and one that a validator joined by."""
    old, grown = list(validators(4)), list(_GROWN.group)
    links = (forgery.link(old, old, 2), forgery.link(grown, grown, 5))
    fresh = replace(_GROWN.fresh(7, NOW), links=links)
    anchor = replace(_STORY.anchor, validators=addresses(old))
    return Bundle(fresh).encode(), Pinned(anchor, height=3, time=NOW)


BUNDLES = {"small": small, "sealed by four": sealed_by_four, "linked": linked}


def refused_alike(data: bytes, pinned: Pinned) -> int | str | None:
    """The step at which both refuse; AssertionError if one accepts or they differ."""
    verdict = agreed(data, pinned)
    assert not verdict.accepted, data.hex()
    return verdict.step


def main() -> None:
    """The one-off."""
    first, last = (int(text) for text in (sys.argv[1:] or ["0", str(10**9)]))
    for name, made in BUNDLES.items():
        data, pinned = made()
        assert agreed(data, pinned).accepted
        bits = range(first, min(last, 8 * len(data)))
        steps = Counter(str(refused_alike(flipped(data, bit), pinned)) for bit in bits)
        sys.stdout.write(f"{name}: {steps.total()} flips, both refuse all alike: {dict(steps)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
