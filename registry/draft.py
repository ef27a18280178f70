"""Drafts: releases that were built and are not published yet, in three files beside each other.

Guarantees: a `Draft` that was opened is one whose envelope, terms and payload say the same, so
nobody approves one thing and publishes another. Saving replaces the file beside the envelope in
one step.

Rules: all approvals of a draft share one ``valid_until`` and epoch, since the contract takes one
for all; a change of the product's approvers voids them.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from protocol import cose, manifest
from protocol.bundle import Static
from protocol.errors import LocalFault, Malformed, Misuse, Untrusted
from protocol.ids import Address, Digest, ProductId
from protocol.records import Approval, Ledger, Terms
from registry.approvals import Approvals, gather, recover
from registry.depth import read_json
from registry.files import whole_file
from registry.keys import Account

DRAFT_FORMAT = "firmledger-draft-1"
CHUNK = 1 << 20
MAX_DRAFT_BYTES = 64 * 1024
APPROVAL_SECONDS = 30 * 86_400

Progress = Callable[[int], None]


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
        text = read_json(beside)
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
    except (ValueError, KeyError, TypeError, AttributeError, Malformed) as fault:
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
