"""Enrolment: the devices of a product, whose receipts count.

Guarantees: the fleet that the ledger is given is the RFC 6962 root over the device ids of one
recorded state, ascending; that state can be listed again for auditors, by its root.

Rules: a device is its Ed25519 key; its id is the key's SHA-256. Devices are added, each addition a
new state with a sequence of its own. Adding the same devices again changes nothing.

Not here: proof that an enrolled key's owner is one of ours. Whoever holds an operator's token says
so.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sqlalchemy import Column, Connection, Engine, Integer, LargeBinary, Table, insert, select

from protocol import cose
from protocol.digests import leaf_hash
from protocol.errors import Misuse
from protocol.ids import DeviceId, Digest, ProductId
from protocol.receipt import device_id
from registry.merkle import Tree
from registry.store import REGISTRY, reading, writing

MAX_AT_ONCE = 10_000

_devices = Table(
    "device",
    REGISTRY,
    Column("product", LargeBinary(32), primary_key=True),
    Column("device", LargeBinary(32), primary_key=True, index=True),
    Column("public_key", LargeBinary(32), nullable=False),
    Column("sequence", Integer, nullable=False),
    Column("enrolled_at", Integer, nullable=False),
)
_fleets = Table(
    "fleet_state",
    REGISTRY,
    Column("product", LargeBinary(32), primary_key=True),
    Column("sequence", Integer, primary_key=True),
    Column("root", LargeBinary(32), nullable=False),
    Column("size", Integer, nullable=False),
)


@dataclass(frozen=True, slots=True)
class Fleet:
    """One state of a product's fleet."""

    sequence: int
    root: Digest
    size: int


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A device of a product; ``sequence`` is the first state of the fleet that has it."""

    device: DeviceId
    public_key: cose.PublicKey
    sequence: int
    enrolled_at: int


class Fleets:
    """The fleets of one registry; safe for threads."""

    def __init__(self, engine: Engine) -> None:
        """``engine``: the database of what cannot be derived."""
        self._engine = engine

    def enrol(self, product: ProductId, keys: Sequence[cose.PublicKey], now: int) -> Fleet:
        """Adds devices by their Ed25519 keys; returns the state that has them all."""
        if not 0 < len(keys) <= MAX_AT_ONCE:
            raise Misuse(
                "too-many-devices",
                "enrolment refused",
                f"{len(keys)} devices are given, 1 to {MAX_AT_ONCE} are taken at once",
                "enrol them in parts",
            )
        given = {device_id(key): key for key in keys}
        with writing(self._engine) as sql:
            last = _state(sql, product, None)
            known = set(_members(sql, product, None))
            added = given.keys() - known
            if not added and last is not None:
                return last
            everyone = sorted(known | added)
            root = Tree([leaf_hash(device) for device in everyone]).root
            fleet = Fleet(last.sequence + 1 if last else 1, root, len(everyone))
            where = {"product": bytes(product), "sequence": fleet.sequence}
            sql.execute(
                insert(_devices),
                [
                    {
                        **where,
                        "device": bytes(device),
                        "public_key": given[device].raw,
                        "enrolled_at": now,
                    }
                    for device in sorted(added)
                ],
            )
            sql.execute(insert(_fleets), [{**where, "root": bytes(root), "size": fleet.size}])
            return fleet

    def newest(self, product: ProductId) -> Fleet | None:
        """The fleet as it is here, whether the ledger has it yet or not."""
        with reading(self._engine) as sql:
            return _state(sql, product, None)

    def all_newest(self) -> list[tuple[ProductId, Fleet]]:
        """The newest fleet of every product that has one."""
        with reading(self._engine) as sql:
            products = sql.execute(select(_fleets.c.product).distinct()).scalars().all()
            found = [(ProductId(one), _state(sql, ProductId(one), None)) for one in products]
        return [(product, fleet) for product, fleet in found if fleet is not None]

    def by_root(self, product: ProductId, root: Digest) -> Fleet | None:
        """The newest state with this root."""
        with reading(self._engine) as sql:
            return _state(sql, product, root)

    def members(self, product: ProductId, root: Digest) -> list[bytes] | None:
        """The device ids, ascending, of the state with this root; None if it is not known."""
        with reading(self._engine) as sql:
            fleet = _state(sql, product, root)
            return None if fleet is None else _members(sql, product, fleet.sequence)

    def device(self, device: DeviceId) -> dict[ProductId, Enrolled]:
        """In which products a device is enrolled; empty if in none."""
        query = select(_devices).where(_devices.c.device == bytes(device))
        with reading(self._engine) as sql:
            rows = sql.execute(query).all()
        return {
            ProductId(row.product): Enrolled(
                device,
                cose.PublicKey(cose.Curve.ED25519, row.public_key),
                row.sequence,
                row.enrolled_at,
            )
            for row in rows
        }


def _state(sql: Connection, product: ProductId, root: Digest | None) -> Fleet | None:
    query = select(_fleets).where(_fleets.c.product == bytes(product))
    if root is not None:
        query = query.where(_fleets.c.root == bytes(root))
    row = sql.execute(query.order_by(_fleets.c.sequence.desc()).limit(1)).first()
    return None if row is None else Fleet(row.sequence, Digest(row.root), row.size)


def _members(sql: Connection, product: ProductId, sequence: int | None) -> list[bytes]:
    query = select(_devices.c.device).where(_devices.c.product == bytes(product))
    if sequence is not None:
        query = query.where(_devices.c.sequence <= sequence)
    rows: Iterable[bytes] = sql.execute(query.order_by(_devices.c.device)).scalars()
    return list(rows)
