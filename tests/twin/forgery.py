"""Bundles spoiled by someone who holds every key: what a flipped bit alone never reaches.

A change deep in a proof is refused early, by the next hash or seal. Here the hashes above it are made
right again and the header is sealed anew, so that the change itself is what a verifier meets. All keys
are test vectors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import rlp

from protocol import cbor, cose, manifest, suit
from protocol.bundle import Bundle, Fresh
from protocol.digests import keccak256
from protocol.proof import Proof
from tests.protocol.published import MANIFEST_KEY, Published
from tests.protocol.sealed import Validator

LIMIT = 1 << 20


def sealed(fields: list[Any], group: Sequence[Validator]) -> bytes:
    """A header of any fields whatever, sealed by ``group`` if its extraData has room for seals."""
    from coincurve import PrivateKey

    try:
        extra = rlp.decode(fields[12])
        unsealed = rlp.encode([*extra[:4], []])
        digest = keccak256(rlp.encode([*fields[:12], unsealed, *fields[13:]]))
        seals = [PrivateKey(one.key).sign_recoverable(digest, hasher=None) for one in group]
        fields = [*fields[:12], rlp.encode([*extra[:4], seals, *extra[5:]]), *fields[13:]]
    except (IndexError, TypeError, rlp.exceptions.RLPException):
        pass  # nothing to put a seal into: it goes as it is
    return bytes(rlp.encode(fields))


def with_node(proof: Proof, index: int, node: bytes, group: Sequence[Validator]) -> Proof:
    """The proof with another node in one place, all hashes above it and the seals made right."""
    header, nodes = proof.header, list(proof.nodes)
    old, nodes[index] = nodes[index], node
    for at in range(index, -1, -1):
        before, after = bytes(keccak256(old)), bytes(keccak256(nodes[at]))
        header = header.replace(before, after)
        old = nodes[at - 1] if at else b""
        nodes[:at] = [above.replace(before, after) for above in nodes[:at]]
    return Proof(sealed(rlp.decode(header), group), tuple(nodes))


def with_proof(good: Bundle, proof: Proof) -> bytes:
    """The bundle with another proof."""
    return Bundle(replace(good.fresh, proof=proof), good.static).encode()


def republished(story: Published, elements: Any, **members: bytes) -> bytes:
    """A bundle of a release with any manifest, agreed, published and signed like a good one.

    ``members``: of the envelope, by ``m`` and their number.
    """
    encoded = cbor.dumps(elements)
    authenticated = cbor.dumps(suit.write_digest(suit.digest_of(encoded)))
    signer = cose.signer(MANIFEST_KEY)
    block = cose.write_sign1(authenticated, signer, kid=signer.public.id, detached=True)
    envelope = {suit.AUTHENTICATION: cbor.dumps([authenticated, block]), suit.MANIFEST: encoded}
    envelope |= {int(name[1:]): member for name, member in members.items()}
    agreed = replace(story.terms, manifest_digest=suit.digest_of(encoded))
    data = cbor.dumps(cbor.Tag(suit.TAG_ENVELOPE, envelope))
    forged = replace(story, envelope=data, terms=agreed)
    return encoded_bundle(forged.fresh(), forged)


def encoded_bundle(fresh: Fresh, story: Published) -> bytes:
    """CBOR of the bundle, whatever the sizes of its parts."""
    static = [1, story.envelope, story.signer, story.terms.to_list()]
    return cbor.dumps([1, cbor.dumps(static), fresh.encode()])


def elements_of(story: Published) -> Any:
    """The decoded manifest of a story."""
    opened = suit.open_envelope(story.envelope, max_bytes=manifest.MAX_ENVELOPE_BYTES)
    return cbor.loads(opened.manifest, max_bytes=LIMIT)


def reencoded(value: Any, loose: int) -> bytes:
    """CBOR whose item number ``loose`` (depth first) has a head one size longer than needed."""
    out, count = bytearray(), 0

    def head(major: int, number: int) -> None:
        nonlocal count
        widths = [w for w, most in ((0, 24), (1, 1 << 8), (2, 1 << 16), (4, 1 << 32), (8, 1 << 64))
                  if number < most]  # fmt: skip
        width = widths[min(count == loose, len(widths) - 1)]
        count += 1
        code = {0: number, 1: 24, 2: 25, 4: 26, 8: 27}[width]
        out.append(major << 5 | code)
        out.extend(number.to_bytes(width, "big") if width else b"")

    def write(item: Any) -> None:
        if isinstance(item, bool) or item is None:
            out.extend(cbor.dumps(item))
        elif isinstance(item, int):
            head(int(item < 0), item if item >= 0 else -1 - item)
        elif isinstance(item, bytes | str):
            raw = item if isinstance(item, bytes) else item.encode()
            head(2 if isinstance(item, bytes) else 3, len(raw))
            out.extend(raw)
        else:
            head(4, len(item))
            for part in item:
                write(part)

    write(value)
    return bytes(out)
