"""Skeleton of the outbox."""
from __future__ import annotations
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any
from sqlalchemy import Engine
from protocol.ids import Hash
from registry.catalogue import Catalogue
from registry.intents import Intent
from registry.ports import Signer, TransactionSink


class Status(StrEnum):
    QUEUED = "queued"
    SIGNED = "signed"
    SENT = "sent"
    MINED = "mined"    # final by the finality policy
    FAILED = "failed"  # final: none of its transactions can take effect any more


@dataclass(frozen=True)
class Row:
    id: int
    key: str
    status: Status
    intent: Intent
    tx: Hash | None
    block: int | None
    gas_used: int | None
    error: dict[str, Any] | None  # FirmledgerError.as_dict()
    attempts: int


class Outbox:
    def __init__(self, engine: Engine, chain: Any, catalogue: Catalogue, signer: Signer, *,
                 clock: Callable[[], float], follow: Callable[[], object], holder: str,
                 depth: int | None = 0, fee_cap: int = 500 * 10**9, bump_after: int = 60) -> None:
        """engine: open_database(settings.registry_file, REGISTRY, durable=True); follow: Index.catch_up."""
    def submit(self, key: str, intent: Intent) -> int:
        """Durable row; same key => same row (a failed one is queued anew); Misuse key-reused otherwise."""
    def row(self, row_id: int) -> Row: ...
    def rows(self, *, limit: int, status: Status | None = None) -> list[Row]: ...
    def step(self) -> bool:
        """One round of everything that can be done now; True if something moved."""
    def wait(self, row_id: int, timeout: float) -> Row:
        """Until mined; raises the row's error (LedgerRefused...) when failed, Unreachable on timeout.
        Steps by itself if `run` is not running."""
    def run(self, stop: Any) -> None:
        """The worker's loop, until the threading.Event is set."""
