"""The product's verifier and its twin, which knows the pages alone, say the same of the same bytes.

Same means: both accept and return equal values, or both refuse at the same step. Here bundles are
spoiled from outside: bits flipped, stretches cut, doubled and moved, parts swapped, values encoded
otherwise. From inside, by someone who holds all keys: test_forged.py. Against the golden vectors:
test_pages.py.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import bundle, cbor, cose, receipt
from protocol.bundle import Acknowledgement, Bundle
from protocol.digests import inclusion_proof, merkle_root, sha256
from protocol.errors import Malformed, Untrusted
from protocol.ledger import StateWord, Status, eligible
from protocol.records import Device, Governance, HaltRule, Head, Phase, Product, SigningKey, State
from tests.protocol import samples, structures
from tests.protocol.published import NOW, flipped, governance, key_id, make_manifest, publish
from tests.protocol.sealed import validators
from tests.twin import flips, forgery, verifier
from tests.twin.flips import refused_alike
from tests.twin.verdicts import Pinned, agreed

GOOD = replace(publish(), group=tuple(validators(1)))
FRESH = replace(GOOD.fresh(), proof=forgery.proof_of(GOOD, accounts=2))
SMALL, PINNED = flips.small()
LARGE_STORY = publish()
ODD = st.sampled_from(
    [None, True, False, 0, 1, 2, 24, 255, 2**16, 2**32 - 1, 2**32, 2**64 - 1, -1, b"", b"\0", "",
     b"\x80", bytes(20), bytes(32), bytes(33), "0x" + "00" * 32, "0x" + "00" * 20, [], [[]], {},
     [0], {1: 1}]
)  # fmt: skip


@pytest.mark.parametrize("name", flips.BUNDLES)
def test_both_accept_the_good_bundles(name: str) -> None:
    assert agreed(*flips.BUNDLES[name]()).accepted


STRIDE = 7
"""Of the bits below: one or two of every byte. `flips` by itself tries them all."""


def test_no_bit_is_free_and_both_refuse_it_at_the_same_step() -> None:
    bits = range(0, 8 * len(SMALL), STRIDE)
    steps = Counter(refused_alike(flipped(SMALL, bit), PINNED) for bit in bits)
    assert {"T1", 2, 3, 5, 7, 9, 10, 11, 12, 13, 14} <= steps.keys()


@pytest.mark.parametrize("name", ["sealed by four", "linked"])
@settings(max_examples=200)
@given(data=st.data())
def test_bits_of_a_bundle_with_a_quorum_are_refused_alike(name: str, data: st.DataObject) -> None:
    whole, pinned = flips.BUNDLES[name]()
    refused_alike(flipped(whole, data.draw(st.integers(0, 8 * len(whole) - 1))), pinned)


@st.composite
def damaged(draw: st.DrawFn, whole: bytes) -> bytes:
    """A cut, doubled, dropped, moved or overwritten stretch."""
    places = st.integers(0, len(whole))
    first, last = sorted((draw(places), draw(places)))
    before, stretch, after = whole[:first], whole[first:last], whole[last:]
    ways = [before + stretch, stretch + after, before + after, before + stretch * 2 + after,
            stretch + before + after, before + bytes(last - first) + after,
            before + stretch[::-1] + after, whole + stretch]  # fmt: skip
    return draw(st.sampled_from(ways))


@settings(max_examples=300)
@given(damaged(SMALL))
def test_damage_is_judged_alike(data: bytes) -> None:
    agreed(data, PINNED)


@settings(max_examples=200)
@given(st.binary(max_size=200))
def test_garbage_is_refused_alike(data: bytes) -> None:
    assert refused_alike(data, PINNED) == "T1"


DEEP = structures.deep(cbor.loads(SMALL, max_bytes=forgery.LIMIT))


@settings(max_examples=600)
@given(st.integers(0, structures.places(DEEP) - 1), ODD)
def test_any_member_replaced_by_another_value_is_judged_alike(place: int, odd: Any) -> None:
    agreed(cbor.dumps(structures.shallow(structures.replaced(DEEP, place, odd))), PINNED)


@settings(max_examples=300)
@given(st.data())
def test_lists_made_longer_shorter_or_shuffled_are_judged_alike(data: st.DataObject) -> None:
    fresh = cbor.loads(FRESH.encode(), max_bytes=forgery.LIMIT)
    static = cbor.loads(GOOD.static.encode(), max_bytes=forgery.LIMIT)
    product, terms = fresh[4], static[3]
    lists = [fresh, static, fresh[3], fresh[5], fresh[5][2], product, product[0], product[0][0],
             product[0][7], product[3], terms, terms[14], terms[14][0]]  # fmt: skip
    chosen = data.draw(st.sampled_from(lists))
    at = data.draw(st.integers(0, len(chosen) - 1))
    ways = [chosen[:at] + chosen[at + 1 :], chosen + chosen[at:], chosen + [chosen[at]] * 130,
            chosen[at:] + chosen[:at], chosen[::-1]]  # fmt: skip
    chosen[:] = data.draw(st.sampled_from(ways))
    agreed(cbor.dumps([1, cbor.dumps(static), cbor.dumps(fresh)]), PINNED)


@pytest.mark.parametrize("part", ["bundle", "static", "fresh"])
def test_any_longer_encoding_is_refused_alike(part: str) -> None:
    static, fresh = GOOD.static.encode(), FRESH.encode()
    good = {"bundle": SMALL, "static": static, "fresh": fresh}[part]
    value, refused = cbor.loads(good, max_bytes=forgery.LIMIT), 0
    for loose in range(structures.places(value)):
        data = forgery.Loosely(loose).write(value)
        inside = {"static": static, "fresh": fresh} | {part: data}
        whole = cbor.dumps([1, inside["static"], inside["fresh"]])
        if data != good:  # a head of full width has no longer form
            assert refused_alike(data if part == "bundle" else whole, PINNED) == "T1"
            refused += 1
    assert refused >= (4 if part == "bundle" else 20)


def test_parts_of_other_bundles_are_judged_alike() -> None:
    halted = GOOD.with_status(Status.HALTED)
    other = replace(publish(make_manifest(image_size=5), image_size=5), group=GOOD.group)
    freshes = [FRESH, GOOD.fresh(8), GOOD.fresh(8, NOW + 9), halted.fresh(9), other.fresh()]
    accepted = 0
    for first in freshes:
        for second in freshes:
            mixed = [
                replace(first, proof=second.proof),
                replace(first, product=second.product),
                replace(first, release=second.release),
                replace(first, proof=replace(first.proof, nodes=second.proof.nodes)),
                replace(first, proof=replace(first.proof, header=second.proof.header)),
            ]
            for fresh in mixed:
                for static in (GOOD.static, other.static, None):
                    accepted += agreed(Bundle(fresh, static).encode(), PINNED).accepted
    assert accepted > 20


def test_other_pinned_values_are_judged_alike() -> None:
    anchor, ledger = GOOD.anchor, GOOD.anchor.ledger
    contract, code = type(ledger.contract)(bytes(20)), type(anchor.code_hash)(bytes(32))
    strangers = {
        9: replace(anchor, ledger=replace(ledger, chain_id=1)),
        5: replace(anchor, ledger=replace(ledger, contract=contract)),
        6: replace(anchor, code_hash=code),
        3: replace(anchor, validators=LARGE_STORY.anchor.validators),
        8: replace(anchor, product_id=type(anchor.product_id)(bytes(32))),
    }
    for step, stranger in strangers.items():
        assert refused_alike(SMALL, Pinned(stranger)) == step
    assert refused_alike(SMALL, Pinned(anchor, 8)) == "T5"
    assert refused_alike(SMALL, Pinned(anchor, 7, NOW + 1)) == "T7"
    assert agreed(SMALL, Pinned(anchor, 7, NOW)).accepted


# -- what is accepted -------------------------------------------------------------------------

U16, U32, U64 = (st.integers(0, 2**bits - 1) for bits in (16, 32, 64))
WORDS = st.binary(min_size=32, max_size=32)
ACCOUNTS = st.lists(st.binary(min_size=20, max_size=20), max_size=16).map(tuple)


@st.composite
def governances(draw: st.DrawFn) -> Governance:
    ours = SigningKey(key_id(), draw(st.sampled_from([0, 1, 6, 7, 2**32 - 1])))
    others = draw(st.lists(st.builds(SigningKey, WORDS, U32), max_size=15))
    return replace(
        governance(ours, *others),
        approvers=draw(ACCOUNTS),
        guardians=draw(ACCOUNTS),
        epoch=draw(U32),
        halt_rule=HaltRule(draw(U32), draw(U16)),
    )


@settings(max_examples=60)
@given(st.data())
def test_records_of_any_content_are_judged_alike(data: st.DataObject) -> None:
    draw = data.draw
    release = draw(st.sampled_from([1, 2, 7, 2**32 - 1]))
    story = replace(
        GOOD,
        release_id=release,
        terms=replace(
            GOOD.terms,
            rollout=tuple(draw(st.lists(st.builds(Phase, U16, U32, U32, U16, U32), max_size=4))),
            critical=draw(st.booleans()),
            min_version=draw(U64),
            required_attestations=draw(st.integers(0, 255)),
            security_counter=draw(st.sampled_from([1, 1, 2])),
        ),
        product=Product(
            draw(governances()),
            draw(WORDS),
            draw(st.sampled_from([0, 1, NOW - 1, NOW, NOW + 1, 2**64 - 1])),
            Head(release, draw(U64), draw(U32), draw(U64), draw(U64), draw(U32)),
        ),
        state=State(draw(U64), draw(st.integers(0, 2**256 - 1)), draw(WORDS)),
    )
    static = draw(st.sampled_from([story.static, story.static, None]))
    agreed(Bundle(story.fresh(), static).encode(), PINNED)


@pytest.mark.parametrize(
    ("effective_at", "step"), [(0, None), (NOW - 1, 9), (NOW, 9), (NOW + 1, None)]
)
def test_the_governance_in_effect_follows_from_the_headers_time(
    effective_at: int, step: int | None
) -> None:
    """A record written before a pending change took effect is no longer the one to show."""
    product = replace(GOOD.product, other=sha256(b"the one to come"), effective_at=effective_at)
    early = replace(GOOD, product=product).fresh(7, NOW - 2)
    header = replace(GOOD, product=product).fresh(7, NOW - 2).proof.header
    late = forgery.sealed_later(header, NOW, GOOD.group)
    assert agreed(Bundle(early, GOOD.static).encode(), PINNED).accepted
    shown = replace(early, proof=replace(early.proof, header=late))
    assert agreed(Bundle(shown, GOOD.static).encode(), PINNED).step == step


def test_a_product_without_releases_is_shown_alike() -> None:
    empty = replace(GOOD, product=Product(governance(), head=Head()))
    lone = replace(empty.fresh(), proof=forgery.proof_of(empty, None), release=None)
    assert agreed(Bundle(lone).encode(), PINNED).accepted
    assert refused_alike(Bundle(lone, GOOD.static).encode(), PINNED) == 11
    assert refused_alike(Bundle(replace(empty.fresh(), release=None)).encode(), PINNED) == 8
    hiding = replace(FRESH, proof=forgery.proof_of(GOOD, None), release=None)
    assert refused_alike(Bundle(hiding).encode(), PINNED) == 10


def test_a_p256_signer_is_judged_alike() -> None:
    key = cose.p256_private_key(sha256(b"test vector: p-256 manifest key"))
    story = replace(publish(key=key), group=GOOD.group)
    assert refused_alike(Bundle(story.fresh(), story.static).encode(), PINNED) == 12
    allowed = replace(story.product, governance=governance(SigningKey(key_id(key))))
    story = replace(story, product=allowed)
    good = Bundle(story.fresh(), story.static).encode()
    assert agreed(good, PINNED).accepted
    start = good.index(story.envelope)
    signature = story.envelope.index(b"\x58\x40") + 2
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    s = int.from_bytes(story.envelope[signature + 32 : signature + 64], "big")
    mirrored = bytearray(story.envelope)
    mirrored[signature + 32 : signature + 64] = (order - s).to_bytes(32, "big")
    second = Bundle(story.fresh(), replace(story.static, envelope=bytes(mirrored)))
    assert agreed(second.encode(), PINNED).accepted  # the second form; it names the same manifest
    for bit in range(8 * start, 8 * (start + len(story.envelope)), 37):
        refused_alike(flipped(good, bit), PINNED)


# -- who may install --------------------------------------------------------------------------

FEW = st.integers(0, 12)


def mostly(usual: int, *odd: int) -> st.SearchStrategy[int]:
    """Odd values of one rule are rare, so that those after it have their turn."""
    return st.sampled_from([usual] * 8 + list(odd))


@st.composite
def situations(draw: st.DrawFn) -> tuple[Product, Any, State, Device, int]:
    """Small numbers, so that every rule and every gate is met from both sides."""
    shares = st.sampled_from([1, 5000, 9000, 10_000])
    phase = st.builds(Phase, shares, FEW, FEW, st.sampled_from([0, 2500, 5000, 10_000]), FEW)
    w = StateWord(
        status=draw(mostly(1, 2, 3, 0, 4, 15)),
        attested=draw(mostly(1, 0, 2)),
        confirmed=(confirmed := draw(FEW)),
        failed=(failed := draw(FEW)),
        base_confirmed=draw(st.integers(0, confirmed)),
        base_failed=draw(st.integers(0, failed)),
        halted_total=draw(st.integers(0, 3)),
    )
    terms = replace(
        GOOD.terms,
        version=3,
        min_version=draw(st.integers(0, 1)),
        security_counter=2,
        hardware_min=1,
        hardware_max=2,
        required_attestations=draw(mostly(1, 0, 2)),
        not_before=draw(mostly(0, 17, 18)),
        expiry=draw(mostly(0, 18, 30)),
        rollout=tuple(draw(st.lists(phase, min_size=1, max_size=4))),
    )
    head = Head(1, paused_at=draw(mostly(0, 1)), paused_total=draw(st.integers(0, 3)))
    version, counter, revision = (
        draw(mostly(1, 0, 2, 3)),
        draw(mostly(1, 2, 3)),
        draw(mostly(1, 0, 2, 3)),
    )
    device = Device(draw(WORDS), version, counter, revision)
    state = State(draw(st.integers(0, 15)), w.pack())
    return Product(governance(), head=head), terms, state, device, draw(st.integers(12, 40))


@settings(max_examples=800)
@given(situations())
def test_both_say_the_same_of_a_device(situation: tuple[Product, Any, State, Device, int]) -> None:
    product, terms, state, device, now = situation
    try:
        ours = eligible(product, terms, 1, state, device, now).slug
    except Untrusted as error:
        ours = error.reason

    def members(kind: str, value: Any) -> Any:
        return verifier.record(kind, verifier.uncbor(cbor.dumps(value.to_list())))

    release = {"id": 1, "state": members("State", state)}
    names = ("deviceId", "version", "securityCounter", "hardware")
    try:
        theirs = verifier.eligible(
            members("Head", product.head),
            members("Terms", terms),
            release,
            dict(zip(names, device.to_list(), strict=True)),
            now,
        )
    except verifier.Refusal as refusal:
        theirs = refusal.why
    assert ours.replace("-", "") == theirs.replace("-", "").lower()


# -- sticks, acknowledgements, receipts -------------------------------------------------------


@given(st.binary(max_size=8), st.integers(0, 2**32 - 1), st.booleans())
def test_a_stick_file_is_split_alike(payload: bytes, announced: int, genuine: bool) -> None:
    length = len(SMALL) if genuine else announced
    data = bundle.STICK_MAGIC + length.to_bytes(4, "big") + SMALL + payload
    try:
        size = bundle.read_stick_prefix(data[: bundle.STICK_PREFIX_BYTES])
    except Malformed:
        size = None
    try:
        read, rest = verifier.split_stick(data)
    except verifier.Refusal:
        assert size is None or size > len(SMALL) + len(payload)  # then the file ends too early
    else:
        assert size == len(read) and rest == data[12 + len(read) :]
        assert not genuine or (read, rest) == (SMALL, payload)


LEAVES = [
    receipt.receipt_leaf(samples.CONFIRMED_BYTES),
    *map(sha256, (b"a", b"b", b"c", b"d", b"e")),
]


def acknowledged(data: bytes, release: int, sent: bytes) -> tuple[bool, bool]:
    """Whether the product and the twin let a device drop a receipt."""
    try:
        read = Acknowledgement.decode(data)
        view = bundle.prove(read.fresh, GOOD.anchor)
        read.check(receipt.receipt_leaf(sent), release, view)
    except (Malformed, Untrusted):
        ours = False
    else:
        ours = True
    try:
        verifier.verify_acknowledgement(data, sent, release, PINNED.as_mapping())
    except verifier.Refusal:
        return ours, False
    return ours, True


@pytest.mark.parametrize("size", range(1, len(LEAVES) + 1))
def test_acknowledgements_are_judged_alike(size: int) -> None:
    leaves = LEAVES[:size][::-1]
    word = replace(StateWord.unpack(GOOD.state.word), log_size=size)
    state = replace(GOOD.state, word=word.pack(), log_root=merkle_root(leaves))
    fresh = replace(GOOD, state=state).fresh()
    path = tuple(inclusion_proof(leaves, size - 1))
    good = Acknowledgement(size - 1, size, path, fresh)
    sent = samples.CONFIRMED_BYTES
    assert acknowledged(good.encode(), 1, sent) == (True, True)
    twins = [replace(good, index=size), replace(good, size=size + 1), replace(good, fresh=FRESH)]
    twins += [replace(good, path=(*path, bytes(32))), replace(good, index=2**64 - 1)]
    twins += [replace(good, path=path[1:]), replace(good, index=0)] if path else []
    for twin in twins:
        assert acknowledged(twin.encode(), 1, sent) == (False, False)
    assert acknowledged(good.encode(), 2, sent) == (False, False)
    assert acknowledged(good.encode(), 1, samples.REFUSED_BYTES) == (False, False)
    for bit in range(0, 8 * len(good.encode()), 211):
        assert acknowledged(flipped(good.encode(), bit), 1, sent) == (False, False)


def test_receipts_are_judged_alike() -> None:
    key = samples.DEVICE_PUBLIC.raw
    for good in (samples.CONFIRMED_BYTES, samples.REFUSED_BYTES, samples.ROLLED_BACK_BYTES):
        receipt.verify(good, key)
        verifier.verify_receipt(good, key)
        for bit in range(0, 8 * len(good), STRIDE):
            with pytest.raises((Malformed, Untrusted)):
                receipt.verify(flipped(good, bit), key)
            with pytest.raises(verifier.Refusal):
                verifier.verify_receipt(flipped(good, bit), key)


BODY = cbor.loads(
    cbor.loads(samples.ROLLED_BACK_BYTES, max_bytes=1024, tags=(18,)).value[2], max_bytes=1024
)


@settings(max_examples=300)
@given(
    st.dictionaries(st.integers(0, 14), ODD | st.lists(ODD, min_size=2, max_size=2), max_size=2),
    st.sets(st.integers(1, 13), max_size=1),
)
def test_signed_receipts_of_any_content_are_judged_alike(
    changes: dict[int, Any], dropped: set[int]
) -> None:
    body = {key: item for key, item in (BODY | changes).items() if key not in dropped}
    signer = cose.signer(samples.DEVICE)
    device = receipt.device_id(samples.DEVICE_PUBLIC)
    data = cose.write_sign1(cbor.dumps(body), signer, kid=device, detached=False)
    try:
        ours = receipt.verify(data, samples.DEVICE_PUBLIC.raw)
    except Malformed:
        with pytest.raises(verifier.Refusal) as caught:
            verifier.verify_receipt(data, samples.DEVICE_PUBLIC.raw)
        assert caught.value.step in (1, 5)
        return
    theirs = verifier.verify_receipt(data, samples.DEVICE_PUBLIC.raw)
    assert (ours.release, ours.reason, ours.sequence) == (
        theirs["release"],
        theirs["reason"],
        theirs["sequence"],
    )
