"""The tables of receipts and batches, and every question asked of them.

Guarantees: a receipt is there once (its leaf hash is unique); a place in a log is given once.

Not here: what any of it means; see `registry.receipts`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Engine,
    Index,
    Insert,
    Integer,
    LargeBinary,
    String,
    Table,
    UniqueConstraint,
    func,
    insert,
    select,
    union,
    update,
)
from sqlalchemy.dialects import sqlite

from protocol.ids import DeviceId, Digest, ProductId
from protocol.receipt import Outcome
from registry.intents import Anchor
from registry.store import REGISTRY, reading, writing

RECEIPTS = Table(
    "receipt",
    REGISTRY,
    Column("id", Integer, primary_key=True),
    Column("leaf", LargeBinary(32), nullable=False, unique=True),
    Column("product", LargeBinary(32), nullable=False),
    Column("device", LargeBinary(32), nullable=False),
    Column("release", Integer, nullable=False),
    Column("log", Integer, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("reason", String(128), nullable=False),
    Column("device_sequence", Integer, nullable=False),
    Column("fleet_sequence", Integer, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("received_at", Integer, nullable=False),
    Column("position", Integer),
    Column("counted", Boolean),
    UniqueConstraint("product", "log", "position"),
    Index("receipt_of_device", "product", "log", "device"),
)
WAITING = Table(
    "receipt_waiting",
    REGISTRY,
    Column("id", Integer, primary_key=True),
    Column("leaf", LargeBinary(32), nullable=False, unique=True),
    Column("device", LargeBinary(32), nullable=False, index=True),
    Column("raw", LargeBinary, nullable=False),
    Column("received_at", Integer, nullable=False),
)
_BATCHES = Table(
    "receipt_batch",
    REGISTRY,
    Column("product", LargeBinary(32), primary_key=True),
    Column("log", Integer, primary_key=True),
    Column("old_size", Integer, primary_key=True),
    Column("new_size", Integer, nullable=False),
    Column("root", LargeBinary(32), nullable=False),
    Column("confirmed", Integer, nullable=False),
    Column("failed", Integer, nullable=False),
    Column("row", Integer),
    Column("queued_at", Integer),
    Column("anchored", Boolean, nullable=False, default=False, index=True),
)


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch as recorded; ``row`` and ``queued_at`` once it is in the outbox.

    ``anchored``: the ledger was seen to have it.
    """

    intent: Anchor
    row: int | None = None
    queued_at: int | None = None
    anchored: bool = False

    @property
    def product(self) -> ProductId:
        """Whose log."""
        return self.intent.product_id

    @property
    def log(self) -> int:
        """Which release's log."""
        return self.intent.release_id

    @property
    def old_size(self) -> int:
        """Entries before it."""
        return self.intent.old_size

    @property
    def new_size(self) -> int:
        """Entries after it."""
        return self.intent.new_size


@dataclass(frozen=True, slots=True)
class Unplaced:
    """A receipt that has no place in its log yet."""

    id: int
    device: bytes
    final: bool
    confirmed: bool


# -- receipts -------------------------------------------------------------------------------------


def insert_once(**values: Any) -> Insert:
    """Inserts a receipt unless it is there."""
    return sqlite.insert(RECEIPTS).values(values).on_conflict_do_nothing()


def is_logged(engine: Engine, leaf: Digest) -> bool:
    """Whether the receipt was taken in."""
    with reading(engine) as sql:
        query = select(RECEIPTS.c.id).where(RECEIPTS.c.leaf == bytes(leaf))
        return sql.execute(query).first() is not None


def placed(engine: Engine, leaf: Digest) -> tuple[ProductId, int, int | None] | None:
    """(product, log, place in it) of a receipt; a place of None also for those that wait."""
    known = select(RECEIPTS.c.product, RECEIPTS.c.log, RECEIPTS.c.position)
    with reading(engine) as sql:
        row = sql.execute(known.where(RECEIPTS.c.leaf == bytes(leaf))).first()
        if row is not None:
            return ProductId(row.product), row.log, row.position
        return (ProductId(bytes(32)), 0, None) if is_waiting(sql, leaf) else None


def log_entries(engine: Engine, product: ProductId, log: int) -> list[bytes]:
    """The receipts of a log that have their place, in order."""
    query = select(RECEIPTS.c.raw).where(_of(product, log), RECEIPTS.c.position.is_not(None))
    with reading(engine) as sql:
        return list(sql.execute(query.order_by(RECEIPTS.c.position)).scalars())


def leaves(sql: Connection, product: ProductId, log: int, size: int) -> list[bytes]:
    """The first ``size`` leaf hashes of a log."""
    query = select(RECEIPTS.c.leaf).where(_of(product, log), RECEIPTS.c.position < size)
    return list(sql.execute(query.order_by(RECEIPTS.c.position)).scalars())


def unplaced(
    sql: Connection, product: ProductId, log: int, fleet: int, most: int
) -> Sequence[Unplaced]:
    """Receipts without a place, oldest first, of devices that the fleet state ``fleet`` has."""
    wanted = [_of(product, log), RECEIPTS.c.position.is_(None), RECEIPTS.c.fleet_sequence <= fleet]
    query = select(RECEIPTS).where(*wanted).order_by(RECEIPTS.c.id).limit(most)
    return [_unplaced(row) for row in sql.execute(query)]


