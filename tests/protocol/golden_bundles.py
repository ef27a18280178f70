"""The golden vectors of whole bundles, of files for sticks and of acknowledgements.

``python -m tests.protocol.golden_bundles --regen`` writes them; the tests compare. A change of a
vector is a change of a format: devices in the field hold to the old one.

Every bundle is made of the story in `tests.protocol.published`; a tampered one says what was done
to it, and at which step of docs/spec/bundle.md, section 3, or trust.md, section 2, it is refused.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from protocol import bundle, cbor, cose, manifest, receipt
from protocol.bundle import Acknowledgement, Anchor, Bundle
from protocol.digests import inclusion_proof, merkle_root, sha256
from protocol.header import encode_header
from protocol.ids import Address
from protocol.ledger import StateWord, Status
from protocol.links import MAX_LINK_SEALS
from protocol.proof import assemble
from protocol.records import Head, Product, SigningKey
from protocol.suit import digest_of
from tests.protocol import samples
from tests.protocol.published import (
    LEDGER,
    MANIFEST_KEY,
    NOW,
    OTHER_KEY,
    PRODUCT_ID,
    Published,
    flipped,
    governance,
    key_id,
    make_manifest,
    publish,
)
from tests.protocol.sealed import Validator, World, addresses, make_header, seal, validators

_NOTE = "Test vector of Firmledger. Every secret in it is public: never use one for anything else."
GOOD = publish()
LIMIT = 1 << 20
NOTES = manifest.write_text({"en": "Fixes the frost guard."})


@dataclass(frozen=True)
class Case:
    """A bundle, what is pinned when it is read, and what comes of it."""

    name: str
    data: bytes
    anchor: Anchor = GOOD.anchor
    height: int = 0
    time: int = 0
    header: bytes = b""
    """The block trusted, where one was accepted before."""
    step: int | str = "T1"
    """Where it is refused: unless told otherwise, while it is read."""
    reason: str | None = None
    """None if it is accepted."""


def _whole(story: Published, **fresh: Any) -> bytes:
    return Bundle(story.fresh(**fresh), story.static).encode()


# -- accepted -------------------------------------------------------------------------------------


def empty_fresh(story: Published) -> bundle.Fresh:
    """A product's state without any release shown."""
    (slot,) = story.anchor.slots(None)
    word = LEDGER.product_slot(PRODUCT_ID, story.product, NOW)
    world = World({slot: int.from_bytes(word, "big")}, group=story.group)
    proof = assemble(world.raw_header(timestamp=NOW), world.get_proof([slot]))
    return bundle.Fresh(proof, story.product, None)


def with_key(story: Published, valid_through: int) -> Published:
    keyed = governance(SigningKey(key_id(), valid_through))
    return replace(story, product=replace(story.product, governance=keyed))


def link(
    listed: Sequence[Validator], sealers: Sequence[Validator], number: int, **members: int
) -> bytes:
    return encode_header(seal(make_header(listed, number=number, **members), sealers))


