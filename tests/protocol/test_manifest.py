"""Manifests: every accept beside its tampered twin, and the draft's own examples."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, replace
from typing import Any

import cwt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose, manifest, payload, receipt, suit
from protocol.errors import FirmledgerError, Malformed, Misuse, Untrusted
from protocol.ids import KeyId, ProductId, Version
from tests.protocol import golden_formats, samples, structures, tampering
from tests.twin import verifier

OURS = {
    "Ed25519": samples.ENVELOPE,
    "ESP256": samples.P256_ENVELOPE,
    "with notes": samples.NOTED_ENVELOPE,
    "notes severed": samples.SEVERED_ENVELOPE,
}


# Accepting


def test_what_was_built_and_signed_is_what_is_verified() -> None:
    verified = manifest.verify(samples.ENVELOPE, samples.KEYS)
    assert verified.manifest == samples.MANIFEST
    assert verified.key_id == samples.SIGNING_PUBLIC.id
    assert verified.digest == manifest.manifest_digest(samples.ENVELOPE)
    assert verified.notes == {}
    assert manifest.verify(samples.P256_ENVELOPE, samples.KEYS).key_id == samples.P256_PUBLIC.id


def test_the_digest_depends_on_the_manifest_alone() -> None:
    assert manifest.manifest_digest(samples.P256_ENVELOPE) == manifest.manifest_digest(
        samples.ENVELOPE
    )
    severed = manifest.verify(samples.SEVERED_ENVELOPE, samples.KEYS)
    noted = manifest.verify(samples.NOTED_ENVELOPE, samples.KEYS)
    assert severed.digest == noted.digest and severed.manifest == noted.manifest
    assert (noted.notes, severed.notes) == (samples.NOTES, {})


def test_what_the_manifest_says_of_its_payload() -> None:
    said = manifest.verify(samples.ENVELOPE, samples.KEYS).manifest
    assert (said.kid, said.key_epoch) == (samples.KID, samples.EPOCH)
    assert said.payload_size == said.image_size == len(samples.CIPHERTEXT)


@given(
    product=st.binary(min_size=32, max_size=32).map(ProductId),
    version=st.integers(0, 2**64 - 1).map(Version),
    counter=st.integers(0, 2**32 - 1),
    size=st.integers(1, (2**32 - 1) * 16),
)
def test_round_trip(product: ProductId, version: Version, counter: int, size: int) -> None:
    said = replace(
        samples.MANIFEST, product=product, version=version, security_counter=counter,
        image_size=size,
    )  # fmt: skip
    assert manifest.parse(manifest.build(said)) == said


def test_the_spec_page_states_what_is_true() -> None:
    page = " ".join((samples.REPO / "docs/spec/manifest.md").read_text().split())
    said = replace(samples.MANIFEST, image_size=3_000_000)
    built = manifest.build(said)
    envelope = manifest.sign(built, samples.SIGNING)
    assert len(envelope) == len(manifest.sign(built, samples.P256))
    for stated in (
        f"has {len(envelope)} bytes for an image of 64 KiB to 4 GiB",
        f"manifest {len(built)}, of which encryption info {len(samples.INFO)}",
        f"{len(payload.kdf_context())} bytes: `{payload.kdf_context().hex()}`",
        f"`{manifest.VENDOR_ID}`",
        f"envelope {manifest.MAX_ENVELOPE_BYTES:,} bytes",
        f"release notes {manifest.MAX_NOTES_BYTES:,} bytes",
        f"language tag {manifest.MAX_LANGUAGE_BYTES}",
        f"encryption info {payload.MAX_INFO_BYTES}",
        f"at most {cbor.MAX_DEPTH}",
    ):
        assert stated in page


@pytest.mark.parametrize("name", sorted(golden_formats.vectors()))
def test_golden_vectors(name: str) -> None:
    golden = json.loads((samples.GOLDEN / name).read_text())
    assert golden == golden_formats.vectors()[name]


def test_an_independent_cose_library_agrees() -> None:
    """cwt verifies our signature, and we verify a signature cwt made without a key id."""
    opened = suit.open_envelope(samples.ENVELOPE, max_bytes=8192)
    ours = samples.SIGNING_PUBLIC
    public = cwt.COSEKey.new({**cose.cose_key(ours), 2: bytes(ours.id), 3: cose.ED25519})
    library = cwt.COSE.new()
    assert (
        library.decode(opened.block, public, detached_payload=opened.authenticated)
        == opened.authenticated
    )

    private = cwt.COSEKey.new(
        {**cose.cose_key(samples.P256_PUBLIC), -4: samples.P256_SECRET, 3: cose.ESP256}
    )
    attached = library.encode(opened.authenticated, private, protected={1: cose.ESP256})
    parts = cbor.loads(attached, max_bytes=256, tags=(cose.TAG_SIGN1,)).value
    parts[2] = None
    block = cbor.dumps(cbor.Tag(cose.TAG_SIGN1, parts))
    members = {2: cbor.dumps([opened.authenticated, block]), 3: opened.manifest}
    envelope = cbor.dumps(cbor.Tag(suit.TAG_ENVELOPE, members))
    assert manifest.verify(envelope, samples.KEYS).key_id == samples.P256_PUBLIC.id


# Refusing


@pytest.mark.parametrize("name", sorted(OURS))
def test_every_single_bit_flip_is_refused(name: str) -> None:
    for flipped in samples.flips(OURS[name]):
        with pytest.raises((Malformed, Untrusted)):
            manifest.verify(flipped, samples.KEYS)
    assert manifest.verify(OURS[name], samples.KEYS)


@pytest.mark.parametrize("name", sorted(tampering.envelopes()))
def test_tampered_envelopes(name: str) -> None:
    envelope, reason = tampering.envelopes()[name]
    with pytest.raises((Malformed, Untrusted)) as refusal:
        manifest.verify(envelope, samples.KEYS)
    assert refusal.value.reason == reason


@pytest.mark.parametrize("keys", [{}, {samples.P256_PUBLIC.id: samples.P256_PUBLIC}])
def test_a_key_not_given_signs_nothing(keys: Mapping[KeyId, cose.PublicKey]) -> None:
    with pytest.raises(Untrusted) as refusal:
        manifest.verify(samples.ENVELOPE, keys)
    assert refusal.value.reason == "unknown-key"


def test_every_cut_is_refused() -> None:
    for length in range(len(samples.NOTED_ENVELOPE)):
        with pytest.raises(FirmledgerError):
            manifest.verify(samples.NOTED_ENVELOPE[:length], samples.KEYS)


@given(st.binary(max_size=300))
def test_garbage_meets_only_our_error(data: bytes) -> None:
    for attempt in (data, bytes.fromhex("d86ba20258") + data, samples.ENVELOPE[:150] + data):
        with pytest.raises((Malformed, Untrusted)):
            manifest.verify(attempt, samples.KEYS)


@given(
    values=st.lists(
        st.none() | st.booleans() | st.integers(-300, 300) | st.binary(max_size=5)
        | st.lists(st.integers(0, 3), max_size=2)
        | st.dictionaries(st.integers(-256, 23), st.binary(max_size=3), max_size=2),
        min_size=6, max_size=7,
    )
)  # fmt: skip
def test_garbage_in_the_right_places_meets_only_our_error(values: list[Any]) -> None:
    keys = (1, 2, 3, 7, 9, 20, 23)
    with pytest.raises(Malformed):
        manifest.parse(cbor.dumps(dict(zip(keys, values, strict=False))))
    with pytest.raises(Malformed):
        manifest.parse(cbor.dumps(dict(zip(keys, map(cbor.dumps, values), strict=False))))


foreign_values = (
    st.none() | st.booleans() | st.integers(-300, 2**36) | st.binary(max_size=40)
    | st.text(max_size=8) | st.lists(st.integers(0, 3), max_size=2)
    | st.dictionaries(st.integers(-300, 300), st.binary(max_size=3), max_size=2)
    | st.builds(structures.Wrapped, st.lists(st.integers(0, 30), max_size=4))
)  # fmt: skip
NOTED_DEEP = structures.deep(cbor.loads(manifest.build(samples.NOTED), max_bytes=4096))


@given(st.integers(0, structures.places(NOTED_DEEP) - 1), foreign_values)
@settings(max_examples=500)
def test_any_part_replaced_and_genuinely_signed(place: int, value: Any) -> None:
    """Whatever a key holder signs is refused, or says in full what it means."""
    changed = cbor.dumps(structures.shallow(structures.replaced(NOTED_DEEP, place, value)))
    try:
        verified = manifest.verify(tampering.signed(changed), samples.KEYS)
    except (Malformed, Untrusted):
        return
    assert manifest.build(verified.manifest) == changed


def test_values_that_no_manifest_can_hold() -> None:
    for change in (
        {"security_counter": 2**32},
        {"security_counter": -1},
        {"image_size": 0},
        {"image_size": 2**36},
        {"encryption_info": b""},
        {"encryption_info": samples.INFO[:-1]},
    ):
        with pytest.raises(Malformed):
            replace(samples.MANIFEST, **change)
    with pytest.raises(FrozenInstanceError):
        samples.MANIFEST.security_counter = 9  # type: ignore[misc]


def test_signing_refuses_what_verifying_would() -> None:
    built = manifest.build(samples.MANIFEST)
    with pytest.raises(Misuse):
        manifest.sign(built, samples.SIGNING, text=samples.TEXT)
    with pytest.raises(Malformed):
        manifest.sign(built[:-1], samples.SIGNING)
    with pytest.raises(Misuse):
        manifest.sign(built, cose.Signer(samples.SIGNING_PUBLIC, lambda message: b""))
    for notes in ({}, {"": "x"}, {"en": "x" * 2049}, {"x" * 36: "x"}):
        with pytest.raises(Misuse):
            manifest.write_text(notes)
    long = manifest.write_text(dict.fromkeys(("de", "en", "fr", "it"), "x" * 2048))
    named = replace(samples.MANIFEST, text_digest=suit.digest_of(long))
    with pytest.raises(Misuse):
        manifest.sign(manifest.build(named), samples.SIGNING, text=long)


# Keys


def test_keys_have_one_encoding() -> None:
    for key in (samples.SIGNING_PUBLIC, samples.P256_PUBLIC):
        encoded = cose.public_key_to_bytes(key)
        assert cose.public_key_from_bytes(encoded) == key
        assert key.id == cose.key_id(key)
        accepted = {cose.public_key_from_bytes(encoded)}
        for flipped in samples.flips(encoded):
            try:
                other = cose.public_key_from_bytes(flipped)
            except Malformed:
                continue
            assert cose.public_key_to_bytes(other) == flipped and other not in accepted


def test_thumbprint_example_of_rfc_9679() -> None:
    """RFC 9679 section 6: the only public example of a COSE Key Thumbprint."""
    x = bytes.fromhex("65eda5a12577c2bae829437fe338701a10aaa375e1bb5b5de108de439c08551d")
    y = bytes.fromhex("1e52ed75701163f7f9e40ddf9f341b3dc9ba860af7e0ca7ca7e9eecd0084d19c")
    key = cose.PublicKey(cose.Curve.P256, x + y)
    assert key.id.hex() == "496bd8afadf307e5b08c64b0421bf9dc01528a344a43bda88fadd1669da253ec"


def test_bad_keys_are_refused() -> None:
    p256 = samples.P256_PUBLIC.raw
    for curve, raw in (
        (cose.Curve.ED25519, b"x" * 31),
        (cose.Curve.P256, p256[:-1]),
        (cose.Curve.P256, bytes(64)),
        (cose.Curve.P256, p256[:-1] + bytes((p256[-1] ^ 1,))),
        (cose.Curve.P256, b"\xff" * 64),
    ):
        with pytest.raises(Malformed):
            cose.PublicKey(curve, raw)
    for secret in (bytes(32), b"\xff" * 32, b"x"):
        with pytest.raises(Malformed):
            cose.p256_private_key(secret)
    with pytest.raises(Malformed):
        cose.ed25519_private_key(b"x")


SMALL_ORDER = [
    y + sign
    for y, signs in (
        ("0100000000000000000000000000000000000000000000000000000000000000", "0"),
        ("ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f", "0"),
        ("0000000000000000000000000000000000000000000000000000000000000000", "01"),
        ("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05", "01"),
        ("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a", "01"),
    )
    for sign in signs
]
"""The eight points whose order divides 8, and the sign of x."""


@pytest.mark.parametrize("text", SMALL_ORDER)
def test_ed25519_keys_of_small_order_are_no_keys(text: str) -> None:
    number = int.from_bytes(bytes.fromhex(text[:64]), "little") | int(text[64]) << 255
    raw = number.to_bytes(32, "little")
    for read in (lambda: cose.PublicKey(cose.Curve.ED25519, raw), lambda: receipt.device_id(raw)):
        with pytest.raises(Malformed) as caught:
            read()
        assert caught.value.reason == "bad-key" and "small order" in caught.value.why
    with pytest.raises(verifier.Refusal):
        verifier.edwards_key(raw)


def test_what_is_no_point_in_its_one_encoding_is_no_ed25519_key() -> None:
    """A y from p on, a sign where x is 0, and half of all other numbers; the twin agrees."""
    prime = 2**255 - 19
    numbers = [*range(prime - 30, 2**255), *range(40), *(1 << 255 | y for y in (1, 4, prime - 1))]
    accepted = set()
    for number in numbers:
        raw = number.to_bytes(32, "little")
        try:
            cose.PublicKey(cose.Curve.ED25519, raw)
            accepted.add(number)
        except Malformed:
            with pytest.raises(verifier.Refusal):
                verifier.edwards_key(raw)
        else:
            verifier.edwards_key(raw)
    assert {3, 4, 1 << 255 | 4} <= accepted and not {0, 1, 2, 1 << 255 | 1} & accepted
    assert max(number for number in accepted if number < 1 << 255) < prime - 1


def test_a_key_has_one_encoding() -> None:
    raw = cose.public_key_to_bytes(samples.SIGNING_PUBLIC)
    assert cose.public_key_from_bytes(raw) == samples.SIGNING_PUBLIC
    with pytest.raises(Malformed) as caught:  # 1: true, which equals 1 where it is compared
        cose.public_key_from_bytes(raw.replace(b"\xa3\x01\x01", b"\xa3\x01\xf5"))
    assert caught.value.reason == "bad-key"


# The SUIT draft's own examples


def draft_keys(examples: Any) -> dict[KeyId, cose.PublicKey]:
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    private = load_pem_private_key(examples["test_private_key_pem"].encode(), None)
    key = cose.public_key_of(private)  # type: ignore[arg-type]
    return {key.id: key}


def test_six_examples_of_the_manifest_draft() -> None:
    examples = samples.external("suit-manifest-37.json")
    keys = draft_keys(examples)
    assert len(examples["envelopes_hex"]) == 6
    for number, text in enumerate(examples["envelopes_hex"]):
        opened = suit.open_envelope(bytes.fromhex(text), max_bytes=2048)
        assert suit.authenticate(opened, keys) in keys
        assert opened.elements[suit.SEQUENCE_NUMBER] == number
        assert set(opened.severable) == ({suit.INSTALL, suit.TEXT} if number == 2 else set())
        with pytest.raises(Untrusted):
            suit.authenticate(opened, samples.KEYS)
        with pytest.raises(Malformed):
            manifest.verify(bytes.fromhex(text), keys)


def test_every_bit_flip_of_the_drafts_examples_is_refused() -> None:
    examples = samples.external("suit-manifest-37.json")
    keys = draft_keys(examples)
    for text in examples["envelopes_hex"]:
        for flipped in samples.flips(bytes.fromhex(text)):
            with pytest.raises((Malformed, Untrusted)):
                suit.authenticate(suit.open_envelope(flipped, max_bytes=2048), keys)
