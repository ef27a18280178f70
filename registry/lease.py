"""A lease on being the one writer, with a fencing epoch.

Guarantees: of all processes on one database at most one passes `check` inside a write transaction:
the one whose epoch is in the row. Whoever lost the lease without noticing is stopped there, before
it writes, however its clock runs.

Rules: the epoch rises with every new holder. A lease is free when it has expired, or when it
expires later than any could (the clock was set back).

Not here: what is written. What was *sent* is not fenced; it need not be, for only bytes that were
written are sent, and sending them twice is sending them once.
"""

from __future__ import annotations

from sqlalchemy import Column, Connection, Engine, Float, Integer, Table, Text, select
from sqlalchemy.dialects.sqlite import insert as upsert

from protocol.errors import LocalFault
from registry.store import REGISTRY, writing

TTL = 10.0  # seconds without a sign of life after which another may take over

LEASES = Table(
    "lease",
    REGISTRY,
    Column("name", Text, primary_key=True),
    Column("holder", Text, nullable=False),
    Column("epoch", Integer, nullable=False),
    Column("expires", Float, nullable=False),
)


class Lease:
    """One holder's claim to one name."""

    def __init__(self, engine: Engine, name: str, holder: str) -> None:
        """``holder``: of this process alone, such as a random id."""
        self._engine = engine
        self._name = name
        self.holder = holder
        self.epoch = 0

    def hold(self, now: float) -> bool:
        """Takes or renews the lease at ``now`` (Unix seconds); False while another one has it."""
        with writing(self._engine) as sql:
            row = sql.execute(select(LEASES).where(LEASES.c.name == self._name)).first()
            mine = row is not None and (row.holder, row.epoch) == (self.holder, self.epoch)
            taken = row is not None and now < row.expires <= now + TTL
            if taken and not mine:
                return False
            if not mine:
                self.epoch = 1 if row is None else row.epoch + 1
            self._write(sql, now + TTL)
        return True

    def check(self, sql: Connection) -> None:
        """Inside a write transaction: `LocalFault` ``lease-lost`` unless this holder has it."""
        row = sql.execute(select(LEASES).where(LEASES.c.name == self._name)).first()
        if row is None or (row.holder, row.epoch) != (self.holder, self.epoch):
            raise LocalFault(
                "lease-lost",
                "nothing written",
                "another process has taken over as the one writer",
                "let it work, or stop it; this one takes over when it has gone quiet",
            )

    def release(self) -> None:
        """Lets another take over at once; nothing if the lease is not held."""
        with writing(self._engine) as sql:
            row = sql.execute(select(LEASES).where(LEASES.c.name == self._name)).first()
            if row is not None and (row.holder, row.epoch) == (self.holder, self.epoch):
                self._write(sql, 0.0)

    def _write(self, sql: Connection, expires: float) -> None:
        held = {"holder": self.holder, "epoch": self.epoch, "expires": expires}
        row = upsert(LEASES).values(name=self._name, **held)
        sql.execute(row.on_conflict_do_update(index_elements=["name"], set_=held))
