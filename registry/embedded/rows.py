"""The tables of the chain file, and how its rows become values and back.

Rules: amounts and places are integers, everything else is bytes; a log keeps its topics in four
columns, so that each can be asked for. SQL text is made here from constants alone; what a query
asks for goes in as bound values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from registry.embedded.execution import Log, Outcome

SCHEMA = """
CREATE TABLE identity (chain_id INTEGER PRIMARY KEY);
CREATE TABLE node (hash BLOB PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
CREATE TABLE block (number INTEGER PRIMARY KEY, hash BLOB NOT NULL UNIQUE, header BLOB NOT NULL);
CREATE TABLE mined (
  hash BLOB PRIMARY KEY, block INTEGER NOT NULL, position INTEGER NOT NULL, raw BLOB NOT NULL,
  sender BLOB NOT NULL, succeeded INTEGER NOT NULL, gas_used INTEGER NOT NULL,
  cumulative_gas INTEGER NOT NULL, bloom BLOB NOT NULL, contract BLOB,
  UNIQUE (block, position)) WITHOUT ROWID;
CREATE TABLE log (
  block INTEGER NOT NULL, position INTEGER NOT NULL, mined_position INTEGER NOT NULL,
  address BLOB NOT NULL, topic0 BLOB, topic1 BLOB, topic2 BLOB, topic3 BLOB, data BLOB NOT NULL,
  PRIMARY KEY (block, position)) WITHOUT ROWID;
CREATE INDEX log_by_address ON log (address, block);
CREATE INDEX log_by_topic ON log (topic0, block);
"""
LOG_COLUMNS = """log.block, block.hash, log.position, log.mined_position, mined.hash,
  log.address, log.topic0, log.topic1, log.topic2, log.topic3, log.data"""
LOG_SOURCE = """log JOIN block ON block.number = log.block
  JOIN mined ON mined.block = log.block AND mined.position = log.mined_position"""


@dataclass(frozen=True, slots=True)
class Mined:
    """A transaction in its block: where it stands, its raw bytes and what came of it."""

    hash: bytes
    block: int
    position: int
    raw: bytes
    sender: bytes
    succeeded: bool
    gas_used: int
    cumulative_gas: int
    bloom: bytes
    contract: bytes | None


@dataclass(frozen=True, slots=True)
class FoundLog:
    """An event where it happened; ``position`` counts within the block."""

    block: int
    block_hash: bytes
    position: int
    mined_position: int
    mined_hash: bytes
    log: Log


@dataclass(frozen=True, slots=True)
class LogFilter:
    """Blocks ``first`` to ``last``, both included; each topic position lists what it may be.

    No address, or an empty topic position, matches anything.
    """

    first: int
    last: int
    addresses: Sequence[bytes] = ()
    topics: Sequence[Sequence[bytes]] = ()


def mined_row(number: int, place: int, outcome: Outcome) -> tuple[object, ...]:
    """A row of ``mined``, in the order of its columns."""
    pending = outcome.pending
    return (
        bytes(pending.hash),
        number,
        place,
        pending.raw,
        bytes(pending.sender),
        outcome.succeeded,
        outcome.gas_used,
        outcome.cumulative_gas,
        outcome.bloom,
        outcome.contract,
    )


def log_rows(number: int, outcomes: Sequence[Outcome]) -> Iterator[tuple[object, ...]]:
    """Rows of ``log`` for one block, numbered through it."""
    position = 0
    for mined_position, outcome in enumerate(outcomes):
        for log in outcome.logs:
            topics = (*log.topics, None, None, None, None)[:4]
            yield (number, position, mined_position, log.address, *topics, log.data)
            position += 1


def to_mined(row: Sequence[Any]) -> Mined:
    """The inverse of `mined_row`."""
    return Mined(*(*row[:5], bool(row[5]), *row[6:]))


def to_found(row: Sequence[Any]) -> FoundLog:
    """A row of `LOG_COLUMNS`."""
    topics = tuple(topic for topic in row[6:10] if topic is not None)
    log = Log(row[5], topics, row[10])
    return FoundLog(*(*row[:5], log))


def condition(wanted: LogFilter) -> tuple[str, list[object]]:
    """A WHERE clause over placeholders; the only text in it is ours."""
    clauses, values = ["log.block BETWEEN ? AND ?"], [wanted.first, wanted.last]
    columns = [("log.address", wanted.addresses)]
    columns += [(f"log.topic{place}", some) for place, some in enumerate(wanted.topics)]
    result: list[object] = list(values)
    for column, some in columns:
        if some:
            clauses.append(f"{column} IN ({', '.join('?' * len(some))})")
            result.extend(some)
    return " AND ".join(clauses), result
