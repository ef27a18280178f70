"""The product's verifier and its twin, which knows the pages alone, say the same of the same bytes.

Same means: both accept and return equal values, or both refuse at the same step. Bundles are spoiled
from outside (every bit, cut, doubled, swapped, encoded otherwise) and from inside, by someone who holds
all keys: there the verifiers get past hash and seal, and see the spoiled structure itself.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
import rlp
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import bundle, cbor, cose, receipt
from protocol.bundle import Acknowledgement, Bundle
from protocol.digests import inclusion_proof, merkle_root, sha256
from protocol.errors import Malformed, Untrusted
from protocol.header import encode_header, quorum
from protocol.ids import DeviceId
from protocol.ledger import StateWord, Status, cohort
from protocol.manifest import write_text
from protocol.records import Governance, HaltRule, Head, Phase, Product, SigningKey, State
from protocol.suit import digest_of
from tests.protocol import samples, structures
from tests.protocol.published import (
    NOW,
    PRODUCT_ID,
    flipped,
    governance,
    key_id,
    make_manifest,
    publish,
)
from tests.protocol.sealed import Validator, addresses, make_header, seal, validators
from tests.twin import forgery, verifier
from tests.twin.verdicts import Pinned, agreed, product_says, twin_says

SMALL = replace(publish(), group=tuple(validators(1)))
SMALL_BUNDLE = Bundle(SMALL.fresh(), SMALL.static)
SMALL_BYTES = SMALL_BUNDLE.encode()
LARGE = publish()
LARGE_BYTES = Bundle(LARGE.fresh(), LARGE.static).encode()
PINNED = Pinned(SMALL.anchor)
LARGE_PINNED = Pinned(LARGE.anchor)
ODD = st.sampled_from(
    [None, True, False, 0, 1, 2, 24, 255, 2**16, 2**32 - 1, 2**32, 2**64 - 1, -1, b"", b"\0", "",
     b"\x80", bytes(20), bytes(32), bytes(33), "0x" + "00" * 32, "0x" + "00" * 20, [], [[]], {},
     [0], {1: 1}]
)  # fmt: skip
ODD_RLP = st.sampled_from(
    [b"", b"\0", b"\1", b"\x7f", b"\x80", b"\xff", b"\0\1", bytes(19), bytes(20), bytes(31),
     bytes(32), bytes(33), b"\1" * 8, b"\1" * 9, bytes(65), [], [b""], [b"", b""], [[]],
     [b"\x20", b"\1"], [b"\x11", b"\1"], [b""] * 17, [[[[[[[[b""]]]]]]]], [b"\x00", [b""] * 17]]
)  # fmt: skip


def refused_alike(data: bytes, pinned: Pinned) -> int | None:
    verdict = agreed(data, pinned)
    assert not verdict.accepted, data.hex()
    return verdict.step


# -- from outside ---------------------------------------------------------------------------------


def test_both_accept_the_good_bundles() -> None:
    assert agreed(SMALL_BYTES, PINNED).accepted and agreed(LARGE_BYTES, LARGE_PINNED).accepted


def test_every_bit_of_a_bundle_is_refused_by_both_at_the_same_step() -> None:
    steps = Counter(
        refused_alike(flipped(SMALL_BYTES, bit), PINNED) for bit in range(8 * len(SMALL_BYTES))
    )
    assert sum(steps.values()) == 8 * len(SMALL_BYTES)
    assert {2, 3, 5, 7, 9, 10, 11, 12, 13, 14} <= steps.keys()


def test_bits_of_a_bundle_with_a_quorum_are_refused_alike() -> None:
    for bit in range(0, 8 * len(LARGE_BYTES), 31):
        refused_alike(flipped(LARGE_BYTES, bit), LARGE_PINNED)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A cut, doubled, dropped, moved or overwritten stretch."""
    places = st.integers(0, len(whole))
    first, last = sorted((draw(places), draw(places)))
    stretch = whole[first:last]
    return draw(
        st.sampled_from(
            [
                whole[:last],
                whole[first:],
                whole[:first] + whole[last:],
                whole[:last] + stretch + whole[last:],
                stretch + whole[:first] + whole[last:],
                whole[:first] + bytes(last - first) + whole[last:],
                whole[:first] + stretch[::-1] + whole[last:],
                whole + stretch,
            ]
        )
    )


