"""Skeleton of the catalogue."""
from __future__ import annotations
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from sqlalchemy import Engine
from protocol.ids import Address, Digest, Hash, ProductId
from protocol.ledger import StateWord
from protocol.records import Governance, Product, Release, State, Terms
from registry.approvals import Approvals
from registry.ports import Block, Event


@dataclass(frozen=True)
class Place:
    block: int
    timestamp: int
    tx: Hash
    index: int


@dataclass(frozen=True)
class Fleet:
    root: Digest
    size: int
    epoch: int


@dataclass(frozen=True)
class ProductEntry:
    id: ProductId
    creator: Address
    salt: Hash
    record: Product              # spelled for the time asked
    pending: Governance | None   # spelled out, while it waits
    fleet: Fleet | None
    created: Place


@dataclass(frozen=True)
class ReleaseEntry:
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
    def word(self) -> StateWord: ...
    @property
    def record(self) -> Release: ...


class Catalogue:
    def __init__(self, engine: Engine) -> None:
        """engine: open_database(settings.catalogue_file, CATALOGUE, durable=False)"""
    def head(self) -> Block | None: ...
    def final_height(self) -> int: ...
    def products(self, *, now: int | None = None, at: int | None = None) -> list[ProductEntry]: ...
    def product(self, product_id: ProductId, *, now: int | None = None, at: int | None = None) -> ProductEntry:
        """now: Unix time the record is spelled for (default: head's timestamp); at: as of that height. Misuse unknown-product."""
    def releases(self, product_id: ProductId, *, at: int | None = None) -> list[ReleaseEntry]: ...
    def release(self, product_id: ProductId, which: int, *, at: int | None = None) -> ReleaseEntry:
        """By release id. Misuse unknown-release."""
    def release_by_version(self, product_id: ProductId, version: int, *, at: int | None = None) -> ReleaseEntry: ...
    def releases_by_image(self, digest: Digest) -> list[ReleaseEntry]: ...
    def releases_by_manifest(self, digest: Digest) -> list[ReleaseEntry]: ...
    def published(self, product_id: ProductId, terms_hash: Hash) -> ReleaseEntry | None: ...
    def events(self, product_id: ProductId | None = None, *, release_id: int | None = None, after: int = 0, limit: int) -> list[tuple[Event, int]]:
        """Oldest first, with block timestamps."""
    def dump(self) -> bytes:
        """Everything derived, deterministic: equal chains give equal bytes."""
