"""Size and verification time of proofs, on tries as large as a busy ledger's, built directly.

A ledger of n releases stores a word per release and one per image digest besides the product's.
Filler words have random-looking places, as real ones do.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

from protocol import bundle
from protocol.bundle import Bundle
from protocol.digests import keccak256
from protocol.records import word
from tests.protocol.published import Published, publish

ROUNDS = 200


def _ledger_of(releases: int) -> Published:
    story = publish()
    filler = tuple((bytes(keccak256(word(n))), n + 1) for n in range(2 * (releases - 1)))
    return Published(**{**vars(story), "more_words": filler})


def _median_ms(action: Any) -> float:
    times = []
    for _ in range(ROUNDS):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return statistics.median(times) * 1000


def rows() -> Iterator[dict[str, Any]]:
    """Rows of ``bench/results.json``."""
    limits = {10: (2500, 4000), 10_000: (5000, 6500)}
    for releases, (proof_limit, bundle_limit) in limits.items():
        story = _ledger_of(releases)
        fresh = story.fresh()
        how = f"4 validators, 3 seals, 21 accounts, {2 * releases} storage words and the product's"
        yield {
            "name": f"proof.bytes_{releases}",
            "value": fresh.proof.size,
            "unit": "bytes",
            "against": proof_limit,
            "ratio": round(fresh.proof.size / proof_limit, 3),
            "how": f"header, seals, account and two storage proofs; {how}",
        }
        whole = len(Bundle(fresh, story.static).encode())
        yield {
            "name": f"bundle.bytes_{releases}",
            "value": whole,
            "unit": "bytes",
            "against": bundle_limit,
            "ratio": round(whole / bundle_limit, 3),
            "how": f"a whole bundle without its payload; {how}",
        }
    data = Bundle(fresh, story.static).encode()

    def verify() -> None:
        read = Bundle.decode(data)
        view = bundle.prove(read.fresh, story.anchor)
        assert read.static is not None
        bundle.offer(read.static, view)

    def signature_only() -> None:
        from protocol import cose, manifest

        key = cose.public_key_from_bytes(story.signer)
        manifest.verify(story.envelope, {key.id: key})

    verify_ms, bare_ms = _median_ms(verify), _median_ms(signature_only)
    yield {
        "name": "proof.verify_ms",
        "value": round(verify_ms, 3),
        "unit": "ms",
        "against": 5,
        "ratio": round(verify_ms / 5, 3),
        "how": f"all 15 steps of a bundle at 10,000 releases, median of {ROUNDS}",
    }
    yield {
        "name": "proof.verify_over_suit",
        "value": round(verify_ms, 3),
        "unit": "ms",
        "against": round(bare_ms, 3),
        "ratio": round(verify_ms / bare_ms, 2),
        "how": "the same beside a bare verification of the SUIT envelope, in the same run",
    }
