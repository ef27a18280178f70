"""The outbox's rows: what is to be published, and every transaction signed for it.

Guarantees:

* One key, one row: what is submitted twice is queued once.
* A signed transaction is here before anyone else has seen it, and stays while it could be mined.
* A row is final (mined, failed) only when none of its transactions can take effect any more but the
  one it names.

Rules: every write but `submit` is made under the lease (`registry.lease`).

Not here: what is done with the rows (`registry.publish`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from sqlalchemy import (
    Column,
    Connection,
    Float,
    Integer,
    LargeBinary,
    Table,
    Text,
    delete,
    func,
    insert,
    select,
    update,
)

from protocol.errors import FirmledgerError, Misuse
from protocol.ids import Address, Hash
from registry.intents import Intent, intent
from registry.ports import Fees
from registry.store import REGISTRY

MAX_KEY = 200

ROWS = Table(
    "outbox",
    REGISTRY,
    Column("id", Integer, primary_key=True),
    Column("key", Text, nullable=False, unique=True),
    Column("intent", Text, nullable=False),
    Column("status", Text, nullable=False, index=True),
    Column("attempts", Integer, nullable=False, default=0),
    Column("rest_until", Float, nullable=False, default=0.0),
    Column("tx", LargeBinary),
    Column("block", Integer),
    Column("gas_used", Integer),
    Column("error", Text),
)
SIGNED = Table(
    "signed",
    REGISTRY,
    Column("tx", LargeBinary, primary_key=True),
    Column("row", Integer, nullable=False, index=True),
    Column("sender", LargeBinary, nullable=False),
    Column("nonce", Integer, nullable=False),
    Column("raw", LargeBinary, nullable=False),
    Column("data", LargeBinary, nullable=False),
    Column("gas", Integer, nullable=False),
    Column("price", LargeBinary, nullable=False),
    Column("tip", LargeBinary),
    Column("made", Float, nullable=False),
    Column("offered", Float),
)


class Status(StrEnum):
    """Of a row; the last two are for ever."""

    QUEUED = "queued"
    SIGNED = "signed"
    SENT = "sent"
    MINED = "mined"
    FAILED = "failed"


UNDER_WAY = (Status.SIGNED, Status.SENT)


@dataclass(frozen=True)
class Row:
    """One intent in the outbox; ``error`` is `FirmledgerError.as_dict` of the last one.

    ``tx`` and ``block`` are those that took effect; while under way, the newest transaction's.
    """

    id: int
    key: str
    intent: Intent
    status: Status
    attempts: int
    rest_until: float
    tx: Hash | None
    block: int | None
    gas_used: int | None
    error: dict[str, Any] | None

    @property
    def final(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in (Status.MINED, Status.FAILED)


@dataclass(frozen=True)
class SignedTx:
    """A transaction as it was signed; ``made`` and ``offered`` (None: never) in Unix seconds."""

    tx: Hash
    row: int
    sender: Address
    nonce: int
    raw: bytes
    data: bytes
    gas: int
    fees: Fees
    made: float
    offered: float | None


def submit(sql: Connection, key: str, wanted: Intent) -> int:
    """The row of ``key``, made now if there is none; a failed one is queued anew.

    `Misuse` ``key-reused`` if the key stands for another intent that has not failed.
    """
    if not 0 < len(key) <= MAX_KEY:
        raise Misuse("bad-key", "nothing queued", "the key is empty or too long", "shorten it")
    text = _text(wanted.to_json())
    row = sql.execute(select(ROWS).where(ROWS.c.key == key)).first()
    if row is None:
        fresh = insert(ROWS).values(key=key, intent=text, status=Status.QUEUED)
        return int(sql.execute(fresh.returning(ROWS.c.id)).scalar_one())
    if row.status == Status.FAILED:
        _set(sql, row.id, intent=text, status=Status.QUEUED, attempts=0, rest_until=0.0,
             error=None, tx=None, block=None, gas_used=None)  # fmt: skip
    elif row.intent != text:
        raise Misuse(
            "key-reused",
            "nothing queued",
            f"{key} stands for another act, which is {row.status}",
            "use another key",
        )
    return int(row.id)


def find(sql: Connection, row_id: int) -> Row:
    """By id; `Misuse` ``unknown-row`` if there is none."""
    row = sql.execute(select(ROWS).where(ROWS.c.id == row_id)).first()
    if row is None:
        raise Misuse(
            "unknown-row", f"row {row_id} not found", "the outbox has none", "check the number"
        )
    return _row(row)


def rows(sql: Connection, *, status: Sequence[Status] = (), limit: int = 1_000) -> list[Row]:
    """Oldest first."""
    wanted = select(ROWS).order_by(ROWS.c.id).limit(limit)
    if status:
        wanted = wanted.where(ROWS.c.status.in_(status))
    return [_row(row) for row in sql.execute(wanted)]


def signed(sql: Connection, row_id: int) -> list[SignedTx]:
    """The transactions under way for a row, oldest first; all with one nonce."""
    wanted = select(SIGNED).where(SIGNED.c.row == row_id).order_by(SIGNED.c.made, SIGNED.c.tx)
    return [_signed(row) for row in sql.execute(wanted)]


def next_nonce(sql: Connection, sender: Address, on_chain: int) -> int:
    """Above every nonce on chain and every one under way."""
    wanted = select(func.max(SIGNED.c.nonce)).where(SIGNED.c.sender == bytes(sender))
    highest = sql.execute(wanted).scalar()
    return on_chain if highest is None else max(on_chain, int(highest) + 1)


def keep(sql: Connection, made: SignedTx) -> None:
    """Keeps a signed transaction; the row is signed from now on."""
    price, tip = made.fees.price, made.fees.tip
    sql.execute(
        insert(SIGNED).values(
            tx=bytes(made.tx), row=made.row, sender=bytes(made.sender), nonce=made.nonce,
            raw=made.raw, data=made.data, gas=made.gas, price=_wei(price),
            tip=None if tip is None else _wei(tip), made=made.made, offered=made.offered,
        )
    )  # fmt: skip
    _set(sql, made.row, status=Status.SIGNED, tx=bytes(made.tx))


def offered(sql: Connection, made: SignedTx, now: float) -> None:
    """The node has it."""
    sql.execute(update(SIGNED).where(SIGNED.c.tx == bytes(made.tx)).values(offered=now))
    _set(sql, made.row, status=Status.SENT)


def settle(sql: Connection, row: Row, *, tx: Hash, block: int, gas_used: int | None) -> None:
    """It took effect, finally."""
    sql.execute(delete(SIGNED).where(SIGNED.c.row == row.id))
    _set(sql, row.id, status=Status.MINED, tx=bytes(tx), block=block, gas_used=gas_used,
         error=None)  # fmt: skip


def fail(sql: Connection, row: Row, error: FirmledgerError) -> None:
    """It will not take effect: the ledger refused it, and nothing of it is under way."""
    sql.execute(delete(SIGNED).where(SIGNED.c.row == row.id))
    _set(sql, row.id, status=Status.FAILED, error=_text(error.as_dict()))


def again(sql: Connection, row: Row, error: FirmledgerError | None, rest_until: float) -> None:
    """Back to the queue with a new nonce to come: nothing of it is under way any more."""
    sql.execute(delete(SIGNED).where(SIGNED.c.row == row.id))
    _set(sql, row.id, status=Status.QUEUED, attempts=row.attempts + 1, rest_until=rest_until,
         tx=None, error=_text(error.as_dict()) if error else None)  # fmt: skip


def note(sql: Connection, row: Row, error: FirmledgerError, rest_until: float) -> None:
    """Something stands in the way for now; the row stays as it is."""
    _set(sql, row.id, error=_text(error.as_dict()), rest_until=rest_until)


def _set(sql: Connection, row_id: int, **values: Any) -> None:
    sql.execute(update(ROWS).where(ROWS.c.id == row_id).values(**values))


def _row(row: Any) -> Row:
    return Row(
        id=row.id,
        key=row.key,
        intent=intent(json.loads(row.intent)),
        status=Status(row.status),
        attempts=row.attempts,
        rest_until=row.rest_until,
        tx=Hash(row.tx) if row.tx else None,
        block=row.block,
        gas_used=row.gas_used,
        error=json.loads(row.error) if row.error else None,
    )


def _signed(row: Any) -> SignedTx:
    tip = None if row.tip is None else int.from_bytes(row.tip, "big")
    return SignedTx(
        tx=Hash(row.tx),
        row=row.row,
        sender=Address(row.sender),
        nonce=row.nonce,
        raw=row.raw,
        data=row.data,
        gas=row.gas,
        fees=Fees(int.from_bytes(row.price, "big"), tip),
        made=row.made,
        offered=row.offered,
    )


def _wei(value: int) -> bytes:
    return value.to_bytes(32, "big")


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"))
