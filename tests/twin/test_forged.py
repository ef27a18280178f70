"""The product's verifier and its twin on bundles made by someone who holds every key.

Hashes and seals are right, so that both see the spoiled structure itself: headers, trie nodes,
accounts, words, manifests, notes, links. Some such bundles hold; then both return the same values.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import bundle, cbor
from protocol.bundle import Bundle, Fresh
from protocol.digests import keccak256
from protocol.errors import Malformed, Untrusted
from protocol.header import encode_header
from protocol.ids import Hash
from protocol.records import Product
from protocol.suit import digest_of
from protocol.trie import NodePool, lookup
from tests.protocol import structures
from tests.protocol.published import LEDGER, NOW, flipped, governance
from tests.protocol.sealed import Validator, addresses, build_trie, make_header, seal, validators
from tests.twin import forgery, verifier
from tests.twin.forgery import link
from tests.twin.test_twin import FRESH, GOOD, ODD, PINNED, damaged
from tests.twin.verdicts import Pinned, Verdict, agreed, manifest_values, plain

ODD_RLP = st.sampled_from(
    [b"", b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\1", bytes(19), bytes(20), bytes(31),
     bytes(32), bytes(33), b"\1" * 8, b"\1" * 9, bytes(65), [], [b""], [b"", b""], [[]],
     [b"\x20", b"\1"], [b"\x11", b"\1"], [b""] * 17, [[[[[[[[b""]]]]]]]], [b"\x00", [b""] * 17]]
)  # fmt: skip


def with_proof(proof: Any) -> bytes:
    return Bundle(replace(FRESH, proof=proof), GOOD.static).encode()


@settings(max_examples=300)
@given(st.data())
def test_sealed_headers_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    fields = rlp.decode(FRESH.proof.header)
    where = data.draw(st.sampled_from(["header", "extra", "more"]))
    if where == "header":
        place = data.draw(st.integers(1, structures.places(fields) - 1))
        fields = structures.replaced(fields, place, data.draw(ODD_RLP))
    elif where == "extra":
        extra = rlp.decode(fields[12])
        place = data.draw(st.integers(0, structures.places(extra) - 1))
        fields[12] = rlp.encode(structures.replaced(extra, place, data.draw(ODD_RLP)))
    else:
        fields += data.draw(st.lists(ODD_RLP, max_size=18))
    header = forgery.sealed(fields, GOOD.group)
    agreed(with_proof(replace(FRESH.proof, header=header)), PINNED)


NODES = FRESH.proof.nodes


@settings(max_examples=300)
@given(st.data())
def test_nodes_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(NODES) - 1))
    if data.draw(st.booleans()):
        tree = rlp.decode(NODES[index])
        place = data.draw(st.integers(0, structures.places(tree) - 1))
        node = rlp.encode(structures.replaced(tree, place, data.draw(ODD_RLP)))
    else:
        node = data.draw(damaged(NODES[index]))
    proof = forgery.with_spoiled(FRESH.proof, index, node, GOOD.group)
    agreed(with_proof(proof), PINNED)


@settings(max_examples=200)
@given(st.data())
def test_accounts_and_words_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    """The RLP inside the two kinds of leaf."""
    leaves = [at for at, node in enumerate(NODES) if len(rlp.decode(node)) == 2]
    index = data.draw(st.sampled_from(leaves))
    path, value = rlp.decode(NODES[index])
    inner = rlp.decode(value)
    place = data.draw(st.integers(0, structures.places(inner) - 1))
    changed = rlp.encode(structures.replaced(inner, place, data.draw(ODD_RLP)))
    ways = [changed, changed, changed + b"\0", changed[:-1], b"\x81" + changed, value[1:]]
    node = rlp.encode([path, data.draw(st.sampled_from(ways))])
    proof = forgery.with_spoiled(FRESH.proof, index, node, GOOD.group)
    agreed(with_proof(proof), PINNED)


def looked_up(root: bytes, path: bytes, nodes: list[bytes]) -> tuple[str, Any]:
    """What the product finds under a path: value and nodes used, or the reason."""
    pool = NodePool(nodes)
    try:
        return "found", (lookup(Hash(root), Hash(path), pool), list(pool.spent()))
    except (Malformed, Untrusted) as error:
        return "refused", error.reason


def walked(root: bytes, path: bytes, nodes: list[bytes]) -> tuple[str, Any]:
    """The same from the twin."""
    given_, used = {bytes(keccak256(node)): node for node in nodes}, list[bytes]()
    try:
        value = verifier.walk(root, path, given_, used)
    except verifier.Refusal as refusal:
        return "refused", refusal.why
    return "found", (value, [given_[ref] for ref in used])


@settings(max_examples=600)
@given(st.data())
def test_tries_of_any_form_are_walked_alike(data: st.DataObject) -> None:
    """Keys of long common beginnings, so that there are extensions and inline nodes."""
    tails = st.binary(min_size=2, max_size=2)
    start = data.draw(st.sampled_from([bytes(30), bytes(29) + b"\x10", b"\xff" * 30]))
    keys = data.draw(st.lists(tails, min_size=1, max_size=6, unique=True))
    items = {start + tail: data.draw(st.sampled_from([b"\1", b"v" * 32])) for tail in keys}
    items |= {keccak256(tail): b"w" * 40 for tail in keys[:2]}
    root, stored = build_trie(items)
    nodes = [node for node in stored.values() if len(node) >= 32][::-1]
    path = data.draw(st.sampled_from([*items, start + data.draw(tails)]))
    if nodes and data.draw(st.booleans()):
        index = data.draw(st.integers(0, len(nodes) - 1))
        tree = rlp.decode(nodes[index])
        place = data.draw(st.integers(0, structures.places(tree) - 1))
        node = rlp.encode(structures.replaced(tree, place, data.draw(ODD_RLP)))
        if 32 <= len(node) <= verifier.NODE_MAX:
            nodes, before, after = forgery.with_node(nodes, index, node)
            root = after if before == root else root
    ours, theirs = looked_up(root, path, nodes), walked(root, path, nodes)
    if ours[0] == "refused" and str(ours[1]).startswith("rlp"):
        assert theirs[0] == "refused" and str(theirs[1]).startswith("rlp")
    else:
        assert ours == theirs


MANIFEST = structures.deep(forgery.elements_of(GOOD))
LEDGER_NOW = verifier.verify_bundle(Bundle(FRESH, GOOD.static).encode(), PINNED.as_mapping())
VIEW = bundle.prove(FRESH, GOOD.anchor)


def offered(elements: Any, members: dict[int, bytes]) -> Verdict:
    """Steps 11 to 15 of both, for a release published with this manifest; fails if they differ."""
    static = forgery.signed(GOOD, elements, members)
    terms_hash = static.terms.hash_struct()
    view = replace(VIEW, release=replace(GOOD.release, terms_hash=terms_hash))
    ledger = {**LEDGER_NOW, "release": {**LEDGER_NOW["release"], "termsHash": bytes(terms_hash)}}
    try:
        found = bundle.offer(bundle.Static.decode(static.encode()), view)
        ours = Verdict([plain(found.terms), manifest_values(found.manifest)])
    except (Malformed, Untrusted) as error:
        ours = Verdict(step=error.data.get("step", "T1"), why=error.reason)
    try:
        said = verifier.verify_static(static.encode(), ledger)
        values = [item for name, item in said["manifest"].items() if name != "notes"]
        theirs = Verdict([plain(said["terms"]), values])
    except verifier.Refusal as refusal:
        theirs = Verdict(step=refusal.step, why=refusal.why)
    assert ours == theirs, (ours, theirs, static.encode().hex())
    return ours


@settings(max_examples=500)
@given(st.integers(0, structures.places(MANIFEST) - 1), ODD)
def test_signedmanifest_valuess_of_any_form_are_judged_alike(place: int, odd: Any) -> None:
    offered(structures.shallow(structures.replaced(MANIFEST, place, odd)), {})


@pytest.mark.parametrize("tag", [2, 18, 107, 2**32])
def test_a_tag_in_a_signed_manifest_is_refused_alike(tag: int) -> None:
    elements = {**forgery.elements_of(GOOD), 8: cbor.Tag(tag, b"\x01")}
    assert offered(elements, {}).step == 13


@pytest.mark.parametrize("size", [512, 513, 4000])
def test_an_authentication_block_of_any_size_is_refused_alike(size: int) -> None:
    members = cbor.loads(GOOD.envelope, max_bytes=8192, tags=(107,)).value
    authenticated, _ = cbor.loads(members[2], max_bytes=8192)
    wrapper = cbor.dumps([authenticated, bytes(size)])
    assert offered(forgery.elements_of(GOOD), {2: wrapper}).step == 14


@settings(max_examples=200)
@given(st.dictionaries(st.sampled_from([4, 16, 20, 23, 24, -1, "text", b"bytes"]), ODD, min_size=1))
def test_envelopes_with_more_members_are_judged_alike(members: dict[Any, Any]) -> None:
    assert not offered(forgery.elements_of(GOOD), members).accepted


@pytest.mark.parametrize("severable", [16, 20])
def test_severed_commands_are_refused_alike(severable: int) -> None:
    member = cbor.dumps([12, 0])
    elements = {**forgery.elements_of(GOOD), severable: [-16, digest_of(member)]}
    assert offered(elements, {severable: member}).step == 14
    assert offered(elements, {}).step == 14


@pytest.mark.parametrize(
    ("notes", "good"),
    [
        ({"en": {2: "text"}}, True), ({"en": {2: "x" * 2048}, "de": {2: ""}}, True),
        ({"x" * 35: {2: ""}}, True), ({"en": {2: "é" * 1025}}, False), ({}, False), ([], False),
        ({"en": {2: "x" * 2049}}, False), ({"x" * 36: {2: ""}}, False), ({1: {2: "text"}}, False),
        ({"en": {1: "text"}}, False), ({"en": {2: b"text"}}, False), ({"en": "text"}, False),
    ],
)  # fmt: skip
def test_signed_notes_of_any_form_are_judged_alike(notes: Any, good: bool) -> None:
    text = cbor.dumps(notes)
    elements = {**forgery.elements_of(GOOD), 23: [-16, digest_of(text)]}
    assert offered(elements, {23: text}).accepted is good
    assert offered(elements, {}).accepted  # severed: nobody reads them
    assert not offered(elements, {23: flipped(text, 3)}).accepted


# -- links ------------------------------------------------------------------------------------

OLD, GROWN = validators(4), validators(5)
JOINED = [one for one in GROWN if one not in OLD]
THEN = Pinned(replace(GOOD.anchor, validators=addresses(OLD)), height=3)


def ascending(group: list[Validator]) -> list[Validator]:
    return sorted(group, key=lambda one: one.address)


def linked(*links: bytes, **members: int) -> bytes:
    """A bundle of a block that the grown set sealed, after these links."""
    fresh: Fresh = replace(GOOD, group=tuple(GROWN)).fresh(**members)
    return Bundle(replace(fresh, links=links), GOOD.static).encode()


def test_links_are_followed_alike() -> None:
    good = link(GROWN, GROWN)
    assert GOOD.anchor.ledger == LEDGER
    assert agreed(linked(good), THEN).accepted
    assert agreed(linked(link(GROWN, ascending([*OLD[:3], *JOINED]))), THEN).accepted
    assert agreed(linked(link(OLD, OLD, 4), good), THEN).accepted
    block = replace(GOOD, group=tuple(GROWN)).fresh().proof.header
    assert agreed(linked(block), THEN).accepted  # the block itself is the link
    assert agreed(linked(), THEN).step == 3
    for step, bad in (
        ("T5", [link(GROWN, GROWN, 8)]),  # above the block
        ("T6", [link(GROWN, GROWN, 7)]),  # another block of that height
        (3, [link(GROWN, GROWN, 3)]),  # not above what is trusted, so it leads nowhere
        ("T4", [good, good]),
        ("T4", [good, link(OLD, OLD, 5)]),
        ("T4", [link(GROWN, OLD[:3])]),
        ("T4", [link(ascending([*OLD[:2], *JOINED]), ascending([*OLD[:2], *JOINED]))]),
        ("T4", [link(GROWN, GROWN[:1] + GROWN)]),
        ("T4", [good[:-1]]),
        ("T4", [b""]),
    ):
        verdict = agreed(linked(*bad), THEN)
        assert not verdict.accepted and verdict.step == step
    contradicted = Bundle.decode(linked(link(GROWN, GROWN, 7)))
    spoiled = replace(contradicted.fresh, product=Product(governance()))
    assert agreed(Bundle(spoiled).encode(), THEN).step == "T6"  # evidence, whatever else is wrong
    assert agreed(linked(good, timestamp=NOW), replace(THEN, time=NOW)).accepted
    assert not agreed(linked(good, timestamp=NOW), replace(THEN, time=NOW + 1)).accepted


LATER = replace(THEN, anchor=replace(GOOD.anchor, validators=addresses(GROWN)), height=6)
"""A device that is past the link to the grown set."""


@settings(max_examples=80)
@given(st.data())
def test_spoiled_links_are_judged_alike(data: st.DataObject) -> None:
    good = link(GROWN, ascending([*OLD[:3], *JOINED]))
    bits = st.integers(0, 8 * len(good) - 1)
    spoiled = data.draw(damaged(good) | bits.map(lambda bit: flipped(good, bit)))
    for pinned in (THEN, LATER):
        agreed(linked(spoiled), pinned)


GROUPS = [OLD, GROWN, validators(4, start=60), ascending([*OLD[:3], *validators(1, start=60)])]


@settings(max_examples=300)
@given(st.data())
def test_links_of_any_groups_in_any_order_are_judged_alike(data: st.DataObject) -> None:
    """Around the height trusted, with and without a block kept, with few and with many seals."""
    groups = st.sampled_from(GROUPS)
    blocks = st.tuples(groups, groups, st.integers(1, 8), st.sampled_from([NOW, NOW + 1]))
    links = [
        encode_header(seal(make_header(listed, number=number, timestamp=time), sealers))
        for listed, sealers, number, time in data.draw(st.lists(blocks, max_size=4))
    ]
    trusted, height = data.draw(groups), data.draw(st.integers(0, 7))
    kept = b""
    if height and data.draw(st.booleans()):
        kept = encode_header(seal(make_header(trusted, number=height), trusted))
    anchor = replace(GOOD.anchor, validators=addresses(trusted))
    group = tuple(data.draw(groups))
    fresh = replace(replace(GOOD, group=group).fresh(), links=tuple(links))
    if data.draw(st.booleans()):
        fresh = replace(fresh, product=Product(governance()))
    agreed(Bundle(fresh, GOOD.static).encode(), Pinned(anchor, height, 0, kept))


def test_too_many_seals_are_counted_alike() -> None:
    many, far = validators(64, start=200), replace(LATER, height=20)
    links = [link(many, many, number) for number in range(1, 9)]
    assert agreed(linked(*links), far).step == "T5", "the block is below the device's height"
    assert agreed(linked(*links, link(OLD, OLD, 9)), far).why == "too-many-seals"


def test_links_with_seals_out_of_order_are_refused_alike() -> None:
    assert agreed(linked(link(GROWN, GROWN[::-1])), THEN).step == "T4"
