"""Fuzz cases judged by the product and by its twin: bent bundles, statements, receipts and headers.

``python -m tests.twin.fuzzing SECONDS [SEED]`` bends good data as `tests.world.mutation` does, has
both judge it, and says what came of it; the first case on which they differ ends the run. The tests
try a few of each. What is bent below a signature or a seal is made to hold again, so that both see
the bent structure and not only the broken signature.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

from device_client.core.belief import TrustState
from protocol import cbor, cose, receipt
from protocol.bundle import Bundle
from protocol.errors import Malformed, Untrusted
from protocol.header import encode_header, parse_header
from tests.protocol import recovering, samples
from tests.protocol.recovering import KEYS, STATEMENT, signed
from tests.protocol.sealed import seal, validators
from tests.twin import flips, verifier
from tests.twin.verdicts import agreed, reanchored
from tests.world.mutation import mutant

TRUST = recovering.trust_file()
FIRST = TrustState.first(TRUST)


def bundles(rng: random.Random) -> str:
    """Of the three in `flips`, bent."""
    data, pinned = rng.choice([made() for made in flips.BUNDLES.values()])
    return str(agreed(mutant(rng, (data,)), pinned).step)


def headers(rng: random.Random) -> str:
    """Bent, and sealed anew by those who are trusted: in its place in the bundle, or as a link."""
    data, pinned = flips.BUNDLES["linked"]()
    whole = Bundle.decode(data)
    fresh, old, grown = whole.fresh, validators(4), validators(5)
    place = rng.randrange(3)
    raw, group = ((fresh.proof.header, grown), (fresh.links[1], grown), (fresh.links[0], old))[
        place
    ]
    try:
        bent = encode_header(seal(parse_header(mutant(rng, (raw,))), group))
    except Malformed:
        return "unread"
    if place == 0:
        fresh = replace(fresh, proof=replace(fresh.proof, header=bent))
    else:
        fresh = replace(fresh, links=(fresh.links[0], bent) if place == 1 else (bent, *fresh.links))
    return str(agreed(Bundle(fresh, whole.static).encode(), pinned).step)


def statements(rng: random.Random) -> str:
    """Re-anchor files, bent; half of them signed again."""
    if rng.random() < 0.5:
        data = mutant(rng, (signed(),))
    else:
        content = mutant(rng, (STATEMENT.encode(),))
        holders = sorted(KEYS[:2], key=lambda key: key.public.id)
        blocks = [cose.write_sign1(content, k, kid=k.public.id, detached=True) for k in holders]
        data = cbor.dumps([1, content, blocks])
    ours, theirs = reanchored(data, FIRST, TRUST)
    assert ours == theirs, f"product {ours}, twin {theirs}, statement {data.hex()}"
    return str(ours.step)


def receipts(rng: random.Random) -> str:
    """Bent; half of them signed again."""
    good = rng.choice((samples.CONFIRMED_BYTES, samples.ROLLED_BACK_BYTES, samples.REFUSED_BYTES))
    if rng.random() < 0.5:
        data = mutant(rng, (good,))
    else:
        body = cbor.loads(good, max_bytes=1024, tags=(18,)).value[2]
        device = receipt.device_id(samples.DEVICE_PUBLIC)
        signer = cose.signer(samples.DEVICE)
        data = cose.write_sign1(mutant(rng, (body,)), signer, kid=device, detached=False)
    ours, theirs = _judged(data)
    assert ours == theirs, f"product {ours}, twin {theirs}, receipt {data.hex()}"
    return "None" if ours else "refused"


@cache
def _key() -> bytes:
    return bytes(samples.DEVICE_PUBLIC.raw)


def _judged(data: bytes) -> tuple[Any, Any]:
    try:
        said = receipt.verify(data, _key())
    except (Malformed, Untrusted):
        ours = None
    else:
        ours = (said.release, said.reason, said.height, said.sequence, bytes(said.previous))
    try:
        told = verifier.verify_receipt(data, _key())
    except verifier.Refusal:
        return ours, None
    names = ("release", "reason", "height", "sequence", "previous")
    return ours, tuple(told[name] for name in names)


KINDS: dict[str, Callable[[random.Random], str]] = {
    "bundles": bundles,
    "headers": headers,
    "statements": statements,
    "receipts": receipts,
}


def main() -> None:
    """The one-off."""
    seconds, rng = float(sys.argv[1]), random.Random(int(sys.argv[2]) if sys.argv[2:] else 4)
    end, found = time.monotonic() + seconds, {name: Counter[str]() for name in KINDS}
    while time.monotonic() < end:
        for name, judge in KINDS.items():
            found[name][judge(rng)] += 1
    for name, steps in found.items():
        sys.stdout.write(f"{name}: {steps.total()} cases, both say the same: {dict(steps)}\n")


if __name__ == "__main__":
    main()
