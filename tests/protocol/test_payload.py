"""Payloads: wrapping, streaming from any offset, and the encryption draft's own examples."""

from __future__ import annotations

import contextlib
import hmac
from typing import Any

import cwt
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import cbor, cose, payload, suit
from protocol.errors import FirmledgerError, Malformed, Misuse, Refused, Untrusted
from tests.protocol import samples, structures
from tests.protocol.test_manifest import draft_keys, foreign_values

# The outer envelope of the draft's dependency example is signed by the key its earlier revisions
# delegate to (draft-ietf-suit-firmware-encryption, suit-manifest-es-ecdh-dependency).
DELEGATED = cose.PublicKey(
    cose.Curve.P256,
    bytes.fromhex(
        "0e908aa8f066db1f084e0c3652c63952bd99f2a5bdb22f9e01367aad03aba68b"
        "77da1bd8ac4f0cb490ba210648bf79ab164d49ad3551d71d314b2749ee42d29a"
    ),
)


# The wrapped key


def test_the_holder_of_the_class_key_gets_content_key_and_iv() -> None:
    opened = payload.unwrap(samples.INFO, samples.CLASS_KEY, samples.KID)
    assert opened == (samples.CONTENT_KEY, samples.IV)


def test_key_ids_name_epoch_and_key() -> None:
    assert payload.kid_epoch(samples.KID) == samples.EPOCH
    assert samples.KID[4:] == samples.CLASS_PUBLIC.id[:12]
    assert payload.class_kid(samples.CLASS_PUBLIC, samples.EPOCH + 1) != samples.KID
    for epoch in (-1, 2**32):
        with pytest.raises(Misuse):
            payload.class_kid(samples.CLASS_PUBLIC, epoch)


def test_another_epoch_is_refused_by_name() -> None:
    held = payload.class_kid(samples.CLASS_PUBLIC, samples.EPOCH + 1)
    with pytest.raises(Refused) as refusal:
        payload.unwrap(samples.INFO, samples.CLASS_KEY, held)
    assert refusal.value.reason == "class-key-epoch"
    assert refusal.value.data == {"needed_epoch": samples.EPOCH, "held_epoch": samples.EPOCH + 1}


def test_another_key_opens_nothing() -> None:
    with pytest.raises(Untrusted) as refusal:
        payload.unwrap(samples.INFO, samples.P256, samples.KID)
    assert refusal.value.reason == "class-key-mismatch"


def test_no_bit_flip_yields_the_content_key() -> None:
    """The info is signed with the manifest; by itself only the IV is free to change."""
    for flipped in samples.flips(samples.INFO):
        try:
            key, iv = payload.unwrap(flipped, samples.CLASS_KEY, samples.KID)
        except (Malformed, Refused, Untrusted):
            continue
        assert key == samples.CONTENT_KEY and iv != samples.IV


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("40a20139fffd", "40a2013a00010000"),  # another content algorithm
        ("44a101381c", "44a101381e"),  # another key agreement
        ("a2045000", "a30301045000"),  # one header parameter more
        ("f681", "4081"),  # an empty ciphertext in place of a detached one
        ("d860", "d862"),  # another tag
    ],
)
def test_other_forms_are_refused(old: str, new: str) -> None:
    assert old in samples.INFO.hex()
    changed = bytes.fromhex(samples.INFO.hex().replace(old, new, 1))
    with pytest.raises(Malformed):
        payload.parse_info(changed)


def test_wrapping_refuses_wrong_lengths() -> None:
    key = samples.P256
    for content_key, iv, kid in (
        (b"x", samples.IV, samples.KID),
        (samples.CONTENT_KEY, b"x", samples.KID),
        (samples.CONTENT_KEY, samples.IV, b"x"),
    ):
        with pytest.raises(Misuse):
            payload.wrap(content_key, iv, samples.CLASS_PUBLIC, kid, key)
    with pytest.raises(Malformed):
        payload.wrap(samples.CONTENT_KEY, samples.IV, samples.SIGNING_PUBLIC, samples.KID, key)


