"""Bundles spoiled by someone who holds every key: what a flipped bit alone never reaches.

A change deep in a proof is refused early, by the next hash or seal. Here the hashes above it are
made right again and the header is sealed anew, so that the change itself is what a verifier meets.
All keys are test vectors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import rlp
from coincurve import PrivateKey

from protocol import cbor, cose, manifest, suit
from protocol.bundle import Static
from protocol.digests import keccak256
from protocol.header import encode_header
from protocol.proof import Proof, assemble
from tests.protocol.published import LEDGER, MANIFEST_KEY, NOW, PRODUCT_ID, Published
from tests.protocol.sealed import Validator, World, make_header, seal

LIMIT = 1 << 20


def proof_of(story: Published, release_id: int | None = 1, accounts: int = 20) -> Proof:
    """What the story's ledger holds, on a chain of so many other accounts; one release or none."""
    product, release = story.anchor.slots(1)
    state = (story.terms.hash_struct(), story.state)
    world = World(
        {
            product: int.from_bytes(LEDGER.product_slot(PRODUCT_ID, story.product, NOW), "big"),
            release: int.from_bytes(LEDGER.release_slot(PRODUCT_ID, 1, *state), "big"),
        },
        accounts=accounts,
        group=story.group,
    )
    slots = story.anchor.slots(release_id)
    return assemble(world.raw_header(timestamp=NOW), world.get_proof(slots))


def sealed(fields: list[Any], group: Sequence[Validator]) -> bytes:
    """A header of any fields whatever, sealed by ``group`` if its extraData has room for seals."""
    try:
        extra = rlp.decode(fields[12])
        unsealed = rlp.encode([*extra[:4], []])
        digest = keccak256(rlp.encode([*fields[:12], unsealed, *fields[13:]]))
        seals = [PrivateKey(one.key).sign_recoverable(digest, hasher=None) for one in group]
        fields = [*fields[:12], rlp.encode([*extra[:4], seals, *extra[5:]]), *fields[13:]]
    except (IndexError, TypeError, rlp.exceptions.RLPException):
        pass  # nothing to put a seal into: it goes as it is
    return bytes(rlp.encode(fields))


def with_node(nodes: Sequence[bytes], index: int, node: bytes) -> tuple[list[bytes], bytes, bytes]:
    """Nodes with another one at ``index``, the hashes above it made right; old and new root.

    ``nodes``: those above stand before those below. A node that nothing above refers to is a root.
    """
    changed, roots = list(nodes), (b"", b"")
    pending = {index: node}
    for at in range(index, -1, -1):
        if at not in pending and changed[at] == nodes[at]:
            continue
        new = pending.get(at, changed[at])
        before, after = bytes(keccak256(nodes[at])), bytes(keccak256(new))
        changed[at] = new
        above = [part.replace(before, after) for part in changed[:at]]
        if above == changed[:at]:
            roots = (before, after)
        changed[:at] = above
    return changed, *roots


def with_spoiled(proof: Proof, index: int, node: bytes, group: Sequence[Validator]) -> Proof:
    """The proof with another node in one place, everything above it made right, sealed again."""
    nodes, before, after = with_node(proof.nodes, index, node)
    header = rlp.decode(proof.header.replace(before, after)) if before else rlp.decode(proof.header)
    return Proof(sealed(header, group), tuple(nodes))


def signed(story: Published, elements: Any, members: Mapping[int, bytes]) -> Static:
    """The static part of a release with any manifest, agreed and signed like a good one.

    ``members``: what else its envelope holds.
    """
    encoded = cbor.dumps(elements)
    digest = suit.digest_of(encoded)
    authenticated = cbor.dumps(suit.write_digest(digest))
    signer = cose.signer(MANIFEST_KEY)
    block = cose.write_sign1(authenticated, signer, kid=signer.public.id, detached=True)
    wrapper = cbor.dumps([authenticated, block])
    whole = {suit.AUTHENTICATION: wrapper, suit.MANIFEST: encoded, **members}
    envelope = cbor.dumps(cbor.Tag(suit.TAG_ENVELOPE, whole))
    return Static(envelope, story.signer, replace(story.terms, manifest_digest=digest))


def elements_of(story: Published) -> Any:
    """The decoded manifest of a story."""
    opened = suit.open_envelope(story.envelope, max_bytes=manifest.MAX_ENVELOPE_BYTES)
    return cbor.loads(opened.manifest, max_bytes=LIMIT)


class Loosely:
    """CBOR whose item number ``loose`` (depth first) has a head one size longer than needed."""

    def __init__(self, loose: int) -> None:
        self.left = loose
        self.out = bytearray()

    def head(self, major: int, number: int) -> None:
        widths = [0, 1, 2, 4, 8]
        least = next(w for w in widths if number < (1 << 8 * w if w else 24))
        width = least if self.left else widths[min(widths.index(least) + 1, 4)]
        self.left -= 1
        self.out.append(major << 5 | {0: number, 1: 24, 2: 25, 4: 26, 8: 27}[width])
        self.out.extend(number.to_bytes(width, "big") if width else b"")

    def write(self, item: Any) -> bytes:
        if isinstance(item, bool) or item is None:
            self.out.extend(cbor.dumps(item))
        elif isinstance(item, int):
            self.head(int(item < 0), item if item >= 0 else -1 - item)
        elif isinstance(item, bytes):
            self.head(2, len(item))
            self.out.extend(item)
        else:
            self.head(4, len(item))
            for part in item:
                self.write(part)
        return bytes(self.out)


def sealed_later(header: bytes, time: int, group: Sequence[Validator]) -> bytes:
    """The header with another timestamp."""
    fields = rlp.decode(header)
    fields[11] = time.to_bytes(5, "big").lstrip(b"\0")
    return sealed(fields, group)


def link(listed: Sequence[Validator], sealers: Sequence[Validator], number: int = 5) -> bytes:
    """A header that lists some and is sealed by some."""
    return encode_header(seal(make_header(listed, number=number), sealers))