def _unplaced(row: Any) -> Unplaced:
    outcome = Outcome(row.outcome)
    final = outcome.final and row.release == row.log
    return Unplaced(row.id, row.device, final, outcome.counts_as_confirmed)


def has_final(sql: Connection, product: ProductId, log: int, device: bytes) -> bool:
    """Whether a final outcome of this device was counted for this release."""
    query = select(RECEIPTS.c.id).where(
        _of(product, log), RECEIPTS.c.device == device, RECEIPTS.c.counted.is_(True)
    )
    return sql.execute(query.limit(1)).first() is not None


def place(sql: Connection, receipt: int, position: int, *, counts: bool) -> None:
    """Gives a receipt its place in its log, for good."""
    query = update(RECEIPTS).where(RECEIPTS.c.id == receipt)
    sql.execute(query.values(position=position, counted=counts))


def open_logs(engine: Engine) -> list[tuple[ProductId, int]]:
    """Logs that have receipts without a place, or a batch the ledger was not seen to have."""
    receipts = select(RECEIPTS.c.product, RECEIPTS.c.log).where(RECEIPTS.c.position.is_(None))
    batches = select(_BATCHES.c.product, _BATCHES.c.log).where(_BATCHES.c.anchored.is_(False))
    with reading(engine) as sql:
        found = sql.execute(union(receipts, batches)).all()
    return [(ProductId(product), log) for product, log in sorted(tuple(row) for row in found)]


def is_due(engine: Engine, product: ProductId, log: int, before: int) -> bool:
    """Whether a receipt without a place came at ``before`` or earlier, or is a failure."""
    failed = [o.value for o in Outcome if o.counts_as_failed]
    query = select(RECEIPTS.c.id).where(
        _of(product, log),
        RECEIPTS.c.position.is_(None),
        (RECEIPTS.c.received_at <= before) | RECEIPTS.c.outcome.in_(failed),
    )
    with reading(engine) as sql:
        return sql.execute(query.limit(1)).first() is not None


# -- receipts of devices that are not enrolled ----------------------------------------------------


def is_waiting(sql: Connection, leaf: Digest) -> bool:
    """Whether the receipt waits for its device's enrolment."""
    query = select(WAITING.c.leaf).where(WAITING.c.leaf == bytes(leaf))
    return sql.execute(query).first() is not None


def count_waiting(sql: Connection, device: DeviceId | None) -> int:
    """How many wait: of one device, or of all."""
    query = select(func.count()).select_from(WAITING)
    if device is not None:
        query = query.where(WAITING.c.device == bytes(device))
    return int(sql.execute(query).scalar_one())


def waiting_of(engine: Engine, device: DeviceId) -> list[tuple[Digest, bytes]]:
    """(leaf, receipt) of what waits for a device's enrolment, in the order it came."""
    query = select(WAITING.c.leaf, WAITING.c.raw).where(WAITING.c.device == bytes(device))
    with reading(engine) as sql:
        found = sql.execute(query.order_by(WAITING.c.id)).all()
    return [(Digest(row.leaf), row.raw) for row in found]


def drop_waiting(engine: Engine, leaf: Digest) -> None:
    """Forgets what waited."""
    with writing(engine) as sql:
        sql.execute(WAITING.delete().where(WAITING.c.leaf == bytes(leaf)))


# -- batches --------------------------------------------------------------------------------------


def record_batch(sql: Connection, intent: Anchor) -> Batch:
    """Records a batch, in the transaction that gave its receipts their places."""
    sql.execute(
        insert(_BATCHES).values(
            product=bytes(intent.product_id),
            log=intent.release_id,
            old_size=intent.old_size,
            new_size=intent.new_size,
            root=bytes(intent.root),
            confirmed=intent.confirmed,
            failed=intent.failed,
        )
    )
    return Batch(intent)


def last_batch(engine: Engine, product: ProductId, log: int) -> Batch | None:
    """The newest batch of a log."""
    query = select(_BATCHES).where(_BATCHES.c.product == bytes(product), _BATCHES.c.log == log)
    with reading(engine) as sql:
        row = sql.execute(query.order_by(_BATCHES.c.old_size.desc()).limit(1)).first()
    if row is None:
        return None
    intent = Anchor(
        product, log, row.old_size, row.new_size, Digest(row.root), row.confirmed, row.failed
    )
    return Batch(intent, row.row, row.queued_at, row.anchored)


def note_queued(engine: Engine, batch: Batch, row: int, now: int) -> None:
    """Notes the outbox row that carries a batch."""
    with writing(engine) as sql:
        sql.execute(update(_BATCHES).where(_is(batch)).values(row=row, queued_at=now))


def note_anchored(engine: Engine, batch: Batch) -> None:
    """Notes that the ledger has a batch."""
    with writing(engine) as sql:
        sql.execute(update(_BATCHES).where(_is(batch)).values(anchored=True))


def _is(batch: Batch) -> Any:
    return (
        (_BATCHES.c.product == bytes(batch.product))
        & (_BATCHES.c.log == batch.log)
        & (_BATCHES.c.old_size == batch.old_size)
    )


def _of(product: ProductId, log: int) -> Any:
    return (RECEIPTS.c.product == bytes(product)) & (RECEIPTS.c.log == log)
