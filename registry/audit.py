"""Skeleton of the audit."""
from __future__ import annotations
from dataclasses import dataclass
from typing import Any
from registry.ports import BlobSource, Chain, ReceiptLog


@dataclass(frozen=True)
class Finding:
    reason: str      # kebab-case
    sentence: str
    tx: str | None
    block: int | None


@dataclass(frozen=True)
class Report:
    ok: bool
    head: int
    events: int
    products: int
    releases: int
    receipts: int
    batches: int
    seals: int
    problems: tuple[Finding, ...]
    def as_dict(self) -> dict[str, Any]: ...   # design section 7: ok, events, releases, receipts, problems


def audit(chain: Chain, *, start: int, store: BlobSource | None = None, receipts: ReceiptLog | None = None) -> Report: ...
