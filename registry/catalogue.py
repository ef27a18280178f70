"""The catalogue: what the chain says, in tables that can be asked.

Guarantees: everything in it is derived from the chain (`registry.index` writes it); deleted and
made anew it is the same, byte for byte (`Catalogue.dump`). Every state a product or release has had
is kept, so it answers for any height it knows, and giving blocks back is deleting rows.

Rules: a query sees one moment. Errors for what the catalogue does not know are `Misuse`.

Not here: following (`registry.index`), and anything the chain does not say, such as product names.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Connection, Engine, Row, Select, Table, func, select

from protocol.errors import Misuse
from protocol.ids import Address, Digest, Hash, ProductId, Version
from protocol.ledger import StateWord
from protocol.records import Governance, Product, Release, State, Terms
from registry.approvals import Approvals
from registry.ports import Block
from registry.standing import Standing
from registry.store import reading
from registry.tables import (
    BLOCKS,
    EVENTS,
    FINAL,
    FLEETS,
    MARKS,
    PLACED,
    PRODUCTS,
    RELEASES,
    STANDINGS,
    STATES,
    VALIDATORS,
)

MAX_PAGE = 1_000


@dataclass(frozen=True)
class Place:
    """Where on the chain something happened; ``timestamp`` is the block's, in Unix seconds."""

    block: int
    timestamp: int
    tx: Hash
    index: int


@dataclass(frozen=True)
class Fleet:
    """The devices whose receipts count."""

    root: Digest
    size: int
    epoch: int


@dataclass(frozen=True)
class ProductEntry:
    """A product; ``record`` is spelled for the time asked, ``pending`` what waits at that time."""

    id: ProductId
    creator: Address
    salt: Hash
    standing: Standing
    record: Product
    pending: Governance | None
    fleet: Fleet | None
    created: Place


@dataclass(frozen=True)
class ReleaseEntry:
    """A release, its immutable terms and its state; ``final``: its publication cannot be undone."""

    product_id: ProductId
    release_id: int
    terms: Terms
    terms_hash: Hash
    state: State
    epoch: int
    approvals: Approvals
    published: Place
    final: bool

    @property
    def version(self) -> Version:
        """Its version."""
        return Version(self.terms.version)

    @property
    def word(self) -> StateWord:
        """Its state, unpacked."""
        return StateWord.unpack(self.state.word)

    @property
    def record(self) -> Release:
        """As the contract and bundles take it."""
        return Release(self.release_id, self.terms_hash, self.state)


@dataclass(frozen=True)
class EventEntry:
    """An event as it is shown; ``args`` are ready for JSON, names in snake_case."""

    name: str
    product_id: ProductId | None
    release_id: int | None
    args: dict[str, Any]
    place: Place


@dataclass(frozen=True, slots=True)
class ValidatorSet:
    """Who seals from a block on; ``since`` and ``hash`` are the first block that lists them."""

    since: int
    hash: Hash
    members: tuple[Address, ...]


