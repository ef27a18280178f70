"""Following the chain into the catalogue, block by block.

Guarantees:

* A block is taken in with all its events in one transaction, or not at all; a block stands on its
  parent, or it is not taken in.
* Where the chain has changed its mind, blocks are given back one by one; their events are kept as
  orphans for auditors, in the registry's own database, *before* they leave the catalogue.
* What was final is never given back: that is refused with `Untrusted` ``finality-broken``.

Rules: final is what lies ``depth`` blocks under the head (0: every block at once, as QBFT means
it), or what the chain calls so. It never moves down. Empty blocks under it are dropped.

Not here: whether the node tells the truth (`registry.audit`).
"""

from __future__ import annotations

import json
from typing import Any

from sqlalchemy import Column, Engine, Integer, LargeBinary, Table, Text, delete, select
from sqlalchemy.dialects.sqlite import insert as upsert

from protocol.errors import Untrusted
from registry.catalogue import Catalogue, block_of, final_height, newest_block
from registry.derive import take_in
from registry.ports import Block, BlockSource
from registry.store import REGISTRY, reading, writing
from registry.tables import BLOCKS, EVENTS, FINAL, MARKS, PLACED, VALIDATORS

ORPHANS = Table(
    "orphan",
    REGISTRY,
    Column("block_hash", LargeBinary, primary_key=True),
    Column("position", Integer, primary_key=True, autoincrement=False),
    Column("block", Integer, nullable=False),
    Column("tx", LargeBinary, nullable=False),
    Column("name", Text, nullable=False),
    Column("args", Text, nullable=False),
)


class Index:
    """One follower of one chain; only one writes a catalogue at a time."""

    def __init__(
        self,
        chain: BlockSource,
        catalogue: Catalogue,
        orphans: Engine,
        *,
        start: int,
        depth: int | None = 0,
    ) -> None:
        """``orphans``: the registry's database. ``start``: height of the contract's deployment.

        ``depth``: blocks on top that make one final; None: the chain's tag ``finalized`` says so.
        """
        self._chain = chain
        self._engine = catalogue.engine
        self._orphans = orphans
        self._start = start
        self._depth = depth
        self._forget_older_form()

    def catch_up(self, limit: int | None = None) -> int:
        """Follows to the head; returns the number of blocks taken in and given back.

        ``limit``: stop after so many. `Unreachable` leaves what was done so far, whole.
        """
        moved = 0
        while limit is None or moved < limit:
            if not self._step():
                break
            moved += 1
        if moved:
            self._mark_final()
        return moved

    def _forget_older_form(self) -> None:
        """Empties a catalogue that was begun without its validators: it is followed anew."""
        with writing(self._engine) as sql:
            begun = sql.execute(select(BLOCKS.c.number).limit(1)).first()
            if begun and not sql.execute(select(VALIDATORS.c.block).limit(1)).first():
                for table in (*PLACED, BLOCKS, MARKS):
                    sql.execute(delete(table))

    def _step(self) -> bool:
        with reading(self._engine) as sql:
            last = newest_block(sql)
        following = self._chain.block(self._start if last is None else last.number + 1)
        if following is None:
            return last is not None and self._check_tip(last)
        if last is not None and following.parent != last.hash:
            self._give_back(last)
            return True
        events = self._chain.events(following.hash)
        with writing(self._engine) as sql:
            take_in(sql, following, events)
        return True

    def _check_tip(self, last: Block) -> bool:
        """At the end: whether our newest block is still the chain's; if not, it is given back."""
        theirs = self._chain.block(last.number) or self._chain.head()
        with reading(self._engine) as sql:
            row = sql.execute(select(BLOCKS).where(BLOCKS.c.number == theirs.number)).first()
        # A node that only lags behind shows a block we know, or one too old to be in the table.
        if row is None or block_of(row).hash == theirs.hash:
            return False
        self._give_back(last)
        return True

    def _give_back(self, last: Block) -> None:
        with reading(self._engine) as sql:
            if last.number <= final_height(sql):
                raise Untrusted(
                    "finality-broken",
                    f"block {last.number} ({last.hash}) not given back",
                    "it was final, and the chain now shows another one",
                    "ask the validators why; keep catalogue.sqlite as evidence, then delete it to"
                    " follow the new history, or raise finality in settings.toml",
                    block=last.number,
                )
            lost = sql.execute(select(EVENTS).where(EVENTS.c.block == last.number)).all()
        if lost:  # first kept, then dropped: a crash in between keeps them twice, which is once
            with writing(self._orphans) as sql:
                rows = [_orphan(last, row) for row in lost]
                sql.execute(upsert(ORPHANS).on_conflict_do_nothing(), rows)
        with writing(self._engine) as sql:
            for table in PLACED:
                sql.execute(delete(table).where(table.c.block >= last.number))
            sql.execute(delete(BLOCKS).where(BLOCKS.c.number >= last.number))

    def _mark_final(self) -> None:
        with writing(self._engine) as sql:
            head, before = newest_block(sql), final_height(sql)
            if head is None:
                return
            final = self._final(head)
            if final <= before:
                return
            mark = upsert(MARKS).values(name=FINAL, value=final)
            sql.execute(mark.on_conflict_do_update(index_elements=["name"], set_={"value": final}))
            eventful = select(EVENTS.c.block)
            sql.execute(
                delete(BLOCKS).where(BLOCKS.c.number < final, BLOCKS.c.number.not_in(eventful))
            )

    def _final(self, head: Block) -> int:
        if self._depth is None:
            return min(self._chain.finalized().number, head.number)
        return head.number - self._depth


def orphans(engine: Engine) -> list[dict[str, Any]]:
    """The events that the chain took back, oldest first, ready for JSON."""
    wanted = select(ORPHANS).order_by(ORPHANS.c.block, ORPHANS.c.block_hash, ORPHANS.c.position)
    with reading(engine) as sql:
        return [
            {
                "block": row.block,
                "block_hash": "0x" + row.block_hash.hex(),
                "tx": "0x" + row.tx.hex(),
                "index": row.position,
                "name": row.name,
                "args": json.loads(row.args),
            }
            for row in sql.execute(wanted)
        ]


def _orphan(block: Block, row: Any) -> dict[str, Any]:
    return {
        "block_hash": bytes(block.hash),
        "position": row.position,
        "block": row.block,
        "tx": row.tx,
        "name": row.name,
        "args": row.args,
    }