@given(st.binary(max_size=200))
def test_garbage_meets_only_our_error(data: bytes) -> None:
    for attempt in (data, samples.INFO[:40] + data):
        with pytest.raises(FirmledgerError):
            payload.unwrap(attempt, samples.CLASS_KEY, samples.KID)


INFO_DEEP = structures.deep(
    cbor.loads(samples.INFO, max_bytes=payload.MAX_INFO_BYTES, tags=(payload.TAG_ENCRYPT,))
)


@given(st.integers(0, structures.places(INFO_DEEP) - 1), foreign_values)
@settings(max_examples=300)
def test_any_part_replaced(place: int, value: Any) -> None:
    changed = cbor.dumps(structures.shallow(structures.replaced(INFO_DEEP, place, value)))
    with contextlib.suppress(Malformed, Refused, Untrusted):
        key, _ = payload.unwrap(changed, samples.CLASS_KEY, samples.KID)
        assert key == samples.CONTENT_KEY


# The stream


@given(st.binary(max_size=400), st.integers(0, 400), st.lists(st.integers(0, 50), max_size=12))
def test_resumes_at_any_byte_in_any_pieces(image: bytes, start: int, cuts: list[int]) -> None:
    ciphertext = payload.Encryptor(samples.CONTENT_KEY, samples.IV).update(image)
    assert len(ciphertext) == len(image)
    start = min(start, len(image))
    decryptor = payload.Decryptor(samples.CONTENT_KEY, samples.IV, start)
    out, at = b"", start
    for cut in [*cuts, len(image)]:
        out += decryptor.update(ciphertext[at : at + cut])
        at += cut
    assert out == image[start:]


def test_the_counter_block_wraps_as_one_128_bit_number() -> None:
    iv = b"\xff" * 16
    whole = payload.Encryptor(samples.CONTENT_KEY, iv).update(bytes(64))
    assert payload.Encryptor(samples.CONTENT_KEY, iv, 16).update(bytes(48)) == whole[16:]
    assert payload.Encryptor(samples.CONTENT_KEY, bytes(16)).update(bytes(48)) == whole[16:]


def test_offsets_and_lengths_are_bounded() -> None:
    last = payload.MAX_PAYLOAD_BYTES
    at_the_end = payload.Decryptor(samples.CONTENT_KEY, samples.IV, last - 1)
    assert len(at_the_end.update(b"x")) == 1
    with pytest.raises(Misuse):
        at_the_end.update(b"x")
    for key, iv, offset in (
        (b"x", samples.IV, 0),
        (samples.CONTENT_KEY, b"x", 0),
        (samples.CONTENT_KEY, samples.IV, -1),
        (samples.CONTENT_KEY, samples.IV, last + 1),
    ):
        with pytest.raises(Misuse):
            payload.Decryptor(key, iv, offset)


# The encryption draft's own examples


def gcm_decrypt(info: payload.EncryptionInfo, key: bytes, ciphertext: bytes) -> bytes:
    """AES-GCM over the Enc_structure of RFC 9052 section 5.3."""
    aad = cbor.dumps(["Encrypt", info.content_protected, b""])
    return AESGCM(key).decrypt(info.iv, ciphertext, aad)


def receiver(vectors: Any) -> Any:
    return cose.p256_private_key(bytes.fromhex(vectors["test_receiver_p256_private"]["d"]))