def crowd() -> Iterator[bytes]:
    """Links that hold, and whose seals are as many as are looked at."""
    many = validators(64, start=200)
    for number in range(1, 1 + MAX_LINK_SEALS // len(many)):
        yield link(many, many, number)


OLD, GROWN = validators(4), validators(5)
THEN = replace(GOOD.anchor, validators=addresses(OLD))


def linked(*links: bytes) -> bytes:
    """A bundle sealed by the grown set, after these links."""
    fresh = replace(GOOD, group=tuple(GROWN)).fresh()
    return Bundle(replace(fresh, links=links), GOOD.static).encode()


def severed() -> Published:
    """A release with notes, sent without them."""
    return publish(make_manifest(text_digest=digest_of(NOTES)))


def noted() -> Published:
    """The same with them."""
    built = manifest.build(make_manifest(text_digest=digest_of(NOTES)))
    return replace(severed(), envelope=manifest.sign(built, MANIFEST_KEY, text=NOTES))


def accepted() -> Iterator[Case]:
    """Bundles that hold, and why they are worth having."""
    esp256 = cose.p256_private_key(sha256(b"test vector: p-256 manifest key"))
    by_p256 = publish(key=esp256)
    product = replace(by_p256.product, governance=governance(SigningKey(key_id(esp256))))
    pending = replace(GOOD.product, other=sha256(b"test vector: next"), effective_at=NOW + 1)
    come = replace(pending, other=sha256(b"test vector: outgoing"), effective_at=NOW)
    one = replace(GOOD, group=tuple(validators(1)))
    known = [*OLD[:3], *(v for v in GROWN if v not in OLD)]
    yield Case("4 validators", _whole(GOOD))
    yield Case("1 validator, round 2", _whole(one, round_number=2), one.anchor)
    yield Case("signed with ESP256", _whole(replace(by_p256, product=product)))
    yield Case("with release notes", _whole(noted()))
    yield Case("release notes severed", _whole(severed()))
    yield Case("halted", _whole(GOOD.with_status(Status.HALTED)))
    yield Case("a change of governance is pending", _whole(replace(GOOD, product=pending)))
    yield Case("a change of governance has come", _whole(replace(GOOD, product=come)))
    yield Case("the key was retired with this release", _whole(with_key(GOOD, 1)))
    yield Case("nothing to install", Bundle(GOOD.fresh()).encode())
    yield Case(
        "no release yet", Bundle(empty_fresh(replace(GOOD, product=Product(governance())))).encode()
    )
    yield Case("at the height and time trusted", _whole(GOOD), height=7, time=NOW)
    good = link(GROWN, sorted(known, key=lambda v: v.address), 5)
    yield Case("a validator joined", linked(good), THEN, height=3)
    block = replace(GOOD, group=tuple(GROWN)).fresh().proof.header
    yield Case("the block itself as the link", linked(block), THEN, height=3)
    strangers = validators(4, start=60)
    past = [link(OLD, OLD, 2), link(strangers, strangers, 3)]
    yield Case("links passed over", linked(*past, good), THEN, height=3)
    now = replace(GOOD.anchor, validators=addresses(GROWN))
    yield Case("all links passed over", linked(link(OLD, OLD, 2), good), now, height=5)
    kept = link(OLD, OLD, 4)
    yield Case("the block trusted as a link", linked(kept, good), THEN, height=4, header=kept)
    rival = link(strangers, strangers, 4)
    yield Case("strangers' block of the height trusted", linked(rival, good), THEN, height=4,
               header=kept)  # fmt: skip
    again = GOOD.fresh(round_number=3).proof.header
    yield Case("the block trusted, of another round", _whole(GOOD), height=7, header=again)


# -- refused --------------------------------------------------------------------------------------


def edited(part: str, place: Sequence[int], value: Any) -> bytes:
    """The good bundle with one member replaced, encoded again."""
    outer = cbor.loads(_whole(GOOD), max_bytes=LIMIT)
    at = {"static": 1, "fresh": 2}.get(part)
    root = outer if at is None else cbor.loads(outer[at], max_bytes=LIMIT)
    spot = root
    for index in place[:-1]:
        spot = spot[index]
    spot[place[-1]] = value
    if at is not None:
        outer[at] = cbor.dumps(root)
    return cbor.dumps(outer)


def unread() -> Iterator[Case]:
    """What has not the form of section 1: step T1."""
    data = _whole(GOOD)
    yield Case("empty", b"", reason="truncated")
    yield Case("cut short", data[:-1], reason="truncated")
    yield Case("a byte follows", data + b"\0", reason="trailing-bytes")
    yield Case("a number written long", data[:1] + b"\x18\1" + data[2:], reason="not-canonical")
    yield Case("another format", edited("bundle", [0], 2), reason="unknown-format")
    yield Case("another format of the fresh part", edited("fresh", [0], 2), reason="unknown-format")
    yield Case("a member more", cbor.dumps([1, None, b"", 0]), reason="unexpected-structure")
    yield Case(
        "an account as hex text", edited("fresh", [4, 0, 6], "0x" + "00" * 20),
        reason="bad-record",
    )  # fmt: skip
    yield Case("a hash as hex text", edited("fresh", [4, 1], "0x" + "00" * 32), reason="bad-record")
    yield Case("a flag as a number", edited("static", [3, 12], 0), reason="bad-record")
    yield Case(
        "a share beyond 16 bits", edited("static", [3, 14, 0, 0], 1 << 16), reason="bad-record"
    )
    yield Case("a state word as a number", edited("fresh", [5, 2, 1], 1), reason="bad-record")
    yield Case("17 approvers", edited("fresh", [4, 0, 0], [bytes(20)] * 17), reason="bad-record")
    yield Case(
        "a header too large", edited("fresh", [2], bytes(8193)), reason="unexpected-structure"
    )
    yield Case("17 links", edited("fresh", [1], [b""] * 17), reason="oversized")
    yield Case("129 nodes", edited("fresh", [3], [bytes(32)] * 129), reason="oversized")


NOBODY = b"\x02" * 20
"""Under its path the state trie of the story has an empty place in its first branch."""


def at_address(contract: bytes) -> Anchor:
    """The anchor of a ledger at another address."""
    return replace(GOOD.anchor, ledger=replace(LEDGER, contract=Address(contract)))


def unproven() -> Iterator[Case]:
    """What the ledger's state does not bear out: steps 1 to 10."""
    fresh, static = GOOD.fresh(), GOOD.static
    nodes = list(fresh.proof.nodes)

    def with_proof(**parts: Any) -> bytes:
        return Bundle(replace(fresh, proof=replace(fresh.proof, **parts)), static).encode()

    yield Case("a node too small", edited("fresh", [3, 0], bytes(31)), step=1, reason="node-size")
    yield Case("header cut short", with_proof(header=fresh.proof.header[:-1]), step=2,
               reason="rlp-truncated")  # fmt: skip
    yield Case("sealed by 2 of 4", _whole(GOOD, sealed_by=GOOD.group[:2]), step=3,
               reason="no-quorum")  # fmt: skip
    yield Case("sealed by a stranger", _whole(GOOD, sealed_by=[*GOOD.group[:2], Validator(99)]),
               step=3, reason="foreign-seal")  # fmt: skip
    yield Case("other validators", linked(), THEN, step=3, reason="validators-changed")
    yield Case("seals not ascending", _whole(GOOD, sealed_by=GOOD.group[::-1]), step=4,
               reason="seal-order")  # fmt: skip
    yield Case("a contract that does not exist", _whole(GOOD), at_address(NOBODY), step=5,
               reason="no-contract")  # fmt: skip
    yield Case("another contract", _whole(GOOD), at_address(bytes(20)), step=5,
               reason="node-missing")  # fmt: skip
    other_code = replace(GOOD.anchor, code_hash=type(GOOD.anchor.code_hash)(bytes(32)))
    yield Case("other code", _whole(GOOD), other_code, step=6, reason="wrong-code")
    yield Case("a node missing", with_proof(nodes=tuple(nodes[:-1])), step=7, reason="node-missing")
    yield Case("a node twice", with_proof(nodes=(*nodes, nodes[-1])), step=8,
               reason="surplus-nodes")  # fmt: skip
    other_chain = replace(GOOD.anchor, ledger=replace(LEDGER, chain_id=1))
    yield Case("another chain", _whole(GOOD), other_chain, step=9, reason="wrong-product-record")
    lied = replace(fresh, product=with_key(GOOD, 7).product)
    yield Case("another governance", Bundle(lied, static).encode(), step=9,
               reason="wrong-product-record")  # fmt: skip
    stale = replace(GOOD.product, other=sha256(b"test vector: next"), effective_at=NOW)
    early = replace(GOOD, product=stale).fresh(timestamp=NOW - 1)
    late = replace(GOOD, product=replace(stale, governance=with_key(GOOD, 7).product.governance))
    shown = replace(late.fresh(), product=early.product)
    yield Case("a governance that is no more in effect", Bundle(shown, static).encode(), step=9,
               reason="wrong-product-record")  # fmt: skip
    active = replace(GOOD.with_status(Status.HALTED).fresh(), release=GOOD.release)
    yield Case("halted, shown as active", Bundle(active, static).encode(), step=10,
               reason="wrong-release-record")  # fmt: skip
    invented = GOOD.fresh(claimed=replace(GOOD.release, release_id=2))
    yield Case("a release nobody published", Bundle(invented, static).encode(), step=10,
               reason="not-on-ledger")  # fmt: skip
    for status in (0, 4, 15):
        word = GOOD.state.word & ~15 | status
        odd = replace(GOOD, state=replace(GOOD.state, word=word))
        yield Case(f"sealed in status {status}", _whole(odd), step=10, reason="unknown-status")
    yield Case("its releases hidden", Bundle(empty_fresh(GOOD)).encode(), step=10,
               reason="release-missing")  # fmt: skip


def unagreed() -> Iterator[Case]:
    """A static part that is not the proven release's: steps 11 to 15."""
    eager = replace(GOOD.static, terms=replace(GOOD.terms, hardware_max=9))
    none = replace(GOOD, product=Product(governance()))
    stranger = publish(key=OTHER_KEY)
    other = publish(make_manifest(image_digest=sha256(b"test vector: another image")))
    resigned = replace(GOOD, envelope=publish(key=OTHER_KEY).envelope)
    at = _whole(GOOD).index(GOOD.envelope) + GOOD.envelope.index(b"\x58\x40") + 2
    no_key = replace(stranger, signer=b"\xa0", product=with_raw_key(stranger.product, b"\xa0"))
    yield Case("other terms", Bundle(GOOD.fresh(), eager).encode(), step=11, reason="wrong-terms")
    yield Case("terms, and no release", Bundle(empty_fresh(none), GOOD.static).encode(), step=11,
               reason="wrong-terms")  # fmt: skip
    yield Case("signed by a stranger", _whole(stranger), step=12, reason="unknown-key")
    yield Case("the key was revoked", _whole(with_key(GOOD, 0)), step=12, reason="key-revoked")
    yield Case("a key listed that is none", _whole(no_key), step=12, reason="bad-key")
    for name, y in (("of small order", bytes(32)), ("that is no point", b"\x02" + bytes(31))):
        odd = bytes.fromhex("a301012006215820") + y
        listed = replace(stranger, signer=odd, product=with_raw_key(stranger.product, odd))
        yield Case(f"a key listed {name}", _whole(listed), step=12, reason="bad-key")
    later = replace(with_key(GOOD, 1), release_id=2)
    later = replace(later, product=replace(later.product, head=Head(2, later.terms.version, 1)))
    yield Case("the key was retired before", _whole(later), step=12, reason="key-retired")
    yield Case("another manifest", _whole(replace(GOOD, envelope=other.envelope)), step=13,
               reason="wrong-manifest")  # fmt: skip
    yield Case("no envelope", _whole(replace(GOOD, envelope=b"\xa0")), step=13,
               reason="not-an-envelope")  # fmt: skip
    yield Case("signed by another key than it names", _whole(resigned), step=14,
               reason="unknown-key")  # fmt: skip
    yield Case("a bit of the signature", flipped(_whole(GOOD), 8 * at), step=14,
               reason="bad-signature")  # fmt: skip
    for name, change in (
        ("version", {"version": 1 << 48 | 1}),
        ("security counter", {"security_counter": 2}),
        ("image digest", {"image_digest": sha256(b"test vector: another image")}),
        ("image size", {"image_size": 5}),
        ("key epoch", {"key_epoch": 2}),
    ):
        yield Case(f"manifest and terms differ in the {name}", _whole(publish(**change)), step=15,
                   reason="manifest-disagrees")  # fmt: skip


def with_raw_key(product: Product, key: bytes) -> Product:
    return replace(product, governance=governance(SigningKey(sha256(key))))


def untimely() -> Iterator[Case]:
    """Links that lead nowhere, blocks that contradict or precede one believed: steps T4 to T7."""
    good, strangers = link(GROWN, GROWN, 5), validators(4, start=60)
    half = sorted([*OLD[:2], *validators(3, start=40)], key=lambda v: v.address)
    for name, links, height, step, reason in (
        ("a link at the height trusted leads nowhere", [good], 5, 3, "validators-changed"),
        (
            "a link passed over without a quorum",
            [link(OLD, OLD[:2], 2), good],
            3,
            "T4",
            "no-quorum",
        ),
        (
            "a link passed over with a stranger's seal",
            [link(OLD, [*OLD[:3], strangers[0]], 2), good],
            3,
            "T4",
            "foreign-seal",
        ),
        (
            "a link passed over whose seals do not ascend",
            [link(OLD, OLD[::-1], 2), good],
            3,
            "T4",
            "seal-order",
        ),
        (
            "links passed over that do not ascend",
            [link(OLD, OLD, 3), link(OLD, OLD, 2), good],
            3,
            "T4",
            "link-order",
        ),
        (
            "a link passed over twice",
            [link(OLD, OLD, 2), link(OLD, OLD, 2), good],
            3,
            "T4",
            "link-order",
        ),
        ("more seals than are looked at", [*crowd(), good], 500, "T4", "too-many-seals"),
        ("a link twice", [good, good], 3, "T4", "link-order"),
        ("a link without a quorum", [link(GROWN, OLD[:3], 5)], 3, "T4", "no-quorum"),
        ("a link that too few knew", [link(half, half, 5)], 3, "T4", "no-overlap"),
        ("a link whose seals do not ascend", [link(GROWN, GROWN[::-1], 5)], 3, "T4", "seal-order"),
        ("a link above the block", [link(GROWN, GROWN, 8)], 3, "T5", "below-trusted-height"),
        ("a link of the block's height", [link(GROWN, GROWN, 7)], 3, "T6", "equivocation"),
    ):
        yield Case(name, linked(*links), THEN, height=height, step=step, reason=reason)
    kept, other = link(OLD, OLD, 4), link(OLD, OLD, 4, timestamp=NOW + 1)
    yield Case("another block of the height trusted as a link", linked(other, good), THEN, height=4,
               header=kept, step="T4", reason="equivocation")  # fmt: skip
    second = link(GROWN, GROWN, 5, timestamp=NOW + 1)
    yield Case("two links of one height", linked(good, second), THEN, height=3, step="T4",
               reason="equivocation")  # fmt: skip
    rival = GOOD.with_status(Status.HALTED).fresh()
    yield Case("another block of the height trusted", _whole(GOOD), height=7,
               header=rival.proof.header, step="T6", reason="equivocation")  # fmt: skip
    broken = replace(GOOD.fresh(), product=with_key(GOOD, 7).product)
    yield Case("the same, its records wrong as well", Bundle(broken, GOOD.static).encode(),
               height=7, header=rival.proof.header, step="T6", reason="equivocation")  # fmt: skip
    few = Bundle(GOOD.fresh(sealed_by=GOOD.group[:2]), GOOD.static).encode()
    yield Case("the same without a quorum", few, height=7, header=rival.proof.header, step=3,
               reason="no-quorum")  # fmt: skip
    old, early = "below-trusted-height", "time-falls"
    yield Case("below the height trusted", _whole(GOOD), height=8, step="T5", reason=old)
    yield Case("before the time trusted", _whole(GOOD), time=NOW + 1, step="T7", reason=early)


def tampered() -> list[Case]:
    """Everything that is refused."""
    return [*unread(), *unproven(), *unagreed(), *untimely()]


# -- acknowledgements -----------------------------------------------------------------------------

SENT = samples.CONFIRMED_BYTES


def acknowledgements() -> list[dict[str, Any]]:
    """Of `SENT`, release 1; each with the reason of refusal, or null."""
    leaves = [sha256(b"test vector: leaf %d" % n) for n in range(6)] + [receipt.receipt_leaf(SENT)]
    word = replace(StateWord.unpack(GOOD.state.word), log_size=7)
    story = replace(GOOD, state=replace(GOOD.state, word=word.pack(), log_root=merkle_root(leaves)))
    good = Acknowledgement(6, 7, tuple(inclusion_proof(leaves, 6)), story.fresh())
    rows = (
        ("the last of seven", good, 1, None),
        ("another index", replace(good, index=5), 1, "receipt-not-included"),
        ("an index beyond the log", replace(good, index=7), 1, "receipt-not-included"),
        ("another size", replace(good, size=8), 1, "wrong-log-size"),
        ("a path too long", replace(good, path=(*good.path, bytes(32))), 1, "receipt-not-included"),
        ("a path too short", replace(good, path=good.path[:-1]), 1, "receipt-not-included"),
        ("of another release", good, 2, "wrong-release"),
        ("another block", replace(good, fresh=GOOD.fresh()), 1, "wrong-log-size"),
    )
    return [
        {"name": name, "release": release, "reason": reason, "ack": ack.encode().hex()}
        for name, ack, release, reason in rows
    ]


# -- files ----------------------------------------------------------------------------------------


def _pinned(case: Case) -> dict[str, Any]:
    """All that is pinned."""
    anchor = case.anchor
    return {
        "chain_id": anchor.ledger.chain_id,
        "contract": anchor.ledger.contract.hex(),
        "product": anchor.product_id.hex(),
        "code_hash": anchor.code_hash.hex(),
        "validators": [one.hex() for one in anchor.validators],
        "height": case.height,
        "time": case.time,
        "header": case.header.hex(),
    }


def _otherwise(case: Case) -> dict[str, Any]:
    """What is pinned otherwise than for the file as a whole."""
    usual = _pinned(Case("", b""))
    return {name: value for name, value in _pinned(case).items() if value != usual[name]}


def _outcome(case: Case) -> dict[str, Any]:
    """What an accepted bundle shows; read by the product, compared with other readers by tests."""
    read = Bundle.decode(case.data)
    anchor = case.anchor
    if read.fresh.links:  # of the accepted, all lead to the grown set
        anchor = replace(anchor, validators=addresses(GROWN))
    view = bundle.prove(read.fresh, anchor)
    shown: dict[str, Any] = {
        "number": view.number,
        "timestamp": view.timestamp,
        "block_hash": view.block_hash.hex(),
        "sealers": [one.hex() for one in view.sealers],
        "release_id": view.release.release_id if view.release else None,
        "status": StateWord.unpack(view.release.state.word).status if view.release else None,
        "latest_release": view.product.head.latest_release,
    }
    if read.static is not None:
        found = bundle.offer(read.static, view)
        shown |= {
            "static_digest": read.static.digest.hex(),
            "terms_hash": found.terms_hash.hex(),
            "key_id": found.key_id.hex(),
            "version": str(int(found.terms.version)),
            "image_digest": found.manifest.image_digest.hex(),
            "payload_digest": found.manifest.payload_digest.hex(),
        }
    return shown


def vectors() -> dict[str, dict[str, Any]]:
    """File name -> content of every golden vector of these formats."""
    data, usual = _whole(GOOD), _pinned(Case("", b""))
    return {
        "bundle-accepted.json": {
            "note": _NOTE,
            "pinned": usual,
            "cases": [
                {"name": case.name, "pinned": _otherwise(case), "shows": _outcome(case),
                 "bundle": case.data.hex()}
                for case in accepted()
            ],
        },
        "bundle-tampered.json": {
            "note": _NOTE,
            "pinned": usual,
            "cases": [
                {"name": case.name, "step": case.step, "reason": case.reason,
                 "pinned": _otherwise(case), "bundle": case.data.hex()}
                for case in tampered()
            ],
        },
        "bundle-stick.json": {
            "note": _NOTE,
            "prefix": bundle.stick_prefix(data).hex(),
            "bundle_bytes": len(data),
            "refused": {
                "another magic": b"FLBUNDL2\0\0\0\1".hex(),
                "no bundle": b"FLBUNDL1\0\0\0\0".hex(),
                "a bundle too large": (
                    b"FLBUNDL1" + (bundle.MAX_BUNDLE_BYTES + 1).to_bytes(4, "big")
                ).hex(),
                "cut short": b"FLBUNDL1\0\0\0".hex(),
            },
        },
        "bundle-acknowledged.json": {
            "note": _NOTE,
            "pinned": usual,
            "receipt": SENT.hex(),
            "cases": acknowledgements(),
        },
    }  # fmt: skip


def _main() -> int:
    if sys.argv[1:] != ["--regen"]:
        print("usage: python -m tests.protocol.golden_bundles --regen", file=sys.stderr)  # noqa: T201
        return 2
    for name, content in vectors().items():
        (samples.GOLDEN / name).write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