@settings(max_examples=600)
@given(damaged(SMALL_BYTES))
def test_damage_is_judged_alike(data: bytes) -> None:
    agreed(data, PINNED)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_refused_alike(data: bytes) -> None:
    refused_alike(data, PINNED)


DEEP = structures.deep(cbor.loads(SMALL_BYTES, max_bytes=forgery.LIMIT))


@settings(max_examples=1500)
@given(st.integers(0, structures.places(DEEP) - 1), ODD)
def test_every_member_replaced_by_another_value_is_judged_alike(place: int, odd: Any) -> None:
    agreed(cbor.dumps(structures.shallow(structures.replaced(DEEP, place, odd))), PINNED)


@settings(max_examples=400)
@given(st.data())
def test_lists_made_longer_shorter_or_shuffled_are_judged_alike(data: st.DataObject) -> None:
    fresh = cbor.loads(SMALL_BUNDLE.fresh.encode(), max_bytes=forgery.LIMIT)
    static = cbor.loads(SMALL_BUNDLE.static.encode(), max_bytes=forgery.LIMIT)
    product, terms = fresh[4], static[3]
    lists = [fresh, static, fresh[1], fresh[3], fresh[5], fresh[5][2], product, product[0],
             product[0][0], product[0][7], product[3], terms, terms[14], terms[14][0]]  # fmt: skip
    chosen = data.draw(st.sampled_from(lists))
    if chosen and data.draw(st.booleans()):
        at = data.draw(st.integers(0, len(chosen) - 1))
        data.draw(st.sampled_from([chosen.pop, lambda at: chosen.extend([chosen[at]] * 130)]))(at)
    else:
        chosen[:] = data.draw(st.permutations(chosen))
    agreed(cbor.dumps([1, cbor.dumps(static), cbor.dumps(fresh)]), PINNED)


def test_any_longer_encoding_is_refused_alike() -> None:
    parts = [SMALL_BUNDLE.static.encode(), SMALL_BUNDLE.fresh.encode()]
    outer = [1, *parts]
    tried = 0
    for number, part in enumerate([None, *parts]):
        value = outer if part is None else cbor.loads(part, max_bytes=forgery.LIMIT)
        good = forgery.reencoded(value, -1)
        loose = 0
        while (data := forgery.reencoded(value, loose)) != good:
            whole = data if part is None else cbor.dumps([*outer[:number], data, *outer[number + 1 :]])
            assert refused_alike(whole, PINNED) is None
            loose += 1
        tried += loose
    assert tried > 90


def test_parts_of_other_bundles_are_judged_alike() -> None:
    halted = SMALL.with_status(Status.HALTED)
    other = replace(publish(make_manifest(image_size=5), image_size=5), group=SMALL.group)
    freshes = [SMALL.fresh(), SMALL.fresh(8), SMALL.fresh(8, NOW + 9), halted.fresh(9)]
    freshes.append(other.fresh())
    statics = [SMALL.static, other.static, None]
    accepted = 0
    for first in freshes:
        for second in freshes:
            for static in statics:
                mixed = [
                    replace(first, proof=second.proof),
                    replace(first, product=second.product),
                    replace(first, release=second.release),
                    replace(first, proof=replace(first.proof, nodes=second.proof.nodes)),
                    replace(first, proof=replace(first.proof, header=second.proof.header)),
                ]
                for fresh in mixed:
                    accepted += agreed(Bundle(fresh, static).encode(), PINNED).accepted
    assert accepted > 20


# -- from inside: every hash and seal is right -------------------------------------------------------


