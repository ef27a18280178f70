"""Databases of the registry: how they are opened, written and read.

Guarantees: a write transaction takes the write lock at its start (BEGIN IMMEDIATE), so what it read
is still so when it commits; a reader sees one moment. The driver's errors come out as `LocalFault`.

Two databases. ``registry``: what cannot be derived (outbox, lease, orphaned events, receipts,
fleets), synced at every commit. ``catalogue``: derived from the chain, may be deleted. Tables are
declared on `REGISTRY` or `CATALOGUE` by the module that owns them.

Not here: what is in them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, Engine, MetaData, create_engine, event
from sqlalchemy.exc import DBAPIError

from protocol.errors import LocalFault

REGISTRY = MetaData()
CATALOGUE = MetaData()
CATALOGUE_FILE = "catalogue.sqlite"
_KEPT = "check free space and the disk; what was committed before is untouched"
_DERIVED = (
    "check free space and the disk; if the file is damaged, stop the server and delete it:"
    " it is rebuilt from the ledger"
)
_BUSY = 30_000  # milliseconds to wait for another writer
_WRITES = "firmledger_writes"


def open_database(path: Path, tables: MetaData, *, durable: bool) -> Engine:
    """Opens a SQLite file, made with its ``tables`` if need be.

    ``durable``: a commit survives power loss (synchronous=FULL); else it may be lost, never torn.
    """
    engine = create_engine(f"sqlite:///{path}", connect_args={"timeout": _BUSY / 1000})
    synchronous = "FULL" if durable else "NORMAL"

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: Any) -> None:
        connection.isolation_level = None  # transactions begin below, not in the driver
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN IMMEDIATE" if is_writing(connection) else "BEGIN")

    with writing(engine) as connection:
        tables.create_all(connection)
    return engine


@contextmanager
def writing(engine: Engine) -> Iterator[Connection]:
    """One write transaction, committed at the end, rolled back by any exception."""
    with (
        faults(engine),
        engine.connect().execution_options(**{_WRITES: True}) as connection,
        connection.begin(),
    ):
        yield connection


def is_writing(connection: Connection) -> bool:
    """Whether the transaction is one of `writing`."""
    return bool(connection.get_execution_options().get(_WRITES))


@contextmanager
def reading(engine: Engine) -> Iterator[Connection]:
    """One moment of the database; writes nothing."""
    with faults(engine), engine.connect() as connection, connection.begin():
        yield connection


@contextmanager
def faults(engine: Engine) -> Iterator[None]:
    """Maps the driver's errors."""
    try:
        yield
    except DBAPIError as fault:
        raise LocalFault(
            "database",
            f"{engine.url.database} not used",
            f"the database says: {fault.orig}",
            _DERIVED if Path(str(engine.url.database)).name == CATALOGUE_FILE else _KEPT,
        ) from fault
