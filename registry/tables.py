"""The catalogue's tables: every row but a block's says where in the chain it comes from.

Rules: 64-bit numbers and hashes are kept as bytes, big-endian, which sort as they count. Records
are canonical JSON. A row stands for one event, or one change of the validators, and never changes;
what holds is the newest row.
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import Column, Integer, LargeBinary, Table, Text

from registry.store import CATALOGUE


def _place() -> list[Column[Any]]:
    """Where in the chain a row comes from."""
    return [
        Column("block", Integer, primary_key=True, autoincrement=False),
        Column("position", Integer, primary_key=True, autoincrement=False),
    ]


MARKS = Table("mark", CATALOGUE, Column("name", Text, primary_key=True), Column("value", Integer))
BLOCKS = Table(
    "block",
    CATALOGUE,
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("parent", LargeBinary, nullable=False),
    Column("timestamp", Integer, nullable=False),
)
EVENTS = Table(
    "event",
    CATALOGUE,
    *_place(),
    Column("tx", LargeBinary, nullable=False, index=True),
    Column("name", Text, nullable=False),
    Column("product", LargeBinary, index=True),
    Column("release", Integer),
    Column("args", Text, nullable=False),
)
PRODUCTS = Table(
    "product",
    CATALOGUE,
    *_place(),
    Column("id", LargeBinary, nullable=False, unique=True),
    Column("creator", LargeBinary, nullable=False),
    Column("salt", LargeBinary, nullable=False),
)
STANDINGS = Table(
    "standing",
    CATALOGUE,
    *_place(),
    Column("product", LargeBinary, nullable=False, index=True),
    Column("record", Text, nullable=False),
)
FLEETS = Table(
    "fleet",
    CATALOGUE,
    *_place(),
    Column("product", LargeBinary, nullable=False, index=True),
    Column("root", LargeBinary, nullable=False),
    Column("size", Integer, nullable=False),
    Column("epoch", Integer, nullable=False),
)
RELEASES = Table(
    "release",
    CATALOGUE,
    *_place(),
    Column("product", LargeBinary, nullable=False, index=True),
    Column("id", Integer, nullable=False),
    Column("version", LargeBinary, nullable=False),
    Column("terms_hash", LargeBinary, nullable=False, index=True),
    Column("image_digest", LargeBinary, nullable=False, index=True),
    Column("manifest_digest", LargeBinary, nullable=False, index=True),
    Column("terms", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("approvals", Text, nullable=False),
)
STATES = Table(
    "state",
    CATALOGUE,
    *_place(),
    Column("product", LargeBinary, nullable=False, index=True),
    Column("release", Integer, nullable=False),
    Column("state", Text, nullable=False),
)
VALIDATORS = Table(  # from this block on these seal: a row for the first block, and each change
    "validators",
    CATALOGUE,
    Column("block", Integer, primary_key=True, autoincrement=False),
    Column("hash", LargeBinary, nullable=False),
    Column("members", LargeBinary, nullable=False),
)
FINAL = "final"
PLACED = (EVENTS, PRODUCTS, STANDINGS, FLEETS, RELEASES, STATES, VALIDATORS)
