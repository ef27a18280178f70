"""Intake, at the publisher's side: firmware becomes a signed envelope and an encrypted payload.

Three files come out, beside each other:

============  =====================================================================================
``r1.bin``    the payload: the image under AES-128-CTR and a key drawn for this build alone
``r1.suit``   the signed SUIT envelope, as any SUIT tool reads it
``r1.json``   what SUIT has no words for: terms, signer, and the approvals collected so far
============  =====================================================================================

Guarantees: a build is there whole or not at all (``r1.suit`` appears last); memory does not grow
with the image.

Rules: key, IV and ephemeral key come fresh from ``entropy`` for every build and are kept nowhere.

Not here: whether the ledger will accept it (version, counter, epoch): it says so itself.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from protocol import cose, manifest, payload
from protocol.errors import LocalFault, Misuse
from protocol.ids import Digest, Version
from protocol.manifest import Manifest
from protocol.records import Phase, Terms
from registry.draft import CHUNK, Draft, Progress, open_draft
from registry.files import whole_file
from registry.keys import Entropy, ProductKeys, draw_p256

__all__ = ["CHUNK", "Conditions", "Draft", "build", "open_draft"]


@dataclass(frozen=True, slots=True)
class Conditions:
    """What the author of a release decides; the rest of its terms follows from image and keys."""

    version: Version
    security_counter: int
    rollout: tuple[Phase, ...]
    hardware: tuple[int, int]
    min_version: int = 0
    not_before: int = 0
    expiry: int = 0
    required_attestations: int = 0
    critical: bool = False


def build(
    firmware: Path,
    out: Path,
    keys: ProductKeys,
    conditions: Conditions,
    *,
    entropy: Entropy,
    progress: Progress = lambda _bytes: None,
) -> Draft:
    """Encrypts ``firmware`` and writes the three files under the prefix ``out``.

    ``progress`` is told the bytes done. `Misuse` if files are in the way or the image cannot be,
    `LocalFault` if it cannot be read or written; then nothing is left behind.
    """
    target = out.with_name(out.name + ".suit")
    for path in (target, target.with_suffix(".json"), target.with_suffix(".bin")):
        if path.exists():
            raise Misuse(
                "output-exists",
                f"{firmware} not built",
                f"{path} is there already",
                "choose another name with -o, or remove it",
            )
    class_key = keys.class_key
    content_key, iv = entropy(payload.KEY_BYTES), entropy(payload.BLOCK_BYTES)
    ephemeral = cose.p256_private_key(draw_p256(entropy))
    info = payload.wrap(content_key, iv, class_key.public, class_key.kid, ephemeral)
    cipher = payload.Encryptor(content_key, iv)
    with whole_file(target.with_suffix(".bin")) as sink:
        image = _encrypt(firmware, sink, cipher, progress)
    try:
        signed = Manifest(
            keys.product,
            conditions.version,
            conditions.security_counter,
            image.digest,
            image.size,
            image.payload_digest,
            info,
        )
        envelope = manifest.sign(manifest.build(signed), keys.signer)
        draft = Draft(
            path=target,
            ledger=keys.ledger,
            product_name=keys.name,
            envelope=envelope,
            signer=cose.public_key_to_bytes(keys.signer.public),
            terms=_terms(signed, manifest.manifest_digest(envelope), conditions),
            payload_digest=image.payload_digest,
        )
        draft.save()
        with whole_file(target) as file:
            file.write(envelope)
    except BaseException:
        target.with_suffix(".bin").unlink(missing_ok=True)
        target.with_suffix(".json").unlink(missing_ok=True)
        raise
    return draft


@dataclass(frozen=True, slots=True)
class _Image:
    digest: Digest
    size: int
    payload_digest: Digest


def _encrypt(
    firmware: Path, sink: IO[bytes], cipher: payload.Encryptor, progress: Progress
) -> _Image:
    plain, secret, size = hashlib.sha256(), hashlib.sha256(), 0
    for chunk in _chunks(firmware):
        plain.update(chunk)
        encrypted = cipher.update(chunk)
        secret.update(encrypted)
        sink.write(encrypted)
        size += len(chunk)
        progress(size)
    if size == 0:
        raise Misuse(
            "empty-image", f"{firmware} not built", "it has no bytes", "check the firmware file"
        )
    return _Image(Digest(plain.digest()), size, Digest(secret.digest()))


def _chunks(firmware: Path) -> Iterator[bytes]:
    try:
        with firmware.open("rb") as source:
            while chunk := source.read(CHUNK):
                yield chunk
    except OSError as fault:
        raise LocalFault(
            "firmware-unreadable", f"{firmware} not built", str(fault), "check its name and rights"
        ) from fault


def _terms(signed: Manifest, digest: Digest, conditions: Conditions) -> Terms:
    low, high = conditions.hardware
    return Terms(
        product_id=signed.product,
        version=int(signed.version),
        security_counter=signed.security_counter,
        image_digest=signed.image_digest,
        manifest_digest=digest,
        image_size=signed.image_size,
        hardware_min=low,
        hardware_max=high,
        min_version=conditions.min_version,
        not_before=conditions.not_before,
        expiry=conditions.expiry,
        required_attestations=conditions.required_attestations,
        critical=conditions.critical,
        key_epoch=signed.key_epoch,
        rollout=conditions.rollout,
    )