def test_four_examples_decrypt() -> None:
    vectors = samples.external("suit-firmware-encryption.json")
    plaintext = vectors["plaintext_ascii"].encode()
    kek = bytes.fromhex(vectors["test_kek_a128kw_hex"])
    algorithms = set()
    for case in vectors["cases"]:
        info = payload.read_info(bytes.fromhex(case["encryption_info_hex"]))
        ciphertext = bytes.fromhex(case["ciphertext_hex"])
        ecdh = info.recipient_algorithm == payload.ECDH_ES_A128KW
        key = payload.unwrap_key(info, receiver(vectors) if ecdh else kek)
        if info.content_algorithm == payload.A128CTR:
            assert payload.Decryptor(key, info.iv).update(ciphertext) == plaintext
        else:
            assert gcm_decrypt(info, key, ciphertext) == plaintext
        algorithms.add((info.recipient_algorithm, info.content_algorithm))
        with pytest.raises(Malformed):
            payload.parse_info(bytes.fromhex(case["encryption_info_hex"]))
        with pytest.raises((Malformed, Untrusted)):
            payload.unwrap_key(info, samples.CLASS_KEY if ecdh else bytes(16))
        with pytest.raises(Malformed):
            payload.unwrap_key(info, kek if ecdh else receiver(vectors))
    assert algorithms == {
        (recipient, content)
        for recipient in (payload.A128KW, payload.ECDH_ES_A128KW)
        for content in (payload.A128CTR, payload.A128GCM)
    }


def mac_holds(opened: suit.Envelope, key: bytes) -> bool:
    """COSE_Mac0 with HMAC 256/256 (RFC 9052 section 6.2), which three of the examples use."""
    tag = cbor.loads(opened.block, max_bytes=256, tags=(17,))
    protected, unprotected, content, mac = tag.value
    assert (unprotected, content, cbor.loads(protected, max_bytes=16)) == ({}, None, {1: 5})
    structure = cbor.dumps(["MAC0", protected, b"", opened.authenticated])
    return hmac.compare_digest(hmac.digest(key, structure, "sha256"), mac)


def test_five_signed_manifests_verify() -> None:
    vectors = samples.external("suit-firmware-encryption.json")
    keys = draft_keys(samples.external("suit-manifest-37.json"))
    keys[DELEGATED.id] = DELEGATED
    envelopes = {
        name: bytes.fromhex(text) for name, text in vectors["signed_manifests_hex"].items()
    }
    assert len(envelopes) == 5
    for name, envelope in envelopes.items():
        opened = suit.open_envelope(envelope, max_bytes=2048)
        if "aes-kw" in name:
            assert mac_holds(opened, b"a" * 32) and not mac_holds(opened, b"b" * 32)
            continue
        assert suit.authenticate(opened, keys) in keys
        for nested in opened.integrated.values():
            dependency = suit.open_envelope(nested, max_bytes=1024)
            assert suit.authenticate(dependency, keys) in keys
            assert opened.manifest.count(dependency.digest) == 1


def test_the_signed_manifests_carry_what_decrypts() -> None:
    """Encryption info and content of the two ECDH manifests, taken from their install sequences."""
    vectors = samples.external("suit-firmware-encryption.json")
    for name in ("suit-manifest-es-ecdh-content", "suit-manifest-es-ecdh-dependency"):
        envelope = bytes.fromhex(vectors["signed_manifests_hex"][name])
        install = suit.open_envelope(envelope, max_bytes=2048).elements[suit.INSTALL]
        parameters = cbor.loads(install, max_bytes=1024)[3]
        info = payload.read_info(parameters[suit.ENCRYPTION_INFO])
        key = payload.unwrap_key(info, receiver(vectors))
        assert info.kid == vectors["test_receiver_p256_private"]["kid"].encode()
        assert gcm_decrypt(info, key, parameters[18]) == vectors["plaintext_ascii"].encode()


def test_an_independent_cose_library_decrypts_ours() -> None:
    recipient = cwt.COSEKey.new(
        {
            **cose.cose_key(samples.CLASS_PUBLIC),
            -4: samples.CLASS_SECRET,
            2: samples.KID,
            3: payload.ECDH_ES_A128KW,
        }
    )
    context = {
        "alg": "A128KW",
        "supp_pub": {
            "key_data_length": 128,
            "protected": {"alg": "ECDH-ES+A128KW"},
            "other": "SUIT Payload Encryption",
        },
    }
    plaintext = cwt.COSE.new().decode(
        samples.INFO,
        recipient,
        context=context,
        detached_payload=samples.CIPHERTEXT,
        enable_non_aead=True,
    )
    assert plaintext == samples.IMAGE
