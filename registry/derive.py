"""From events to rows: what each event of the contract adds to the catalogue.

Guarantees: the rows of a block depend on the block, its events and the rows before it, and on
nothing else, so that every catalogue of one chain is the same.

Not here: which block comes next (`registry.index`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import Connection, insert, select

from protocol.ids import ProductId
from protocol.records import Record, State, Terms
from registry.catalogue import newest_standing
from registry.ports import Block, Event
from registry.standing import after
from registry.tables import (
    BLOCKS,
    EVENTS,
    FLEETS,
    PRODUCTS,
    RELEASES,
    STANDINGS,
    STATES,
    VALIDATORS,
)


def take_in(sql: Connection, block: Block, events: Sequence[Event]) -> None:
    """Writes a block and its events."""
    sql.execute(
        insert(BLOCKS).values(
            number=block.number,
            hash=bytes(block.hash),
            parent=bytes(block.parent),
            timestamp=block.timestamp,
        )
    )
    _take_in_validators(sql, block)
    for event in events:
        place = {"block": event.block, "position": event.index}
        product = event.args.get("product_id")
        sql.execute(
            insert(EVENTS).values(
                **place,
                tx=bytes(event.tx),
                name=event.name,
                product=None if product is None else bytes(product),
                release=event.args.get("release_id"),
                args=_text({name: plain(value) for name, value in event.args.items()}),
            )
        )
        for derive in _DERIVED.get(event.name, ()):
            derive(sql, event, place)


def _take_in_validators(sql: Connection, block: Block) -> None:
    members = b"".join(block.validators)
    newest = select(VALIDATORS.c.members).order_by(VALIDATORS.c.block.desc()).limit(1)
    if sql.execute(newest).scalar() != members:
        sql.execute(
            insert(VALIDATORS).values(block=block.number, hash=bytes(block.hash), members=members)
        )


def _product(sql: Connection, event: Event, place: dict[str, int]) -> None:
    args = event.args
    row = {"id": args["product_id"], "creator": args["creator"], "salt": args["salt"]}
    sql.execute(insert(PRODUCTS).values(**place, **{k: bytes(v) for k, v in row.items()}))


def _standing(sql: Connection, event: Event, place: dict[str, int]) -> None:
    product: ProductId = event.args["product_id"]
    before = None if event.name == "ProductCreated" else newest_standing(sql, product)
    standing = after(before, event.name, event.args)
    if standing is not None:
        sql.execute(
            insert(STANDINGS).values(**place, product=bytes(product), record=standing.to_text())
        )


def _fleet(sql: Connection, event: Event, place: dict[str, int]) -> None:
    args = event.args
    sql.execute(
        insert(FLEETS).values(
            **place,
            product=bytes(args["product_id"]),
            root=bytes(args["root"]),
            size=args["size"],
            epoch=args["epoch"],
        )
    )


def _release(sql: Connection, event: Event, place: dict[str, int]) -> None:
    args = event.args
    terms: Terms = args["terms"]
    sql.execute(
        insert(RELEASES).values(
            **place,
            product=bytes(args["product_id"]),
            id=args["release_id"],
            version=terms.version.to_bytes(8, "big"),
            terms_hash=bytes(terms.hash_struct()),
            image_digest=terms.image_digest,
            manifest_digest=terms.manifest_digest,
            terms=_text(terms.to_json()),
            epoch=args["epoch"],
            approvals=_text(args["approvals"].to_json()),
        )
    )


def _state(sql: Connection, event: Event, place: dict[str, int]) -> None:
    state: State = event.args["state"]
    sql.execute(
        insert(STATES).values(
            **place,
            product=bytes(event.args["product_id"]),
            release=event.args["release_id"],
            state=_text(state.to_json()),
        )
    )


_DERIVED: dict[str, tuple[Callable[[Connection, Event, dict[str, int]], None], ...]] = {
    "ProductCreated": (_product, _standing),
    "AmendmentProposed": (_standing,),
    "AmendmentCancelled": (_standing,),
    "GovernanceChanged": (_standing,),
    "ProductPaused": (_standing,),
    "ProductUnpaused": (_standing,),
    "FleetSet": (_fleet,),
    "ReleasePublished": (_release, _state, _standing),
    "ReleaseHalted": (_state,),
    "ReleaseResumed": (_state,),
    "ReleaseSuperseded": (_state,),
    "ReleaseRevoked": (_state,),
    "ReleaseAttested": (_state,),
    "ReceiptsAnchored": (_state,),
}


def plain(value: Any) -> Any:
    """An argument of an event, ready for JSON."""
    if isinstance(value, Record):
        return value.to_json()
    if isinstance(value, bytes):
        return "0x" + value.hex()
    if isinstance(value, tuple):
        return [plain(item) for item in value]
    return value


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