@settings(max_examples=700)
@given(st.data())
def test_sealed_headers_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    fields = rlp.decode(SMALL_BUNDLE.fresh.proof.header)
    if data.draw(st.booleans()):
        place = data.draw(st.integers(1, structures.places(fields) - 1))
        fields = structures.replaced(fields, place, data.draw(ODD_RLP))
    else:
        extra = rlp.decode(fields[12])
        place = data.draw(st.integers(0, structures.places(extra) - 1))
        fields[12] = rlp.encode(structures.replaced(extra, place, data.draw(ODD_RLP)))
    fields += data.draw(st.lists(ODD_RLP, max_size=18))
    header = forgery.sealed(fields, SMALL.group)
    agreed(forgery.with_proof(SMALL_BUNDLE, replace(SMALL_BUNDLE.fresh.proof, header=header)), PINNED)


NODES = SMALL_BUNDLE.fresh.proof.nodes


@settings(max_examples=1200)
@given(st.data())
def test_trie_nodes_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    index = data.draw(st.integers(0, len(NODES) - 1))
    if data.draw(st.booleans()):
        tree = rlp.decode(NODES[index])
        place = data.draw(st.integers(0, structures.places(tree) - 1))
        node = rlp.encode(structures.replaced(tree, place, data.draw(ODD_RLP)))
    else:
        node = data.draw(damaged(NODES[index]) | st.just(NODES[index]))
        if node:
            node = flipped(node, data.draw(st.integers(0, 8 * len(node) - 1)))
    proof = forgery.with_node(SMALL_BUNDLE.fresh.proof, index, node, SMALL.group)
    agreed(forgery.with_proof(SMALL_BUNDLE, proof), PINNED)


@settings(max_examples=400)
@given(st.data())
def test_accounts_and_words_of_any_form_are_judged_alike(data: st.DataObject) -> None:
    """The RLP inside the two kinds of leaf."""
    index = data.draw(st.sampled_from([at for at, node in enumerate(NODES) if len(node) < 200]))
    node = rlp.decode(NODES[index])
    if len(node) == 17:
        return
    inner = rlp.decode(node[1])
    place = data.draw(st.integers(0, structures.places(inner) - 1))
    changed = rlp.encode(structures.replaced(inner, place, data.draw(ODD_RLP)))
    changed = data.draw(st.sampled_from([changed, changed + b"\0", changed[:-1], b"\x81" + changed]))
    proof = forgery.with_node(
        SMALL_BUNDLE.fresh.proof, index, rlp.encode([node[0], changed]), SMALL.group
    )
    agreed(forgery.with_proof(SMALL_BUNDLE, proof), PINNED)


MANIFEST = structures.deep(forgery.elements_of(SMALL))


@settings(max_examples=700)
@given(st.integers(0, structures.places(MANIFEST) - 1), ODD)
def test_signed_manifests_of_any_form_are_judged_alike(place: int, odd: Any) -> None:
    agreed(
        forgery.republished(SMALL, structures.shallow(structures.replaced(MANIFEST, place, odd))),
        PINNED,
    )


@pytest.mark.parametrize(
    "notes",
    [
        {"en": {2: "text"}}, {}, {"en": {2: "x" * 2048}}, {"en": {2: "x" * 2049}}, {"": {2: ""}},
        {"x" * 35: {2: ""}}, {"x" * 36: {2: ""}}, {1: {2: "text"}}, {"en": {1: "text"}},
        {"en": {2: b"text"}}, {"en": "text"}, [], {"en": {2: "é" * 1025}},
    ],
)  # fmt: skip
def test_signed_notes_of_any_form_are_judged_alike(notes: Any) -> None:
    text = cbor.dumps(notes)
    elements = {**forgery.elements_of(SMALL), 23: [-16, digest_of(text)]}
    agreed(forgery.republished(SMALL, elements, m23=text), PINNED)
    assert agreed(forgery.republished(SMALL, elements), PINNED).accepted  # severed


# -- accepted ----------------------------------------------------------------------------------------

U32, U64 = st.integers(0, 2**32 - 1), st.integers(0, 2**64 - 1)
ACCOUNTS = st.lists(st.binary(min_size=20, max_size=20), max_size=16).map(tuple)


