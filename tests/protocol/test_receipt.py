"""Receipts: every accept beside its tampered twin, and the chain they form."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import cbor2
import cwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose, digests, receipt
from protocol.errors import Malformed, Untrusted
from protocol.ids import Digest, ProductId, Version
from tests.protocol import samples, structures, tampering
from tests.protocol.test_manifest import foreign_values

ALL = (
    (samples.CONFIRMED, samples.CONFIRMED_BYTES),
    (samples.ROLLED_BACK, samples.ROLLED_BACK_BYTES),
    (samples.REFUSED, samples.REFUSED_BYTES),
)
_u64 = st.integers(0, 2**64 - 1)
_u32 = st.integers(0, 2**32 - 1)


def test_what_was_signed_is_what_is_verified() -> None:
    for written, data in ALL:
        assert receipt.verify(data, samples.DEVICE_PUBLIC) == written
        assert receipt.verify(data, samples.DEVICE_PUBLIC.raw) == written
        assert receipt.claimed_device(data) == receipt.device_id(samples.DEVICE_PUBLIC)
        assert receipt.sign(written, samples.DEVICE) == data
        assert len(data) <= 300


@st.composite
def receipts(draw: st.DrawFn) -> receipt.Receipt:
    outcome = draw(st.sampled_from(receipt.Outcome))
    text = st.text(min_size=1, max_size=16)
    sequence = draw(_u64)
    lower, upper = sorted((draw(_u32), draw(_u32)))
    return receipt.Receipt(
        product=ProductId(draw(st.binary(min_size=32, max_size=32))),
        release=draw(_u32),
        outcome=outcome,
        reason="" if outcome is receipt.Outcome.CONFIRMED else draw(text),
        version_before=Version(draw(_u64)),
        version_after=Version(draw(_u64)),
        counter_before=lower,
        counter_after=upper,
        height=draw(_u64),
        time=draw(st.none() | _u64),
        sequence=sequence,
        previous=Digest(b"p" * 32) if sequence else receipt.NO_PREVIOUS,
        node=draw(st.none() | st.binary(min_size=1, max_size=32)),
        consent=draw(st.none() | st.builds(receipt.Consent, text, st.none() | _u64)),
    )


@given(receipts())
def test_round_trip(written: receipt.Receipt) -> None:
    data = receipt.sign(written, samples.DEVICE)
    assert len(data) <= receipt.MAX_RECEIPT_BYTES
    assert receipt.verify(data, samples.DEVICE_PUBLIC) == written


def test_the_longest_receipt_fits() -> None:
    widest = "\U0001f525"  # 4 bytes of UTF-8
    longest = replace(
        samples.ROLLED_BACK,
        reason=widest * (receipt.MAX_REASON_BYTES // 4),
        node=b"n" * receipt.MAX_NODE_BYTES,
        consent=receipt.Consent(widest * (receipt.MAX_CONSENT_BYTES // 4), 2**64 - 1),
        time=2**64 - 1, sequence=2**64 - 1, height=2**64 - 1, release=2**32 - 1,
    )  # fmt: skip
    data = receipt.sign(longest, samples.DEVICE)
    assert receipt.verify(data, samples.DEVICE_PUBLIC) == longest


def test_the_spec_page_states_what_is_true() -> None:
    page = (samples.REPO / "docs/spec/receipt.md").read_text()
    for stated in (
        f"at most {receipt.MAX_RECEIPT_BYTES:,} bytes",
        f"text, 1 to {receipt.MAX_REASON_BYTES} bytes",
        f"1 to {receipt.MAX_NODE_BYTES} bytes",
        f"text, at most {receipt.MAX_CONSENT_BYTES} bytes",
        f"about {len(samples.CONFIRMED_BYTES)} bytes",
    ):
        assert stated in page


def test_which_outcomes_count() -> None:
    counted = {
        str(outcome): (outcome.final, outcome.counts_as_confirmed, outcome.counts_as_failed)
        for outcome in receipt.Outcome
    }
    assert counted == {
        "confirmed": (True, True, False),
        "failed": (True, False, True),
        "rolled-back": (True, False, True),
        "refused": (False, False, False),
    }


def test_receipts_form_a_chain() -> None:
    assert samples.ROLLED_BACK.follows(samples.CONFIRMED_BYTES)
    assert samples.REFUSED.follows(samples.ROLLED_BACK_BYTES)
    assert not samples.REFUSED.follows(samples.CONFIRMED_BYTES)
    assert not samples.ROLLED_BACK.follows(samples.ROLLED_BACK_BYTES)
    assert samples.REFUSED.delegated and not samples.CONFIRMED.delegated


def test_the_leaf_is_that_of_rfc_6962() -> None:
    leaves = [receipt.receipt_leaf(data) for _, data in ALL]
    assert leaves[0] == digests.sha256(b"\0" + samples.CONFIRMED_BYTES)
    path = digests.inclusion_proof(leaves, 2)
    root = digests.merkle_root(leaves)
    assert digests.verify_inclusion(leaves[2], 2, 3, path, root)
    assert not digests.verify_inclusion(leaves[1], 2, 3, path, root)


def test_device_id_is_the_hash_of_the_raw_key() -> None:
    raw = samples.DEVICE_PUBLIC.raw
    assert bytes(receipt.device_id(raw)) == bytes(digests.sha256(raw))
    assert receipt.device_id(raw) == receipt.device_id(samples.DEVICE_PUBLIC)
    with pytest.raises(Malformed):
        receipt.device_id(samples.P256_PUBLIC)
    with pytest.raises(Malformed):
        receipt.device_id(raw[:-1])
    with pytest.raises(Malformed):
        receipt.sign(samples.CONFIRMED, cose.signer(samples.P256))


def test_every_single_bit_flip_is_refused() -> None:
    for _, data in ALL:
        for flipped in samples.flips(data):
            with pytest.raises((Malformed, Untrusted)):
                receipt.verify(flipped, samples.DEVICE_PUBLIC)


@pytest.mark.parametrize("name", sorted(tampering.receipts()))
def test_tampered_receipts(name: str) -> None:
    data, reason = tampering.receipts()[name]
    with pytest.raises((Malformed, Untrusted)) as refusal:
        receipt.verify(data, samples.DEVICE_PUBLIC)
    assert refusal.value.reason == reason


@given(st.binary(max_size=300))
def test_garbage_meets_only_our_error(data: bytes) -> None:
    for attempt in (data, samples.CONFIRMED_BYTES[:45] + data):
        with pytest.raises((Malformed, Untrusted)):
            receipt.verify(attempt, samples.DEVICE_PUBLIC)


BODY = cbor.loads(
    cbor.loads(samples.ROLLED_BACK_BYTES, max_bytes=1024, tags=(18,)).value[2], max_bytes=1024
)


@given(st.integers(0, structures.places(BODY) - 1), foreign_values)
@settings(max_examples=300)
def test_any_part_replaced_and_genuinely_signed(place: int, value: Any) -> None:
    body = cbor.dumps(structures.shallow(structures.replaced(BODY, place, value)))
    device = receipt.device_id(samples.DEVICE_PUBLIC)
    data = cose.write_sign1(body, cose.signer(samples.DEVICE), kid=device, detached=False)
    try:
        read = receipt.verify(data, samples.DEVICE_PUBLIC)
    except (Malformed, Untrusted):
        return
    assert receipt.sign(read, samples.DEVICE) == data


def test_an_independent_cose_library_agrees() -> None:
    device = bytes(receipt.device_id(samples.DEVICE_PUBLIC))
    key = cwt.COSEKey.new({**cose.cose_key(samples.DEVICE_PUBLIC), 2: device, 3: cose.ED25519})
    body = cbor2.loads(cwt.COSE.new().decode(samples.CONFIRMED_BYTES, key))
    assert body[2] == samples.PRODUCT and body[10] == 0 and body[1] == receipt.FORMAT
