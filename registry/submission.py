"""Submission, at the service's side: an envelope, its terms and approvals become a publication.

Guarantees: what is taken is complete (the payload is in the store) and would be accepted by a
device once the ledger has it: manifest, signature, signing key and terms are checked by the
device's own steps (`protocol.bundle.offer`). Taking the same release twice is taking it once.

Rules: the store comes first, the ledger second: a published release can be served at once.
Approvals are the contract's to judge; a publication short of them ends as the ledger's refusal.

Not here: keys, and plaintext. The service never sees either.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from sqlalchemy import Column, Engine, Integer, LargeBinary, Table, select
from sqlalchemy.dialects.sqlite import insert

from protocol.bundle import MAX_STATIC_BYTES, Offer, Static, View, offer
from protocol.errors import LocalFault, Misuse, Refused
from protocol.ids import Digest, Hash, ProductId
from protocol.records import Product, Release, State
from registry.approvals import Approvals
from registry.blobs import FileBlobs
from registry.catalogue import Catalogue
from registry.intents import Publish
from registry.publish import Outbox
from registry.store import REGISTRY, reading, writing

_artifacts = Table(
    "artifact",
    REGISTRY,
    Column("terms_hash", LargeBinary(32), primary_key=True),
    Column("static", LargeBinary(32), nullable=False),
    Column("payload", LargeBinary(32), nullable=False),
    Column("payload_size", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Artifact:
    """Where a release's parts are: SHA-256 addresses in the blob store, sizes in bytes."""

    static: Digest
    payload: Digest
    payload_size: int


class Artifacts:
    """Which blobs belong to which terms; safe for threads."""

    def __init__(self, engine: Engine, blobs: FileBlobs) -> None:
        """``engine``: the database of what cannot be derived."""
        self._engine, self._blobs = engine, blobs

    def of(self, terms_hash: Hash) -> Artifact | None:
        """The parts of the release with these terms, if this registry has them."""
        with reading(self._engine) as sql:
            query = select(_artifacts).where(_artifacts.c.terms_hash == bytes(terms_hash))
            row = sql.execute(query).first()
        if row is None:
            return None
        return Artifact(Digest(row.static), Digest(row.payload), row.payload_size)

    def static(self, terms_hash: Hash) -> bytes | None:
        """The encoded static part of a bundle, if this registry has it."""
        found = self.of(terms_hash)
        if found is None:
            return None
        return self._blobs.read(found.static, max_size=MAX_STATIC_BYTES)

    def keep(self, static: Static, offered: Offer) -> Artifact:
        """Stores the static part beside its payload, which must be there; `Misuse` if it is not."""
        manifest = offered.manifest
        if manifest.payload_digest not in self._blobs:
            raise Misuse(
                "payload-missing",
                "release refused",
                f"its payload {manifest.payload_digest} is not in this registry's store",
                "upload it to /v1/blobs first, as `firmledger release publish` does",
            )
        size = self._blobs.path(manifest.payload_digest).stat().st_size
        if size != manifest.payload_size:
            raise LocalFault(
                "blob-damaged",
                "release refused",
                f"its payload has {size} bytes in the store, not {manifest.payload_size}",
                "check the disk, then upload the payload again",
            )
        digest = self._blobs.put_bytes(static.encode(), max_size=MAX_STATIC_BYTES)
        kept = Artifact(digest, manifest.payload_digest, size)
        row = {
            "terms_hash": bytes(offered.terms_hash),
            "static": bytes(digest),
            "payload": bytes(kept.payload),
            "payload_size": size,
        }
        replace = insert(_artifacts).values(row)
        with writing(self._engine) as sql:
            sql.execute(replace.on_conflict_do_update(index_elements=["terms_hash"], set_=row))
        return kept


class Submission:
    """Takes releases in; ``now``: the time that a publication would meet, in Unix seconds."""

    def __init__(
        self,
        catalogue: Catalogue,
        artifacts: Artifacts,
        outbox: Outbox,
        now: Callable[[], int],
    ) -> None:
        self._catalogue, self._artifacts, self._outbox = catalogue, artifacts, outbox
        self._now = now

    def take(self, static: Static, epoch: int, approvals: Approvals) -> int:
        """Stores a release and queues its publication; returns the outbox row.

        `Malformed`, `Untrusted`, `Misuse` or `Refused` for what no device could use.
        """
        product_id = ProductId(static.terms.product_id)
        entry = self._catalogue.product(product_id, now=self._now())
        published = self._catalogue.published(product_id, static.terms.hash_struct())
        release_id = published.release_id if published else entry.record.head.latest_release + 1
        offered = offer(static, _as_if_published(static, entry.record, release_id))
        self._artifacts.keep(static, offered)
        if published is None and epoch != entry.record.governance.epoch:
            raise Refused(
                "stale-approvals",
                "publication refused",
                f"it was approved under epoch {epoch}, the product is in "
                f"{entry.record.governance.epoch}: who approves has changed since",
                "let the approvers approve again",
            )
        key = f"publish:{product_id}:{offered.terms_hash}"
        return self._outbox.submit(key, Publish(static.terms, approvals))


def _as_if_published(static: Static, product: Product, release_id: int) -> View:
    """What a device would be shown if these terms were published as they are."""
    release = Release(release_id, static.terms.hash_struct(), State(0, 0))
    nothing = Hash(bytes(32))
    return View(0, 0, nothing, (), b"", product, release)
