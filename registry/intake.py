"""Intake, at the publisher's side: firmware becomes a signed envelope and an encrypted payload.

Three files come out, beside each other:

============  =====================================================================================
``r1.bin``    the payload: the image under AES-128-CTR and a key drawn for this build alone
``r1.suit``   the signed SUIT envelope, as any SUIT tool reads it
``r1.json``   what SUIT has no words for: terms, signer, and the approvals collected so far
============  =====================================================================================

Guarantees: a build is there whole or not at all (``r1.suit`` appears last); memory does not grow
with the image; a `Draft` that was opened is one whose envelope, terms and payload say the same, so
nobody approves one thing and publishes another.

Rules: key, IV and ephemeral key come fresh from ``entropy`` for every build and are kept nowhere.
All approvals of a draft share one ``valid_until`` and epoch, since the contract takes one for all.

Not here: whether the ledger will accept it (version, counter, epoch): it says so itself.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from protocol import cose, manifest, payload
from protocol.bundle import Static
from protocol.errors import LocalFault, Malformed, Misuse, Untrusted
from protocol.ids import Address, Digest, ProductId, Version
from protocol.manifest import Manifest
from protocol.records import Approval, Ledger, Phase, Terms
from registry.approvals import Approvals, gather, recover
from registry.files import whole_file
from registry.keys import Account, Entropy, ProductKeys, draw_p256

DRAFT_FORMAT = "firmledger-draft-1"
CHUNK = 1 << 20
MAX_DRAFT_BYTES = 64 * 1024
APPROVAL_SECONDS = 30 * 86_400

Progress = Callable[[int], None]


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


@dataclass(frozen=True, slots=True)
class Agreed:
    """The approvals collected so far, all under one epoch and one last second of validity."""

    epoch: int
    approvals: Approvals

    def signers(self, ledger: Ledger, terms: Terms) -> list[Address]:
        """Who signed, ascending; `Untrusted` if one of the signatures is none."""
        message = Approval(terms, self.epoch, self.approvals.valid_until)
        return [recover(ledger.digest(message), s) for s in self.approvals.signatures]

    def to_json(self) -> dict[str, Any]:
        """For the draft file and the API."""
        return {"epoch": self.epoch, "approvals": self.approvals.to_json()}

    @classmethod
    def from_json(cls, text: Any) -> Self:
        """The inverse of `to_json`; raises KeyError, TypeError, ValueError or `Malformed`."""
        return cls(int(text["epoch"]), Approvals.from_json(text["approvals"]))


@dataclass(frozen=True, slots=True)
class Draft:
    """A release that was built and is not published yet."""

    path: Path
    ledger: Ledger
    product_name: str
    envelope: bytes
    signer: bytes
    terms: Terms
    payload_digest: Digest
    agreed: Agreed | None = None

    @property
    def payload_path(self) -> Path:
        """The encrypted payload beside the envelope."""
        return self.path.with_suffix(".bin")

    @property
    def static(self) -> Static:
        """The bundle's part that never changes."""
        return Static(self.envelope, self.signer, self.terms)

    def to_json(self) -> dict[str, Any]:
        """What stands in the file beside the envelope."""
        return {
            "format": DRAFT_FORMAT,
            "product": {"id": "0x" + self.terms.product_id.hex(), "name": self.product_name},
            "chain_id": self.ledger.chain_id,
            "contract": str(self.ledger.contract),
            "signer": self.signer.hex(),
            "terms": self.terms.to_json(),
            "agreed": self.agreed.to_json() if self.agreed else None,
        }

    def save(self) -> None:
        """Writes the file beside the envelope anew, in one step."""
        with whole_file(self.path.with_suffix(".json")) as file:
            file.write(json.dumps(self.to_json(), indent=2).encode() + b"\n")

    def approved_by(self, account: Account, epoch: int, now: int) -> Draft:
        """With this account's approval added; the draft is not saved yet. `Misuse` if it cannot be.

        A change of epoch on the ledger voids the approvals collected before, so they are dropped.
        """
        agreed, terms = self.agreed, self.terms
        if agreed is None or agreed.epoch != epoch or agreed.approvals.valid_until <= now:
            agreed = Agreed(epoch, Approvals(now + APPROVAL_SECONDS, ()))
        if account.address in agreed.signers(self.ledger, terms):
            raise Misuse(
                "already-approved",
                f"approval by {account.name} refused",
                "it is there already",
                "let another approver sign",
            )
        until = agreed.approvals.valid_until
        digest = self.ledger.digest(Approval(terms, epoch, until))
        signatures = (*agreed.approvals.signatures, account.sign(digest))
        together = Agreed(epoch, gather(digest, until, signatures))
        return dataclasses.replace(self, agreed=together)


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


