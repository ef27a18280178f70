"""Bundles: the good one is accepted, and every twin that differs is refused, by the right step."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import bundle, cose
from protocol.bundle import Acknowledgement, Bundle, Fresh, Static, Step
from protocol.digests import inclusion_proof, leaf_hash, merkle_root, sha256
from protocol.errors import FirmledgerError, Malformed, Untrusted
from protocol.ids import ProductId, Version
from protocol.ledger import StateWord, Status
from protocol.records import Head, Product, SigningKey
from tests.protocol.published import (
    MANIFEST_KEY,
    NOW,
    OTHER_KEY,
    flipped,
    governance,
    key_id,
    make_manifest,
    publish,
)
from tests.protocol.sealed import validators

GOOD = publish()
BUNDLE = Bundle(GOOD.fresh(), GOOD.static)


def refused(good: bundle.Anchor, data: bytes) -> FirmledgerError:
    """The error with which ``data`` is refused as a bundle; fails if it is not."""
    with pytest.raises(FirmledgerError) as caught:
        read = Bundle.decode(data)
        view = bundle.prove(read.fresh, good)
        assert read.static is not None
        bundle.offer(read.static, view)
    assert isinstance(caught.value, Malformed | Untrusted)
    return caught.value


def test_a_good_bundle_shows_the_release() -> None:
    read = Bundle.decode(BUNDLE.encode())
    assert read == BUNDLE and read.static is not None
    view = bundle.prove(read.fresh, GOOD.anchor)
    found = bundle.offer(read.static, view)
    assert (view.number, view.timestamp) == (7, NOW)
    assert found.release_id == 1 and found.manifest == make_manifest()
    assert found.key_id == key_id(MANIFEST_KEY)


def test_nothing_for_you_is_proved_too() -> None:
    read = Bundle.decode(Bundle(GOOD.fresh()).encode())
    assert read.static is None
    assert bundle.prove(read.fresh, GOOD.anchor).release == GOOD.release


@settings(max_examples=1500, deadline=None)
@given(st.integers(0, 8 * len(BUNDLE.encode()) - 1))
def test_no_bit_of_a_bundle_is_free(bit: int) -> None:
    refused(GOOD.anchor, flipped(BUNDLE.encode(), bit))


@given(st.binary(max_size=300))
def test_garbage_is_malformed(data: bytes) -> None:
    for kind in (Bundle, Static, Fresh, Acknowledgement):
        with pytest.raises(Malformed):
            kind.decode(data)


def test_truncated_oversized_and_longer_data_is_malformed() -> None:
    data = BUNDLE.encode()
    for bad in (data[:-1], data + b"\0", bytes(bundle.MAX_BUNDLE_BYTES + 1)):
        with pytest.raises(Malformed):
            Bundle.decode(bad)


def test_a_record_that_the_ledger_does_not_commit_to_is_refused() -> None:
    fresh = GOOD.fresh()
    head = Head(**{**vars(GOOD.product.head), "version": Version.parse("0.9.0")})
    lied = replace(fresh, product=Product(GOOD.product.governance, head=head))
    with pytest.raises(Untrusted, match="another product record") as caught:
        bundle.prove(lied, GOOD.anchor)
    assert caught.value.data["step"] == Step.PRODUCT

    active_again = replace(fresh, release=GOOD.with_status(Status.HALTED).release)
    with pytest.raises(Untrusted, match="another release record") as caught:
        bundle.prove(active_again, GOOD.anchor)
    assert caught.value.data["step"] == Step.RELEASE


def test_a_release_the_ledger_does_not_have_is_refused() -> None:
    invented = replace(GOOD.release, release_id=2)
    with pytest.raises(Untrusted) as caught:
        bundle.prove(GOOD.fresh(claimed=invented), GOOD.anchor)
    assert caught.value.reason == "not-on-ledger"


def test_hiding_that_there_are_releases_is_refused() -> None:
    with pytest.raises(FirmledgerError):
        bundle.prove(replace(GOOD.fresh(), release=None), GOOD.anchor)


def test_another_product_chain_contract_or_code_is_refused() -> None:
    anchor, fresh = GOOD.anchor, GOOD.fresh()
    bundle.prove(fresh, anchor)
    strangers = [
        replace(anchor, product_id=ProductId(bytes(32))),
        replace(anchor, ledger=replace(anchor.ledger, chain_id=1)),
        replace(
            anchor, ledger=replace(anchor.ledger, contract=type(anchor.ledger.contract)(bytes(20)))
        ),
        replace(anchor, code_hash=type(anchor.code_hash)(bytes(32))),
        replace(anchor, validators=tuple(v.address for v in validators(4, start=50))),
    ]
    for stranger in strangers:
        with pytest.raises(Untrusted):
            bundle.prove(fresh, stranger)


def test_other_terms_than_agreed_are_refused() -> None:
    view = bundle.prove(GOOD.fresh(), GOOD.anchor)
    eager = replace(GOOD.static, terms=replace(GOOD.terms, hardware_max=9))
    with pytest.raises(Untrusted) as caught:
        bundle.offer(eager, view)
    assert (caught.value.reason, caught.value.data["step"]) == ("wrong-terms", Step.TERMS)


def test_a_manifest_other_than_the_agreed_one_is_refused() -> None:
    view = bundle.prove(GOOD.fresh(), GOOD.anchor)
    other = publish(make_manifest(image_digest=sha256(b"another image")))
    with pytest.raises(Untrusted) as caught:
        bundle.offer(replace(GOOD.static, envelope=other.envelope), view)
    assert caught.value.reason == "wrong-manifest"


def test_only_keys_the_ledger_allows_may_have_signed() -> None:
    stranger = publish(key=OTHER_KEY)
    view = bundle.prove(stranger.fresh(), stranger.anchor)
    with pytest.raises(Untrusted) as caught:
        bundle.offer(stranger.static, view)
    assert caught.value.reason == "unknown-key"
    # Naming an allowed key beside a signature by another does not help.
    signer = cose.public_key_to_bytes(cose.public_key_of(MANIFEST_KEY))
    with pytest.raises(Untrusted) as caught:
        bundle.offer(replace(stranger.static, signer=signer), view)
    assert caught.value.data["step"] == Step.SIGNATURE


@pytest.mark.parametrize(
    ("valid_through", "reason"), [(2**32 - 1, None), (1, None), (0, "key-revoked")]
)
def test_rotation_and_revocation_reach_the_device_with_the_bundle(
    valid_through: int, reason: str | None
) -> None:
    keyed = governance(SigningKey(key_id(), valid_through))
    story = replace(GOOD, product=replace(GOOD.product, governance=keyed))
    view = bundle.prove(story.fresh(), story.anchor)
    if reason is None:
        bundle.offer(story.static, view)
    else:
        with pytest.raises(Untrusted) as caught:
            bundle.offer(story.static, view)
        assert caught.value.reason == reason


def test_a_retired_key_verifies_nothing_published_later() -> None:
    keyed = governance(SigningKey(key_id(), 1))
    product = replace(GOOD.product, governance=keyed, head=Head(2, GOOD.terms.version, 1))
    later = replace(GOOD, product=product, release_id=2)
    view = bundle.prove(later.fresh(), later.anchor)
    with pytest.raises(Untrusted) as caught:
        bundle.offer(later.static, view)
    assert caught.value.reason == "key-retired"


@pytest.mark.parametrize(
    "change",
    [
        {"version": Version.parse("1.0.1")},
        {"security_counter": 2},
        {"image_digest": sha256(b"another image")},
        {"image_size": 5},
        {"key_epoch": 2},
    ],
)
def test_manifest_and_terms_must_say_the_same(change: dict[str, object]) -> None:
    story = publish(**change)
    view = bundle.prove(story.fresh(), story.anchor)
    with pytest.raises(Untrusted) as caught:
        bundle.offer(story.static, view)
    assert caught.value.data["step"] == Step.AGREEMENT


def test_a_receipt_is_acknowledged_only_under_a_proven_root() -> None:
    leaves = [leaf_hash(b"receipt %d" % n) for n in range(5)]
    word = replace(StateWord.unpack(GOOD.state.word), log_size=5)
    state = replace(GOOD.state, word=word.pack(), log_root=merkle_root(leaves))
    story = replace(GOOD, state=state)
    ack = Acknowledgement(3, 5, tuple(inclusion_proof(leaves, 3)), story.fresh())
    read = Acknowledgement.decode(ack.encode())
    view = bundle.prove(read.fresh, story.anchor)
    read.check(leaves[3], 1, view)
    twins = [
        (leaves[2], 1, read),
        (leaves[3], 2, read),
        (leaves[3], 1, replace(read, index=2)),
        (leaves[3], 1, replace(read, size=4)),
        (leaves[3], 1, replace(read, path=read.path[1:])),
    ]
    for leaf, release_id, twin in twins:
        with pytest.raises(Untrusted):
            twin.check(leaf, release_id, view)
    with pytest.raises(Untrusted):
        read.check(leaves[3], 1, bundle.prove(GOOD.fresh(), GOOD.anchor))


def test_a_stick_file_starts_with_its_magic_and_a_bounded_length() -> None:
    data = BUNDLE.encode()
    assert bundle.read_stick_prefix(bundle.stick_prefix(data)) == len(data)
    for bad in (
        b"",
        b"FLBUNDL1",
        b"FLBUNDL2\0\0\0\1",
        b"FLBUNDL1\xff\xff\xff\xff",
        b"FLBUNDL1\0\0\0\0",
    ):
        with pytest.raises(Malformed):
            bundle.read_stick_prefix(bad)


def test_a_bundle_of_another_product_is_told_from_a_forged_one() -> None:
    mine, other = GOOD.anchor.product_id, ProductId(b"\x77" * 32)
    bundle.require_product(BUNDLE, mine)
    bundle.require_product(Bundle(GOOD.fresh()), other)  # it offers nothing, and says nothing
    with pytest.raises(Untrusted) as caught:
        bundle.require_product(BUNDLE, other)
    assert caught.value.reason == "wrong-product"
    assert str(mine) in caught.value.why and str(other) in caught.value.why