class Catalogue:
    """Read-only queries; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        """``engine``: `registry.store.open_database` with ``CATALOGUE``."""
        self.engine = engine

    def head(self) -> Block | None:
        """The newest block taken in; None before the first."""
        with reading(self.engine) as sql:
            return newest_block(sql)

    def final_height(self) -> int:
        """The height up to which nothing is given back; -1 before the first block."""
        with reading(self.engine) as sql:
            return final_height(sql)

    def validator_sets(self) -> list[ValidatorSet]:
        """Every set that has sealed since the first block followed, oldest first."""
        with reading(self.engine) as sql:
            found = sql.execute(select(VALIDATORS).order_by(VALIDATORS.c.block)).all()
        return [ValidatorSet(row.block, Hash(row.hash), _accounts(row.members)) for row in found]

    def products(self, *, now: int | None = None, at: int | None = None) -> list[ProductEntry]:
        """All products, in the order of their creation."""
        with reading(self.engine) as sql:
            found = sql.execute(_until(select(PRODUCTS), PRODUCTS, at)).all()
            return [self._product(sql, row, now, at) for row in found]

    def product(
        self, product_id: ProductId, *, now: int | None = None, at: int | None = None
    ) -> ProductEntry:
        """A product as of height ``at``, its record spelled for ``now``; the head's by default.

        `Misuse` ``unknown-product`` if there is none.
        """
        with reading(self.engine) as sql:
            wanted = select(PRODUCTS).where(PRODUCTS.c.id == bytes(product_id))
            row = sql.execute(_until(wanted, PRODUCTS, at)).first()
            if row is None:
                raise Misuse(
                    "unknown-product",
                    f"product {product_id} not found",
                    "the ledger has none of that id",
                    "see `firmledger product list`",
                )
            return self._product(sql, row, now, at)

    def releases(self, product_id: ProductId, *, at: int | None = None) -> list[ReleaseEntry]:
        """A product's releases, oldest first; none if there is no such product."""
        return self._releases(RELEASES.c.product == bytes(product_id), at)

    def release(self, product_id: ProductId, which: int, *, at: int | None = None) -> ReleaseEntry:
        """By release id; `Misuse` ``unknown-release`` if there is none."""
        found = self._releases(
            (RELEASES.c.product == bytes(product_id)) & (RELEASES.c.id == which), at
        )
        return _only(found, f"release {which}")

    def release_by_version(
        self, product_id: ProductId, version: Version, *, at: int | None = None
    ) -> ReleaseEntry:
        """By version; `Misuse` ``unknown-release`` if there is none."""
        found = self._releases(
            (RELEASES.c.product == bytes(product_id)) & (RELEASES.c.version == _u64(version)), at
        )
        return _only(found, f"version {version}")

    def releases_by_image(self, digest: Digest) -> list[ReleaseEntry]:
        """Every release of any product with this image, oldest first."""
        return self._releases(RELEASES.c.image_digest == bytes(digest))

    def releases_by_manifest(self, digest: Digest) -> list[ReleaseEntry]:
        """Every release of any product with this manifest, oldest first."""
        return self._releases(RELEASES.c.manifest_digest == bytes(digest))

    def published(self, product_id: ProductId, terms_hash: Hash) -> ReleaseEntry | None:
        """The release with these terms, if they were published."""
        found = self._releases(
            (RELEASES.c.product == bytes(product_id)) & (RELEASES.c.terms_hash == bytes(terms_hash))
        )
        return found[0] if found else None

    def events(
        self,
        product_id: ProductId | None = None,
        *,
        release_id: int | None = None,
        names: Sequence[str] = (),
        after: tuple[int, int] = (-1, -1),
        newest: bool = False,
        limit: int,
    ) -> list[EventEntry]:
        """Events in their order, from behind the place (block, index) ``after``.

        At most ``limit``: the oldest, or the ``newest``.
        """
        wanted = select(EVENTS, BLOCKS.c.timestamp).join(BLOCKS, BLOCKS.c.number == EVENTS.c.block)
        block, index = after
        wanted = wanted.where(
            (EVENTS.c.block > block) | ((EVENTS.c.block == block) & (EVENTS.c.position > index))
        )
        if product_id is not None:
            wanted = wanted.where(EVENTS.c.product == bytes(product_id))
        if release_id is not None:
            wanted = wanted.where(EVENTS.c.release == release_id)
        if names:
            wanted = wanted.where(EVENTS.c.name.in_(names))
        places = (EVENTS.c.block, EVENTS.c.position)
        order = [place.desc() for place in places] if newest else places
        wanted = wanted.order_by(*order).limit(min(limit, MAX_PAGE))
        with reading(self.engine) as sql:
            found = [_event(row) for row in sql.execute(wanted)]
        return found[::-1] if newest else found

    def dump(self) -> bytes:
        """All that is derived, one JSON line a row; equal chains give equal bytes.

        Left out are empty blocks below the head and the mark of what is final: both depend on when
        the catalogue looked, not on the chain alone.
        """
        lines = []
        with reading(self.engine) as sql:
            top = sql.execute(select(func.max(BLOCKS.c.number))).scalar()
            eventful = select(EVENTS.c.block)
            blocks = select(BLOCKS).where(BLOCKS.c.number.in_(eventful) | (BLOCKS.c.number == top))
            queries = [(BLOCKS, blocks), *((table, select(table)) for table in PLACED)]
            for table, wanted in queries:
                for row in sql.execute(wanted.order_by(*table.primary_key.columns)):
                    values = [v.hex() if isinstance(v, bytes) else v for v in row]
                    lines.append(json.dumps([table.name, *values], separators=(",", ":")))
        return "".join(line + "\n" for line in lines).encode()

    def _product(
        self, sql: Connection, row: Row[Any], now: int | None, at: int | None
    ) -> ProductEntry:
        product_id = ProductId(row.id)
        standing = newest_standing(sql, product_id, at)
        if now is None:
            head = newest_block(sql)
            now = head.timestamp if head else 0
        fleets = select(FLEETS).where(FLEETS.c.product == row.id)
        fleet = sql.execute(_newest(_until(fleets, FLEETS, at), FLEETS)).first()
        return ProductEntry(
            id=product_id,
            creator=Address(row.creator),
            salt=Hash(row.salt),
            standing=standing,
            record=standing.record(now),
            pending=standing.waiting(now),
            fleet=Fleet(Digest(fleet.root), fleet.size, fleet.epoch) if fleet else None,
            created=_place_of(sql, row),
        )

    def _releases(self, condition: Any, at: int | None = None) -> list[ReleaseEntry]:
        wanted = select(RELEASES).where(condition)
        wanted = _until(wanted, RELEASES, at).order_by(RELEASES.c.block, RELEASES.c.position)
        with reading(self.engine) as sql:
            final = final_height(sql)
            return [_release(sql, row, final, at) for row in sql.execute(wanted)]