def open_draft(path: Path, *, progress: Progress = lambda _bytes: None) -> Draft:
    """The draft whose envelope is ``path``, once its three files were seen to belong together.

    `Misuse` if one is missing, `Malformed` or `Untrusted` if they disagree.
    """
    beside = path.with_suffix(".json")
    envelope = _read(path, manifest.MAX_ENVELOPE_BYTES)
    draft = _parse_draft(path, envelope, _read(beside, MAX_DRAFT_BYTES))
    signer = cose.public_key_from_bytes(draft.signer)
    signed = manifest.verify(envelope, {signer.id: signer})
    _check_agreement(signed, draft.terms)
    digest, size = _digest_of(draft.payload_path, signed.manifest.payload_size, progress)
    if (digest, size) != (signed.manifest.payload_digest, signed.manifest.payload_size):
        raise Untrusted(
            "payload-digest",
            f"{draft.payload_path} refused",
            "it is not the payload that the envelope names",
            "build the release again",
        )
    return dataclasses.replace(draft, payload_digest=digest)


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


def _check_agreement(signed: manifest.Verified, terms: Terms) -> None:
    inside = signed.manifest
    pairs = {
        "product": (inside.product, terms.product_id),
        "version": (inside.version, terms.version),
        "security counter": (inside.security_counter, terms.security_counter),
        "image digest": (inside.image_digest, terms.image_digest),
        "image size": (inside.image_size, terms.image_size),
        "key epoch": (inside.key_epoch, terms.key_epoch),
        "manifest digest": (signed.digest, terms.manifest_digest),
    }
    for name, (in_manifest, in_terms) in pairs.items():
        if in_manifest != in_terms:
            raise Untrusted(
                "manifest-disagrees",
                "release refused",
                f"its envelope and its terms differ in the {name}",
                "build the release again",
            )


def _parse_draft(path: Path, envelope: bytes, beside: bytes) -> Draft:
    try:
        text = json.loads(beside)
        if text["format"] != DRAFT_FORMAT:
            raise ValueError(f"its format is {text['format']!r}")
        agreed = text["agreed"]
        terms = Terms.from_json(text["terms"])
        if ProductId.parse(text["product"]["id"]) != terms.product_id:
            raise ValueError("its terms are of another product")
        return Draft(
            path=path,
            ledger=Ledger(int(text["chain_id"]), Address.parse(text["contract"])),
            product_name=str(text["product"]["name"]),
            envelope=envelope,
            signer=bytes.fromhex(text["signer"]),
            terms=terms,
            payload_digest=Digest(bytes(32)),
            agreed=None if agreed is None else Agreed.from_json(agreed),
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, Malformed) as fault:
        raise Malformed(
            "bad-draft",
            f"{path.with_suffix('.json')} refused",
            f"it is not what `release build` wrote: {fault}",
            "build the release again",
        ) from fault


def _read(path: Path, most: int) -> bytes:
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except FileNotFoundError:
        raise Misuse(
            "no-such-draft",
            f"{path} not used",
            "it is not there",
            "give the .suit file that `release build` wrote, with its .json and .bin beside it",
        ) from None
    except OSError as fault:
        raise LocalFault("file-unreadable", f"{path} not read", str(fault), "check it") from fault
    if len(data) > most:
        raise Malformed(
            "oversized", f"{path} refused", f"it has more than {most} bytes", "check the file"
        )
    return data


def _digest_of(path: Path, most: int, progress: Progress) -> tuple[Digest, int]:
    """SHA-256 and size of a file, read no further than one byte past ``most``."""
    digest, size = hashlib.sha256(), 0
    try:
        with path.open("rb") as file:
            while size <= most and (chunk := file.read(min(CHUNK, most + 1 - size))):
                digest.update(chunk)
                size += len(chunk)
                progress(size)
    except FileNotFoundError:
        raise Misuse(
            "payload-missing", f"{path} not used", "it is not there", "keep it beside the .suit"
        ) from None
    except OSError as fault:
        raise LocalFault("file-unreadable", f"{path} not read", str(fault), "check it") from fault
    return Digest(digest.digest()), size
