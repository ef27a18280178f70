"""Bundles: what a device is sent so that it can prove, offline, what the ledger says of a release.

A bundle has a *static* part (manifest, signer, terms: the same for all, addressed by content) and a
*fresh* part (sealed header, state proof, records) that anyone may replace by a newer one.

Guarantees: `prove` returns a `View` only of what the trusted validators sealed for the pinned
product; `offer` returns an `Offer` only if that view's release, the signed manifest and the terms
are one and the same. Both are pure and bounded before they start; an error carries the number of
the step that refused as ``data["step"]`` (docs/spec/bundle.md, section 3; steps 1 to 8 are those of
the state proof).

Not here: whether the view is the newest and young enough (`device_client.core.trust`), and whether
this device may install now (`protocol.ledger.eligible` and the device's policy).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any, Self

from protocol import _abi, cbor, cose, manifest
from protocol.digests import MAX_PROOF_NODES, sha256, verify_inclusion
from protocol.errors import Malformed, Untrusted, step
from protocol.header import MAX_HEADER_BYTES
from protocol.ids import Address, Digest, Hash, KeyId, ProductId
from protocol.ledger import StateWord, known_status
from protocol.manifest import Manifest
from protocol.proof import Proof, ProvenState, mapping_slot, nested_slot, verify_state
from protocol.proof import assemble as assemble_proof
from protocol.records import Ledger, Product, Release, Terms, word
from protocol.trie import MAX_NODE_BYTES, MAX_NODES

MEDIA_TYPE = "application/vnd.firmledger.bundle+cbor"
FORMAT = 1
MAX_LINKS = 16
MAX_STATIC_BYTES = 16 * 1024
MAX_FRESH_BYTES = (MAX_LINKS + 1) * MAX_HEADER_BYTES + MAX_NODES * MAX_NODE_BYTES + 8 * 1024
MAX_BUNDLE_BYTES = MAX_STATIC_BYTES + MAX_FRESH_BYTES
MAX_ACK_BYTES = MAX_FRESH_BYTES + 4 * 1024
_MAX_ITEMS = 512
"""Of CBOR in any one part; the fullest fresh part has 312."""

STICK_MAGIC = b"FLBUNDL1"
STICK_PREFIX_BYTES = len(STICK_MAGIC) + 4


class Step(IntEnum):
    """The steps of docs/spec/bundle.md, section 3, after the eight of the state proof."""

    PRODUCT = 9
    RELEASE = 10
    TERMS = 11
    SIGNER = 12
    MANIFEST = 13
    SIGNATURE = 14
    AGREEMENT = 15


STEPS = {
    1: "sizes are within their limits",
    2: "the header is a block header sealed by QBFT",
    3: "a quorum of the trusted validators sealed it",
    4: "the seals stand in their one order",
    5: "the contract's account is in the sealed state",
    6: "the contract runs the pinned code",
    7: "the storage words are proved",
    8: "the proof holds nothing else",
    9: "the product record is the one the ledger commits to",
    10: "the release record is the one the ledger commits to",
    11: "the terms are those of that release",
    12: "the signing key is one the ledger allows for it",
    13: "the manifest is the one agreed in the terms",
    14: "the manifest's signature is by that key",
    15: "manifest and terms say the same",
}


@dataclass(frozen=True)
class Anchor:
    """What is pinned: nothing of it ever comes from a bundle."""

    ledger: Ledger
    product_id: ProductId
    code_hash: Hash
    validators: tuple[Address, ...]

    def slots(self, release_id: int | None) -> list[Hash]:
        """The storage slots of the product and, unless None, of one of its releases."""
        product = mapping_slot(self.product_id, _abi.PRODUCTS_SLOT)
        if release_id is None:
            return [product]
        return [product, nested_slot(_abi.RELEASES_SLOT, self.product_id, word(release_id))]


@dataclass(frozen=True)
class Static:
    """The part of a bundle that never changes for a release."""

    envelope: bytes
    """The signed SUIT envelope."""
    signer: bytes
    """The signing key as deterministic COSE_Key; believed only if the ledger lists its id."""
    terms: Terms

    def encode(self) -> bytes:
        """Deterministic CBOR: [1, envelope, signer, terms]."""
        return cbor.dumps([FORMAT, self.envelope, self.signer, self.terms.to_list()])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_STATIC_BYTES`; `Malformed` otherwise."""
        row = _row(data, "bundle's static part", 4, MAX_STATIC_BYTES)
        return cls(
            envelope=cbor.as_bytes(row[1], "envelope", maximum=manifest.MAX_ENVELOPE_BYTES),
            signer=cbor.as_bytes(row[2], "signer", maximum=cose.MAX_KEY_BYTES),
            terms=Terms.from_list(row[3]),
        )

    @property
    def digest(self) -> Digest:
        """The address of this part: SHA-256 of its encoding."""
        return sha256(self.encode())