@st.composite
def governances(draw: st.DrawFn) -> Governance:
    return replace(
        governance(
            SigningKey(key_id(), draw(st.sampled_from([0, 1, 2, 2**32 - 1]))),
            *draw(st.lists(st.builds(SigningKey, st.binary(min_size=32, max_size=32), U32), max_size=15)),
        ),
        approvers=draw(ACCOUNTS),
        guardians=draw(ACCOUNTS),
        epoch=draw(U32),
        halt_rule=HaltRule(draw(U32), draw(st.integers(0, 2**16 - 1))),
    )


@settings(max_examples=120)
@given(st.data())
def test_records_of_any_content_are_accepted_alike(data: st.DataObject) -> None:
    phases = st.builds(Phase, st.integers(0, 2**16 - 1), U32, U32, st.integers(0, 2**16 - 1), U32)
    release = data.draw(st.sampled_from([1, 2, 7, 2**32 - 1]))
    story = replace(
        SMALL,
        release_id=release,
        terms=replace(
            SMALL.terms,
            rollout=tuple(data.draw(st.lists(phases, max_size=4))),
            critical=data.draw(st.booleans()),
            min_version=data.draw(U64),
            required_attestations=data.draw(st.integers(0, 255)),
            security_counter=data.draw(st.sampled_from([1, 1, 2])),
        ),
        product=Product(
            data.draw(governances()),
            data.draw(st.binary(min_size=32, max_size=32)),
            data.draw(st.sampled_from([0, 1, NOW - 1, NOW, NOW + 1, 2**64 - 1])),
            Head(release, *[data.draw(U64 if wide else U32) for wide in (1, 0, 1, 1, 0)]),
        ),
        state=State(
            data.draw(U64), data.draw(st.integers(0, 2**256 - 1)), data.draw(st.binary(min_size=32, max_size=32))
        ),
    )
    shown = Bundle(story.fresh(), data.draw(st.sampled_from([story.static, story.static, None])))
    agreed(shown.encode(), PINNED)


def test_a_product_without_releases_is_shown_alike() -> None:
    empty = replace(SMALL, product=Product(governance(), head=Head()))
    shown = empty.fresh()
    slots = empty.anchor.slots(None)
    lone = Bundle(replace(shown, proof=_proof_of(empty, slots), release=None))
    assert agreed(lone.encode(), PINNED).accepted
    assert agreed(Bundle(lone.fresh, SMALL.static).encode(), PINNED).step == 11
    assert agreed(Bundle(replace(shown, release=None)).encode(), PINNED).step == 8
    hiding = Bundle(replace(SMALL.fresh(), proof=_proof_of(SMALL, slots), release=None))
    assert agreed(hiding.encode(), PINNED).step == 10


def _proof_of(story: Any, slots: Any) -> Any:
    from protocol.proof import assemble
    from tests.protocol.published import LEDGER
    from tests.protocol.sealed import World

    product = LEDGER.product_slot(PRODUCT_ID, story.product, NOW)
    own = LEDGER.release_slot(PRODUCT_ID, 1, story.terms.hash_struct(), story.state)
    places = story.anchor.slots(1)
    words = {places[0]: int.from_bytes(product, "big"), places[1]: int.from_bytes(own, "big")}
    world = World(words, group=story.group)
    return assemble(world.raw_header(timestamp=NOW), world.get_proof(slots))


@pytest.mark.parametrize("secret", [b"p-256 manifest key", b"another"])
def test_a_p256_signer_is_judged_alike(secret: bytes) -> None:
    key = cose.p256_private_key(sha256(secret))
    story = replace(publish(key=key), group=SMALL.group)
    assert agreed(Bundle(story.fresh(), story.static).encode(), PINNED).step == 12
    keyed = replace(story.product, governance=governance(SigningKey(key_id(key))))
    allowed = replace(story, product=keyed)
    good = Bundle(allowed.fresh(), allowed.static).encode()
    assert agreed(good, PINNED).accepted
    start = good.index(allowed.envelope)
    for bit in range(8 * start, 8 * (start + len(allowed.envelope)), 17):
        refused_alike(flipped(good, bit), PINNED)
