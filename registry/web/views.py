"""What the catalogue knows, as the API shows it. Reading only; nothing is decided here."""

from __future__ import annotations

from typing import Any

from protocol.ids import Address, Hash
from protocol.ledger import Status, elapsed, open_share
from protocol.records import Approval, Product
from registry import VERSION
from registry.approvals import recover
from registry.assembly import Registry
from registry.catalogue import Place, ProductEntry, ReleaseEntry
from registry.queue import Row
from registry.queue import Status as RowStatus

EMBEDDED_NOTICE = (
    "embedded ledger: whoever owns this host owns the ledger; for trials, not for production"
)


def product_view(registry: Registry, entry: ProductEntry) -> dict[str, Any]:
    """`models.ProductView`."""
    newest = registry.fleets.newest(entry.id)
    fleet = entry.fleet
    return {
        "id": str(entry.id),
        "name": registry.names.of(entry.id),
        "creator": str(entry.creator),
        "created": _place(entry.created),
        "record": entry.record.to_json(),
        "pending": entry.pending.to_json() if entry.pending else None,
        "fleet": None
        if fleet is None
        else {"root": str(fleet.root), "size": fleet.size, "epoch": fleet.epoch},
        "enrolled": newest.size if newest else 0,
    }


def release_view(registry: Registry, product: Product, entry: ReleaseEntry) -> dict[str, Any]:
    """`models.ReleaseView`."""
    word, parts = entry.word, registry.artifacts.of(entry.terms_hash)
    head = registry.catalogue.head()
    now = head.timestamp if head else 0
    running = elapsed(product.head, entry.state, now)
    status = Status(word.status)
    is_open = status is Status.ACTIVE and running >= 0
    return {
        "product": str(entry.product_id),
        "release_id": entry.release_id,
        "version": str(entry.version),
        "status": status.name.lower(),
        "superseded": word.superseded,
        "terms": entry.terms.to_json(),
        "terms_hash": str(entry.terms_hash),
        "state": entry.state.to_json(),
        "confirmed": word.confirmed,
        "failed": word.failed,
        "receipts": word.log_size,
        "halts": word.halts,
        "attested": word.attested,
        "open_bps": open_share(entry.terms, entry.state, running) if is_open else 0,
        "epoch": entry.epoch,
        "approvers": [str(address) for address in _approvers(registry, entry)],
        "published": _place(entry.published),
        "final": entry.final,
        "static": str(parts.static) if parts else None,
        "payload": str(parts.payload) if parts else None,
        "payload_size": parts.payload_size if parts else None,
    }


def tx_view(row: Row) -> dict[str, Any]:
    """`models.TxView`."""
    return {
        "id": row.id,
        "status": row.status.value,
        "tx": str(row.tx) if row.tx else None,
        "block": row.block,
        "gas_used": row.gas_used,
        "attempts": row.attempts,
        "error": row.error,
    }


def status_view(registry: Registry) -> dict[str, Any]:
    """`models.StatusView`."""
    settings, head = registry.settings, registry.catalogue.head()
    embedded = registry.ledger is not None
    return {
        "version": VERSION,
        "profile": settings.profile,
        "embedded": embedded,
        "notice": EMBEDDED_NOTICE if embedded else None,
        "chain_id": registry.chain.ledger.chain_id,
        "contract": str(registry.chain.ledger.contract),
        "code_hash": str(settings.code_hash),
        "deployed_at": settings.deployed_at,
        "head": None
        if head is None
        else {"number": head.number, "hash": str(head.hash), "timestamp": head.timestamp},
        "final_height": registry.catalogue.final_height() if head else 0,
        "validators": [str(address) for address in registry.validators()],
        "max_age": settings.max_age,
        "sender": str(registry.sender),
        "unsettled": sum(unsettled(registry).values()),
    }


def unsettled(registry: Registry) -> dict[str, int]:
    """How many acts wait in the outbox, by status; at most a thousand of each are counted."""
    waiting = (RowStatus.QUEUED, RowStatus.SIGNED, RowStatus.SENT)
    return {s.value: len(registry.outbox.rows(limit=1000, status=s)) for s in waiting}


def _approvers(registry: Registry, entry: ReleaseEntry) -> list[Address]:
    message = Approval(entry.terms, entry.epoch, entry.approvals.valid_until)
    digest = Hash(registry.chain.ledger.digest(message))
    return [recover(digest, signature) for signature in entry.approvals.signatures]


def _place(place: Place) -> dict[str, Any]:
    return {"block": place.block, "timestamp": place.timestamp, "tx": str(place.tx)}