@dataclass(frozen=True)
class Fresh:
    """The part of a bundle that shows the ledger's state at one block."""

    proof: Proof
    product: Product
    """Its governance is the one in effect at the header's time."""
    release: Release | None
    """The release spoken of; None only while the product has none."""
    links: tuple[bytes, ...] = ()
    """Headers that lead from validators trusted before to those of the proof, oldest first."""

    def encode(self) -> bytes:
        """Deterministic CBOR: [1, links, header, nodes, product, release or null]."""
        release = self.release.to_list() if self.release else None
        head = [FORMAT, list(self.links), self.proof.header, list(self.proof.nodes)]
        return cbor.dumps([*head, self.product.to_list(), release])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_FRESH_BYTES`; `Malformed` otherwise."""
        row = _row(data, "bundle's fresh part", 6, MAX_FRESH_BYTES)
        return cls(
            links=_blobs(row[1], "link", MAX_LINKS, MAX_HEADER_BYTES),
            proof=Proof(
                header=cbor.as_bytes(row[2], "header", maximum=MAX_HEADER_BYTES),
                nodes=_blobs(row[3], "trie node", MAX_NODES, MAX_NODE_BYTES),
            ),
            product=Product.from_list(row[4]),
            release=None if row[5] is None else Release.from_list(row[5]),
        )


@dataclass(frozen=True)
class Bundle:
    """What a poll answers: a fresh part always, a static one if there is something to install."""

    fresh: Fresh
    static: Static | None = None

    def encode(self) -> bytes:
        """Deterministic CBOR: [1, static or null, fresh], each part as a byte string."""
        static = self.static.encode() if self.static else None
        return cbor.dumps([FORMAT, static, self.fresh.encode()])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_BUNDLE_BYTES`; `Malformed` otherwise."""
        row = _row(data, "bundle", 3, MAX_BUNDLE_BYTES)
        static = (
            None
            if row[1] is None
            else Static.decode(cbor.as_bytes(row[1], "static part", maximum=MAX_STATIC_BYTES))
        )
        fresh = Fresh.decode(cbor.as_bytes(row[2], "fresh part", maximum=MAX_FRESH_BYTES))
        return cls(fresh=fresh, static=static)


@dataclass(frozen=True)
class View:
    """What the ledger says at one block, proved."""

    number: int
    timestamp: int
    block_hash: Hash
    sealers: tuple[Address, ...]
    header: bytes
    product: Product
    release: Release | None


@dataclass(frozen=True)
class Offer:
    """A release whose terms, manifest and signature were proved to belong together."""

    release_id: int
    terms: Terms
    terms_hash: Hash
    manifest: Manifest
    key_id: KeyId
    envelope: bytes


def assemble(
    anchor: Anchor,
    header: bytes,
    answer: Mapping[str, Any],
    product: Product,
    release: Release | None,
) -> Fresh:
    """The fresh part from a header (RLP), ``eth_getProof``'s answer for it, and the records.

    ``answer`` is for `Anchor.slots` of the release. What would not verify is refused here already.
    """
    fresh = Fresh(assemble_proof(header, answer, anchor.validators), product, release)
    prove(fresh, anchor)
    return fresh


def prove(fresh: Fresh, anchor: Anchor) -> View:
    """Steps 1 to 10: the view that ``fresh`` proves; `Malformed` or `Untrusted` otherwise."""
    release = fresh.release
    slots = anchor.slots(release.release_id if release else None)
    proven = verify_state(
        fresh.proof,
        validators=anchor.validators,
        contract=anchor.ledger.contract,
        code_hash=anchor.code_hash,
        slots=slots,
    )
    with step(Step.PRODUCT):
        expected = anchor.ledger.product_slot(anchor.product_id, fresh.product, proven.timestamp)
        if proven.values[slots[0]] != expected:
            raise _untrusted("wrong-product-record", "the ledger commits to another product record")
    with step(Step.RELEASE):
        if release is not None:
            _check_release(release, anchor, proven, slots[1])
        elif fresh.product.head.latest_release != 0:
            raise _untrusted("release-missing", "the product has releases and none is shown")
    return View(
        number=proven.number,
        timestamp=proven.timestamp,
        block_hash=proven.block_hash,
        sealers=proven.sealers,
        header=fresh.proof.header,
        product=fresh.product,
        release=release,
    )


def _check_release(release: Release, anchor: Anchor, proven: ProvenState, slot: Hash) -> None:
    if proven.values[slot] == bytes(32):
        raise _untrusted(
            "not-on-ledger",
            f"the ledger has no release {release.release_id} of this product",
            "install only what the product's approvers published",
        )
    expected = anchor.ledger.release_slot(
        anchor.product_id, release.release_id, Hash(release.terms_hash), release.state
    )
    if proven.values[slot] != expected:
        raise _untrusted("wrong-release-record", "the ledger commits to another release record")
    known_status(release.state.word)


def offer(static: Static, view: View) -> Offer:
    """Steps 11 to 15: the release that ``static`` describes, if it is the one in ``view``."""
    release, terms = view.release, static.terms
    with step(Step.TERMS):
        terms_hash = terms.hash_struct()
        if release is None or release.terms_hash != terms_hash:
            raise _untrusted("wrong-terms", "its terms are not those of the proven release")
    with step(Step.SIGNER):
        key_id = _allowed_signer(static.signer, view.product, release.release_id)
    with step(Step.MANIFEST):
        if manifest.manifest_digest(static.envelope) != terms.manifest_digest:
            raise _untrusted("wrong-manifest", "its manifest is not the one the terms name")
    with step(Step.SIGNATURE):
        public = cose.public_key_from_bytes(static.signer)
        verified = manifest.verify(static.envelope, {key_id: public})
    with step(Step.AGREEMENT):
        _check_agreement(verified.manifest, terms)
    return Offer(release.release_id, terms, terms_hash, verified.manifest, key_id, static.envelope)


def _allowed_signer(signer: bytes, product: Product, release_id: int) -> KeyId:
    key_id = cose.key_id(cose.public_key_from_bytes(signer))
    for key in product.governance.keys:
        if key.key_id == key_id:
            if release_id <= key.valid_through:
                return key_id
            what = "revoked" if key.valid_through == 0 else "retired"
            raise _untrusted(f"key-{what}", f"its signing key {key_id} was {what}")
    raise _untrusted("unknown-key", f"its signing key {key_id} is not the product's")


def _check_agreement(signed: Manifest, terms: Terms) -> None:
    pairs = {
        "product": (signed.product, terms.product_id),
        "version": (signed.version, terms.version),
        "security counter": (signed.security_counter, terms.security_counter),
        "image digest": (signed.image_digest, terms.image_digest),
        "image size": (signed.image_size, terms.image_size),
        "key epoch": (signed.key_epoch, terms.key_epoch),
    }
    for name, (in_manifest, in_terms) in pairs.items():
        if in_manifest != in_terms:
            raise _untrusted("manifest-disagrees", f"manifest and ledger differ in the {name}")


def require_product(bundle: Bundle, product_id: ProductId) -> None:
    """`Untrusted` as wrong-product if what is offered says that it is another product's.

    No step of the proof, which rests on nothing that a bundle says of itself: for a bundle that
    proves nothing, this is the likeliest reason, and the one that helps.
    """
    if bundle.static is None or bundle.static.terms.product_id == product_id:
        return
    found = ProductId(bundle.static.terms.product_id)
    raise Untrusted(
        "wrong-product",
        "bundle refused",
        f"it is for product {found}, this is product {product_id}",
        "get the file or the registry of the right product",
        found=str(found),
        expected=str(product_id),
    )


@dataclass(frozen=True)
class Acknowledgement:
    """Shows that a receipt stands in its release's log, under a root the ledger committed to."""

    index: int
    size: int
    path: tuple[bytes, ...]
    fresh: Fresh

    def encode(self) -> bytes:
        """Deterministic CBOR: [1, index, size, path, fresh]."""
        return cbor.dumps([FORMAT, self.index, self.size, list(self.path), self.fresh.encode()])

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """From `encode`'s bytes, at most `MAX_ACK_BYTES`; `Malformed` otherwise."""
        row = _row(data, "acknowledgement", 5, MAX_ACK_BYTES)
        return cls(
            index=cbor.as_uint(row[1], "index"),
            size=cbor.as_uint(row[2], "size"),
            path=_blobs(row[3], "path node", MAX_PROOF_NODES, 32),
            fresh=Fresh.decode(cbor.as_bytes(row[4], "fresh part", maximum=MAX_FRESH_BYTES)),
        )

    def check(self, leaf: bytes, release_id: int, view: View) -> None:
        """`Untrusted` unless ``leaf`` is in the release's log as ``view`` (of `fresh`) has it."""
        release = view.release
        if release is None or release.release_id != release_id:
            raise _untrusted("wrong-release", "it speaks of another release")
        if self.size != StateWord.unpack(release.state.word).log_size:
            raise _untrusted("wrong-log-size", "the ledger's log has another size")
        root = release.state.log_root
        if not verify_inclusion(leaf, self.index, self.size, self.path, root):
            raise _untrusted("receipt-not-included", "the receipt is not in the anchored log")