def newest_block(sql: Connection) -> Block | None:
    """The newest block taken in."""
    row = sql.execute(select(BLOCKS).order_by(BLOCKS.c.number.desc()).limit(1)).first()
    return None if row is None else block_of(row)


def block_of(row: Row[Any]) -> Block:
    """A block from its row."""
    return Block(row.number, Hash(row.hash), Hash(row.parent), row.timestamp)


def final_height(sql: Connection) -> int:
    """The height up to which nothing is given back."""
    value = sql.execute(select(MARKS.c.value).where(MARKS.c.name == FINAL)).scalar()
    return -1 if value is None else int(value)


def newest_standing(sql: Connection, product_id: ProductId, at: int | None = None) -> Standing:
    """How a product stands as of height ``at``."""
    wanted = select(STANDINGS.c.record).where(STANDINGS.c.product == bytes(product_id))
    text = sql.execute(_newest(_until(wanted, STANDINGS, at), STANDINGS)).scalar_one()
    return Standing.from_text(text)


def _release(sql: Connection, row: Row[Any], final: int, at: int | None) -> ReleaseEntry:
    states = select(STATES.c.state).where(
        (STATES.c.product == row.product) & (STATES.c.release == row.id)
    )
    state = sql.execute(_newest(_until(states, STATES, at), STATES)).scalar_one()
    return ReleaseEntry(
        product_id=ProductId(row.product),
        release_id=row.id,
        terms=Terms.from_json(json.loads(row.terms)),
        terms_hash=Hash(row.terms_hash),
        state=State.from_json(json.loads(state)),
        epoch=row.epoch,
        approvals=Approvals.from_json(json.loads(row.approvals)),
        published=_place_of(sql, row),
        final=row.block <= final,
    )


def _event(row: Row[Any]) -> EventEntry:
    return EventEntry(
        name=row.name,
        product_id=ProductId(row.product) if row.product else None,
        release_id=row.release,
        args=json.loads(row.args),
        place=Place(row.block, row.timestamp, Hash(row.tx), row.position),
    )


def _place_of(sql: Connection, row: Row[Any]) -> Place:
    wanted = (
        select(EVENTS.c.tx, BLOCKS.c.timestamp)
        .join(BLOCKS, BLOCKS.c.number == EVENTS.c.block)
        .where((EVENTS.c.block == row.block) & (EVENTS.c.position == row.position))
    )
    tx, timestamp = sql.execute(wanted).one()
    return Place(row.block, timestamp, Hash(tx), row.position)


def _accounts(raw: bytes) -> tuple[Address, ...]:
    return tuple(Address(raw[place : place + 20]) for place in range(0, len(raw), 20))


def _until(wanted: Select[Any], table: Table, at: int | None) -> Select[Any]:
    return wanted if at is None else wanted.where(table.c.block <= at)


def _newest(wanted: Select[Any], table: Table) -> Select[Any]:
    return wanted.order_by(table.c.block.desc(), table.c.position.desc()).limit(1)


def _only(found: list[ReleaseEntry], what: str) -> ReleaseEntry:
    if not found:
        raise Misuse(
            "unknown-release",
            f"{what} not found",
            "the product has no such release",
            "see `firmledger release list`",
        )
    return found[0]


def _u64(value: int) -> bytes:
    return int(value).to_bytes(8, "big")
