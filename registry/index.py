"""Skeleton of the indexer."""
from __future__ import annotations
from collections.abc import Callable
from sqlalchemy import Engine
from registry.catalogue import Catalogue
from registry.ports import BlockSource


class Index:
    def __init__(self, chain: BlockSource, catalogue: Catalogue, orphans: Engine, *, start: int, depth: int | None = 0) -> None:
        """orphans: the registry engine (orphaned events are not derivable); start: deployed_at; depth: settings.finality_depth."""
    def catch_up(self, limit: int | None = None) -> int:
        """Follows to the head; returns the number of blocks taken in or given back."""