# -- a file for a stick --------------------------------------------------------------------------


def stick_prefix(bundle: bytes) -> bytes:
    """What a stick file starts with: magic and the bundle's length; bundle and payload follow."""
    return STICK_MAGIC + len(bundle).to_bytes(4, "big")


def read_stick_prefix(prefix: bytes) -> int:
    """The length of the bundle that follows the first `STICK_PREFIX_BYTES` of a stick file."""
    if len(prefix) != STICK_PREFIX_BYTES or not prefix.startswith(STICK_MAGIC):
        raise Malformed(
            "not-a-stick-file",
            "file refused",
            "it does not start as a Firmledger bundle file does",
            "make one with 'firmledger bundle export'",
        )
    length = int.from_bytes(prefix[len(STICK_MAGIC) :], "big")
    if not 0 < length <= MAX_BUNDLE_BYTES:
        raise Malformed(
            "oversized",
            "file refused",
            f"it announces a bundle of {length} bytes, the limit is {MAX_BUNDLE_BYTES}",
            "make it again with 'firmledger bundle export'",
        )
    return length


# -- reading --------------------------------------------------------------------------------------


def _row(data: bytes, what: str, size: int, max_bytes: int) -> list[Any]:
    row = cbor.as_list(cbor.loads(data, max_bytes=max_bytes, max_items=_MAX_ITEMS), what, size=size)
    if row[0] != FORMAT or isinstance(row[0], bool):
        raise Malformed(
            "unknown-format",
            f"{what} refused",
            f"its format is {str(row[0])[:20]}, this version reads {FORMAT}",
            "update this software",
        )
    return row


def _blobs(value: Any, what: str, most: int, maximum: int) -> tuple[bytes, ...]:
    items = cbor.as_list(value, f"list of {what}s")
    if len(items) > most:
        raise Malformed(
            "oversized", f"{what}s refused", f"{len(items)} given, at most {most}", "get them again"
        )
    return tuple(cbor.as_bytes(item, what, maximum=maximum) for item in items)


def _untrusted(
    reason: str, why: str, fix: str = "get the bundle again, from another source"
) -> Untrusted:
    return Untrusted(reason, "bundle refused", why, fix)
