"""Fixed test keys and sample values of the protocol's formats. Every secret is a test vector."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from protocol import cose, manifest, payload, receipt, suit
from protocol.ids import Digest, ProductId, Version

REPO = Path(__file__).parents[2]
GOLDEN = REPO / "protocol" / "vectors"


def _secret(name: str) -> bytes:
    """A 32-byte secret that anyone can make again from its name."""
    return hashlib.sha256(b"firmledger test vector: " + name.encode()).digest()


SIGNING_SECRET = _secret("signing key")
SIGNING = cose.ed25519_private_key(SIGNING_SECRET)
SIGNING_PUBLIC = cose.public_key_of(SIGNING)
P256_SECRET = _secret("P-256 signing key")
P256 = cose.p256_private_key(P256_SECRET)
P256_PUBLIC = cose.public_key_of(P256)
STRANGER = cose.ed25519_private_key(_secret("stranger's signing key"))
KEYS = {key.id: key for key in (SIGNING_PUBLIC, P256_PUBLIC)}

CLASS_SECRET = _secret("class key")
CLASS_KEY = cose.p256_private_key(CLASS_SECRET)
CLASS_PUBLIC = cose.public_key_of(CLASS_KEY)
EPOCH = 3
KID = payload.class_kid(CLASS_PUBLIC, EPOCH)
EPHEMERAL_SECRET = _secret("ephemeral key")
CONTENT_KEY = _secret("content key")[:16]
IV = _secret("counter block")[:16]
INFO = payload.wrap(CONTENT_KEY, IV, CLASS_PUBLIC, KID, cose.p256_private_key(EPHEMERAL_SECRET))

PRODUCT = ProductId(_secret("product"))
IMAGE = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(4))
CIPHERTEXT = payload.Encryptor(CONTENT_KEY, IV).update(IMAGE)

MANIFEST = manifest.Manifest(
    product=PRODUCT,
    version=Version.parse("1.4.0"),
    security_counter=7,
    image_digest=Digest(hashlib.sha256(IMAGE).digest()),
    image_size=len(IMAGE),
    payload_digest=Digest(hashlib.sha256(CIPHERTEXT).digest()),
    encryption_info=INFO,
)
ENVELOPE = manifest.sign(manifest.build(MANIFEST), SIGNING)
P256_ENVELOPE = manifest.sign(manifest.build(MANIFEST), P256)

NOTES = {"en": "Fixes the frost guard.", "de": "Behebt den Frostschutz."}
TEXT = manifest.write_text(NOTES)
NOTED = replace(MANIFEST, text_digest=suit.digest_of(TEXT))
NOTED_ENVELOPE = manifest.sign(manifest.build(NOTED), SIGNING, text=TEXT)
SEVERED_ENVELOPE = manifest.sign(manifest.build(NOTED), SIGNING)

DEVICE_SECRET = _secret("device key")
DEVICE = cose.ed25519_private_key(DEVICE_SECRET)
DEVICE_PUBLIC = cose.public_key_of(DEVICE)

CONFIRMED = receipt.Receipt(
    product=PRODUCT,
    release=5,
    outcome=receipt.Outcome.CONFIRMED,
    reason="",
    version_before=Version.parse("1.3.9"),
    version_after=Version.parse("1.4.0"),
    counter_before=6,
    counter_after=7,
    height=123456,
    time=1_800_000_000,
    sequence=0,
)
CONFIRMED_BYTES = receipt.sign(CONFIRMED, DEVICE)
ROLLED_BACK = replace(
    CONFIRMED,
    release=6,
    outcome=receipt.Outcome.ROLLED_BACK,
    reason="health-check-failed",
    version_before=Version.parse("1.4.0"),
    counter_before=7,
    time=None,
    sequence=1,
    previous=receipt.receipt_digest(CONFIRMED_BYTES),
    consent=receipt.Consent("ward 3, night shift", 1_800_000_100),
)
ROLLED_BACK_BYTES = receipt.sign(ROLLED_BACK, DEVICE)
REFUSED = replace(
    ROLLED_BACK,
    release=0,
    outcome=receipt.Outcome.REFUSED,
    reason="manifest-digest",
    sequence=2,
    previous=receipt.receipt_digest(ROLLED_BACK_BYTES),
    node=b"valve-12",
    consent=None,
)
REFUSED_BYTES = receipt.sign(REFUSED, DEVICE)


def flips(data: bytes) -> Iterator[bytes]:
    """Every copy of ``data`` with exactly one bit changed."""
    for position in range(8 * len(data)):
        changed = bytearray(data)
        changed[position // 8] ^= 1 << position % 8
        yield bytes(changed)


def external(name: str) -> Any:
    """A vector file that is not ours to commit; the test is skipped where it is absent."""
    named = os.environ.get("FIRMLEDGER_VECTORS")
    places = (
        [Path(named)]
        if named
        else [REPO.parent / "shared" / "vectors", REPO.parents[1] / "shared" / "vectors"]
    )
    for place in places:
        if (place / name).is_file():
            return json.loads((place / name).read_text())
    pytest.skip(f"{name} is absent: point FIRMLEDGER_VECTORS at the folder that holds it")
