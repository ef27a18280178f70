"""The chain on disk: one SQLite file with state nodes, blocks, transactions, receipts and logs.

Guarantees:

* `append` commits a block, its seals, its transactions, logs and state nodes in one transaction,
  synchronous=FULL: when it returns, the block survives kill -9 and power loss; when it raises, or
  never returns, nothing of the block is there.
* There is never a second block at one height: the height is the primary key.
* Nothing is ever deleted, so every state root stays provable.

Rules: one writer (the directory's lock sees to it, see `home`); readers use a connection of their
own and see whole blocks only. Queries never replay a block: logs are rows, indexed by emitter and
by first topic.

Not checked here: that what was read back is what was written. Whoever owns the file owns the chain.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

from protocol.errors import LocalFault, Refused
from protocol.header import Header, block_hash, encode_header, parse_header
from registry.embedded.execution import Outcome
from registry.embedded.rows import (
    LOG_COLUMNS,
    LOG_SOURCE,
    SCHEMA,
    FoundLog,
    LogFilter,
    Mined,
    condition,
    log_rows,
    mined_row,
    to_found,
    to_mined,
)

FORMAT = 1
MAX_LOGS = 10_000


class Store:
    """An open chain file. `close` it; sqlite3's errors come out as `LocalFault`."""

    def __init__(self, path: Path) -> None:
        """Opens a file that `create` made."""
        self._path = path
        if not path.is_file():
            raise LocalFault(
                "ledger-missing", f"{path} not opened", "it is not there", "make a new ledger"
            )
        with _faults(self._path):
            self._writer = self._connect()
            self._check_format()
            self._reader = self._connect()
        self._reading = threading.Lock()

    @classmethod
    def create(cls, path: Path, chain_id: int) -> Self:
        """Lays a new file, without any block yet, and opens it."""
        with _faults(path), closing(sqlite3.connect(path)) as file:
            file.executescript(f"{SCHEMA} PRAGMA user_version={FORMAT};")
            file.execute("INSERT INTO identity VALUES (?)", (chain_id,))
            file.commit()
        return cls(path)

    def close(self) -> None:
        """Closes both connections; SQLite folds its write-ahead log into the file."""
        self._reader.close()
        self._writer.close()

    def append(
        self, header: Header, outcomes: Sequence[Outcome], nodes: Mapping[bytes, bytes]
    ) -> None:
        """Makes a sealed block durable, whole or not at all; before anyone sees the block."""
        number = header.number
        block = (number, bytes(block_hash(header)), encode_header(header))
        with _faults(self._path), self._transaction() as sql:
            sql.executemany("INSERT OR IGNORE INTO node VALUES (?, ?)", nodes.items())
            sql.execute("INSERT INTO block VALUES (?, ?, ?)", block)
            sql.executemany(
                "INSERT INTO mined VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (mined_row(number, place, o) for place, o in enumerate(outcomes)),
            )
            sql.executemany(
                "INSERT INTO log VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", log_rows(number, outcomes)
            )

    def node(self, key: bytes) -> bytes | None:
        """A trie node or a contract's code, by its keccak-256."""
        row = self._one("SELECT value FROM node WHERE hash = ?", key)
        return None if row is None else bytes(row[0])

    def chain_id(self) -> int:
        """The chain's id, as drawn at its creation."""
        row = self._one("SELECT chain_id FROM identity")
        if row is None:
            raise self._empty()
        return int(row[0])

    def head(self) -> Header:
        """The header of the highest block."""
        row = self._one("SELECT header FROM block ORDER BY number DESC LIMIT 1")
        if row is None:
            raise self._empty()
        return parse_header(row[0])

    def header(self, number: int) -> Header | None:
        """The header at this height."""
        row = self._one("SELECT header FROM block WHERE number = ?", number)
        return None if row is None else parse_header(row[0])

    def number_of(self, hashed: bytes) -> int | None:
        """The height of the block with this hash."""
        row = self._one("SELECT number FROM block WHERE hash = ?", hashed)
        return None if row is None else int(row[0])

    def hashes_down_from(self, number: int) -> Iterator[bytes]:
        """Block hashes from this height downwards, read one by one as they are asked for."""
        while (row := self._one("SELECT hash FROM block WHERE number = ?", number)) is not None:
            yield bytes(row[0])
            number -= 1

    def mined(self, transaction: bytes) -> Mined | None:
        """The transaction with this hash, if it is in a block."""
        row = self._one("SELECT * FROM mined WHERE hash = ?", transaction)
        return None if row is None else to_mined(row)

    def mined_in(self, number: int) -> list[Mined]:
        """A block's transactions, in order."""
        return [
            to_mined(row)
            for row in self._all("SELECT * FROM mined WHERE block = ? ORDER BY position", number)
        ]

    def logs_of(self, mined: Mined) -> list[FoundLog]:
        """The events of one transaction, in order."""
        rows = self._all(
            f"SELECT {LOG_COLUMNS} FROM {LOG_SOURCE}"  # noqa: S608 - no user text
            " WHERE log.block = ? AND log.mined_position = ? ORDER BY log.position",
            mined.block,
            mined.position,
        )
        return [to_found(row) for row in rows]

    def logs(self, wanted: LogFilter) -> list[FoundLog]:
        """Events in order; `Refused` ``too-many-logs`` beyond `MAX_LOGS`: none goes missing."""
        where, values = condition(wanted)
        rows = self._all(
            f"SELECT {LOG_COLUMNS} FROM {LOG_SOURCE} WHERE {where}"  # noqa: S608 - no user text
            f" ORDER BY log.block, log.position LIMIT {MAX_LOGS + 1}",
            *values,
        )
        if len(rows) > MAX_LOGS:
            raise Refused(
                "too-many-logs",
                "query refused",
                f"it matches more than {MAX_LOGS} logs",
                "ask for fewer blocks at a time",
            )
        return [to_found(row) for row in rows]

    def _connect(self) -> sqlite3.Connection:
        # Threads share them: the writer under the ledger's lock, the reader under our own.
        connection = sqlite3.connect(self._path, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        return connection

    def _check_format(self) -> None:
        (found,) = self._writer.execute("PRAGMA user_version").fetchone()
        if found != FORMAT:
            raise LocalFault(
                "ledger-format",
                f"{self._path} not opened",
                f"it has format {found}, not {FORMAT}",
                "open it with the version that made it",
            )

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        self._writer.execute("BEGIN IMMEDIATE")
        try:
            yield self._writer
            self._writer.execute("COMMIT")
        except BaseException:
            if self._writer.in_transaction:
                self._writer.execute("ROLLBACK")
            raise

    def _empty(self) -> LocalFault:
        return LocalFault(
            "ledger-empty", f"{self._path} not served", "it holds no chain", "make a new ledger"
        )

    def _one(self, sql: str, *values: object) -> tuple[Any, ...] | None:
        rows = self._all(sql, *values)
        return rows[0] if rows else None

    def _all(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with _faults(self._path), self._reading:
            return self._reader.execute(sql, values).fetchall()


@contextmanager
def _faults(path: Path) -> Iterator[None]:
    """Where SQLite's errors become ours."""
    try:
        yield
    except sqlite3.Error as fault:
        raise LocalFault(
            "ledger-storage",
            f"{path} not used",
            f"SQLite says: {fault}",
            "check free space and the disk; what was served before is untouched",
        ) from fault
