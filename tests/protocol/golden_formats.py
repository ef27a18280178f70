"""The golden vectors of manifest, payload and receipt, made from the samples.

``python -m tests.protocol.golden_formats --regen`` writes them; the tests compare. A change of a
vector is a change of a format: devices in the field hold to the old one.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from protocol import cose, manifest, payload, receipt
from tests.protocol import samples, tampering

_NOTE = "Test vector of Firmledger. Every secret in it is public: never use one for anything else."


def _manifest(envelope: bytes, secret: bytes, key: cose.PublicKey) -> dict[str, Any]:
    verified = manifest.verify(envelope, samples.KEYS)
    said = verified.manifest
    return {
        "note": _NOTE,
        "signing_secret": secret.hex(),
        "signing_key": cose.public_key_to_bytes(key).hex(),
        "key_id": verified.key_id.hex(),
        "product": said.product.hex(),
        "vendor_id": str(manifest.VENDOR_ID),
        "class_id": str(manifest.class_id(said.product)),
        "version": str(said.version),
        "sequence_number": str(int(said.version)),
        "security_counter": said.security_counter,
        "image_digest": said.image_digest.hex(),
        "image_size": said.image_size,
        "payload_digest": said.payload_digest.hex(),
        "key_epoch": said.key_epoch,
        "encryption_info": said.encryption_info.hex(),
        "notes": dict(verified.notes),
        "manifest": manifest.build(said).hex(),
        "manifest_digest": verified.digest.hex(),
        "envelope": envelope.hex(),
    }


def _payload() -> dict[str, Any]:
    return {
        "note": _NOTE,
        "class_secret": samples.CLASS_SECRET.hex(),
        "class_key": cose.public_key_to_bytes(samples.CLASS_PUBLIC).hex(),
        "key_epoch": samples.EPOCH,
        "kid": samples.KID.hex(),
        "ephemeral_secret": samples.EPHEMERAL_SECRET.hex(),
        "kdf_context": payload.kdf_context().hex(),
        "content_key": samples.CONTENT_KEY.hex(),
        "iv": samples.IV.hex(),
        "encryption_info": samples.INFO.hex(),
        "image": samples.IMAGE.hex(),
        "payload": samples.CIPHERTEXT.hex(),
    }


def _receipt(data: bytes) -> dict[str, Any]:
    read = receipt.verify(data, samples.DEVICE_PUBLIC)
    consent = read.consent
    return {
        "note": _NOTE,
        "device_secret": samples.DEVICE_SECRET.hex(),
        "device_key": samples.DEVICE_PUBLIC.raw.hex(),
        "device_id": receipt.device_id(samples.DEVICE_PUBLIC).hex(),
        "product": read.product.hex(),
        "release": read.release,
        "outcome": str(read.outcome),
        "reason": read.reason,
        "version_before": str(read.version_before),
        "version_after": str(read.version_after),
        "counter_before": read.counter_before,
        "counter_after": read.counter_after,
        "height": read.height,
        "time": read.time,
        "sequence": read.sequence,
        "previous": read.previous.hex(),
        "node": None if read.node is None else read.node.hex(),
        "consent": None if consent is None else [consent.by, consent.at],
        "receipt": data.hex(),
        "receipt_digest": receipt.receipt_digest(data).hex(),
        "leaf": receipt.receipt_leaf(data).hex(),
    }


def _tampered(
    cases: dict[str, tuple[bytes, str]], keys: list[cose.PublicKey], longest: int
) -> dict[str, Any]:
    """Bytes that a verifier must refuse; ``reason`` is what we call it."""
    return {
        "note": _NOTE,
        "keys": [cose.public_key_to_bytes(key).hex() for key in keys],
        "cases": [
            {"name": name, "reason": reason, "data": data.hex()}
            for name, (data, reason) in sorted(cases.items())
            if len(data) <= longest
        ],
    }


def vectors() -> dict[str, dict[str, Any]]:
    """File name -> content of every golden vector of these formats."""
    signing = (samples.SIGNING_SECRET, samples.SIGNING_PUBLIC)
    return {
        "manifest-ed25519.json": _manifest(samples.ENVELOPE, *signing),
        "manifest-esp256.json": _manifest(
            samples.P256_ENVELOPE, samples.P256_SECRET, samples.P256_PUBLIC
        ),
        "manifest-notes.json": _manifest(samples.NOTED_ENVELOPE, *signing),
        "manifest-severed.json": _manifest(samples.SEVERED_ENVELOPE, *signing),
        "manifest-tampered.json": _tampered(
            tampering.envelopes(), list(samples.KEYS.values()), manifest.MAX_ENVELOPE_BYTES
        ),
        "payload-a128ctr.json": _payload(),
        "receipt-confirmed.json": _receipt(samples.CONFIRMED_BYTES),
        "receipt-rolled-back.json": _receipt(samples.ROLLED_BACK_BYTES),
        "receipt-refused.json": _receipt(samples.REFUSED_BYTES),
        "receipt-tampered.json": _tampered(
            tampering.receipts(), [samples.DEVICE_PUBLIC], receipt.MAX_RECEIPT_BYTES
        ),
    }


def _main() -> int:
    if sys.argv[1:] != ["--regen"]:
        print("usage: python -m tests.protocol.golden_formats --regen", file=sys.stderr)  # noqa: T201
        return 2
    for name, content in vectors().items():
        (samples.GOLDEN / name).write_text(json.dumps(content, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
