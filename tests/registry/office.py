"""A registry's outbox, indexer and catalogue, on the real ledger or a simulated one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from registry.catalogue import Catalogue
from registry.index import Index
from registry.intents import Intent
from registry.publish import Outbox
from registry.queue import Row
from registry.signer import KeySigner
from registry.store import CATALOGUE, REGISTRY, open_database


class Office:
    """All on the databases in one folder; a second one on the same folder is a restart."""

    def __init__(
        self,
        folder: Path,
        chain: Any,
        signer: KeySigner,
        *,
        clock: Callable[[], float],
        rest: Callable[[float], None],
        start: int = 0,
        depth: int | None = 0,
        holder: str = "office",
        fee_cap: int = 1_000,
    ) -> None:
        self.engine = open_database(folder / "registry.sqlite", REGISTRY, durable=True)
        catalogue = open_database(folder / "catalogue.sqlite", CATALOGUE, durable=False)
        self.catalogue = Catalogue(catalogue)
        self.index = Index(chain, self.catalogue, self.engine, start=start, depth=depth)
        self.outbox = Outbox(
            self.engine,
            chain,
            self.catalogue,
            signer,
            clock=clock,
            follow=self.index.catch_up,
            holder=holder,
            fee_cap=fee_cap,
            bump_after=60,
        )
        self._rest = rest

    def do(self, key: str, intent: Intent) -> Row:
        """Submits, and waits until it is mined."""
        return self.outbox.wait(self.outbox.submit(key, intent), 10, rest=self._rest)

    def close(self) -> None:
        self.catalogue.engine.dispose()
        self.engine.dispose()
