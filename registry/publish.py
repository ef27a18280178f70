"""The outbox at work: every act of this registry on the ledger, exactly once.

Guarantees (design, promise 8):

* Whatever crashes, times out or is reorganised, an act takes effect once. A row is written before
  anything is done, a signed transaction before it is sent, and the same bytes are sent again until
  the chain has taken them in or their nonce is spent.
* The refusals of the contract come out as `LedgerRefused`, kept in the row.
* There is one writer: every write is made under a lease with a fencing epoch.

Order, which must not change (docs/adr/0004-outbox.md): 1 the row, under its key; 2 gas, which is
when the contract would refuse; 3 the nonce, signature and bytes, in one transaction; 4 sending;
5 the receipt, believed when its block is final.

Rules: records are read when the call is made. If they are stale by the time it is run, the act is
made anew, with a new nonce, at most `MAX_ATTEMPTS` times. Before an act is signed it is looked for
on the chain. Acts whose records meet go one after the other, in the order they came.

Not here: who may act and what is agreed (the contract), and following the chain (`registry.index`).
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sqlalchemy import Column, Connection, Engine, Integer, LargeBinary, Table, insert, select

from protocol import errors
from protocol.digests import keccak256
from protocol.errors import FirmledgerError, LedgerRefused, Misuse, Refused, Unreachable
from protocol.records import Ledger
from registry import queue
from registry.catalogue import Catalogue, Place
from registry.intents import Intent, Newest, meets
from registry.lease import Lease
from registry.ports import Fees, Receipt, Signer, TransactionSink
from registry.queue import Row, SignedTx, Status
from registry.signer import transaction
from registry.store import REGISTRY, reading, writing

MAX_ATTEMPTS = 8
RESEND = 15.0  # seconds after which the same bytes are offered again
REST = 2.0  # seconds before another try, doubled with each up to MAX_REST
MAX_REST = 60.0
POLL = 0.1  # seconds between looks at the queue
STALE = ("StaleProduct", "StaleRelease")

IDENTITY = Table(
    "identity",
    REGISTRY,
    Column("chain_id", Integer, primary_key=True),
    Column("contract", LargeBinary, nullable=False),
)

log = logging.getLogger(__name__)


class Outbox:
    """One account's acts on one ledger."""

    def __init__(
        self,
        engine: Engine,
        chain: TransactionSink,
        catalogue: Catalogue,
        signer: Signer,
        *,
        clock: Callable[[], float],
        follow: Callable[[], object],
        holder: str,
        fee_cap: int,
        bump_after: float,
    ) -> None:
        """``engine``: the registry's database. ``follow``: brings the catalogue to the head.

        ``clock``: Unix seconds. ``holder``: names this process alone. ``fee_cap``: wei per gas.
        `Misuse` ``another-ledger`` if the database belongs to one.
        """
        self._engine = engine
        self._chain = chain
        self._catalogue = catalogue
        self._signer = signer
        self._clock = clock
        self._follow = follow
        self._fee_cap = fee_cap
        self._bump_after = bump_after
        self._lease = Lease(engine, "outbox", holder)
        self._stepping = threading.Lock()
        self._working = False
        with writing(engine) as sql:
            _check_identity(sql, chain.ledger)

    # -- for callers ------------------------------------------------------------------------------

    def submit(self, key: str, wanted: Intent) -> int:
        """Queues an act; returns its row's id. The same key is the same row.

        A failed row is queued anew with what is given now; `Misuse` ``key-reused`` if the key
        stands for another act that has not failed.
        """
        with writing(self._engine) as sql:
            return queue.submit(sql, key, wanted)

    def row(self, row_id: int) -> Row:
        """`Misuse` ``unknown-row`` if there is none."""
        with reading(self._engine) as sql:
            return queue.find(sql, row_id)

    def rows(self, *, status: Status | None = None, limit: int = 100) -> list[Row]:
        """Oldest first."""
        with reading(self._engine) as sql:
            return queue.rows(sql, status=(status,) if status else (), limit=limit)

    def wait(
        self, row_id: int, timeout: float, *, rest: Callable[[float], None] = time.sleep
    ) -> Row:
        """The row once it is mined for good; works on the queue itself if `run` does not.

        Raises the row's error if it failed, `Unreachable` ``not-final`` after ``timeout`` seconds.
        """
        deadline = time.monotonic() + timeout
        while not (row := self.row(row_id)).final:
            if time.monotonic() > deadline:
                raise Unreachable(
                    "not-final",
                    f"{row.key} is {row.status}, not final",
                    f"waited {timeout:g} s",
                    "it stays in the outbox; ask for it later",
                    row=row_id,
                )
            if self._working or not self.step():
                rest(POLL)
        if row.status is Status.FAILED and row.error is not None:
            raise stored_error(row.error)
        return row

    def run(self, stop: threading.Event) -> None:
        """Works on the queue, and follows the chain, until ``stop`` is set; for a thread."""
        self._working = True
        try:
            while not stop.is_set():
                pause = POLL
                try:
                    self._follow()
                    self.step()
                except FirmledgerError as error:
                    log.warning("outbox rests: %s", error)
                    pause = REST
                except Exception:  # our bug: told, and no reason to let everything else wait
                    log.exception("outbox rests")
                    pause = REST
                stop.wait(pause)
        finally:
            self._working = False
            self._lease.release()

    def step(self) -> bool:
        """One round of all that can be done now; False if nothing moved or another writer is at it.

        `Unreachable` if the chain does not answer: nothing is lost, call it again.
        """
        with self._stepping:
            if not self._lease.hold(self._clock()):
                return False
            moved = False
            for row in self._all(Status.SENT):
                moved |= self._look(row)
            for row in self._free():
                moved |= self._sign(row)
            for row in self._all(Status.SIGNED):
                moved |= self._offer(row)
            return moved

    # -- 2, 3: from queued to signed --------------------------------------------------------------

    def _sign(self, row: Row) -> bool:
        sender, now = self._signer.address, self._clock()
        if row.rest_until > now:
            return False
        self._follow()
        head = self._catalogue.head()
        newest = Newest(self._catalogue, max(int(now), head.timestamp + 1 if head else 0), sender)
        try:
            if (place := row.intent.done(newest)) is not None:
                return self._recognise(row, place)
            call = row.intent.call(newest)
            gas, data = self._chain.estimate(sender, call), self._chain.encode(call)
        except (LedgerRefused, Refused, Misuse) as refusal:
            self._refuse(row, refusal)
            return True
        fees = self._capped(self._chain.fees())
        on_chain = self._chain.nonce(sender)
        with self._writing() as sql:
            nonce = queue.next_nonce(sql, sender, on_chain)
            queue.keep(sql, self._signed(row, nonce, data, _with_margin(gas), fees))
        return True

    def _recognise(self, row: Row, place: Place) -> bool:
        """It took effect before, by a transaction this outbox lost sight of."""
        if place.block > self._catalogue.final_height():
            return False
        receipt = self._chain.receipt(place.tx)
        with self._writing() as sql:
            gas = receipt.gas_used if receipt else None
            queue.settle(sql, row, tx=place.tx, block=place.block, gas_used=gas)
        return True

    def _free(self) -> list[Row]:
        """The queued rows whose records no act works on that came first, or is under way."""
        unfinished = self._all(*queue.UNDER_WAY, Status.QUEUED)
        scopes = {row.id: row.intent.scope(self._signer.address) for row in unfinished}
        taken = [scopes[row.id] for row in unfinished if row.status in queue.UNDER_WAY]
        free = []
        for row in unfinished:
            if row.status is Status.QUEUED:
                if not any(meets(scopes[row.id], other) for other in taken):
                    free.append(row)
                taken.append(scopes[row.id])
        return free

    def _signed(self, row: Row, nonce: int, data: bytes, gas: int, fees: Fees) -> SignedTx:
        ledger = self._chain.ledger
        fields = transaction(ledger, ledger.contract, data, nonce=nonce, gas=gas, fees=fees)
        raw = self._signer.sign(fields)
        return SignedTx(
            tx=keccak256(raw), row=row.id, sender=self._signer.address, nonce=nonce, raw=raw,
            data=data, gas=gas, fees=fees, made=self._clock(), offered=None,
        )  # fmt: skip

    # -- 4: from signed to sent -------------------------------------------------------------------

    def _offer(self, row: Row) -> bool:
        now = self._clock()
        with reading(self._engine) as sql:
            newest = queue.signed(sql, row.id)[-1]
        if row.status is Status.SIGNED and row.rest_until > now:
            return False
        try:
            self._chain.send(newest.raw)
        except Refused as refusal:
            if refusal.reason == "rejected":
                with self._writing() as sql:
                    queue.note(sql, row, refusal, now + self._pause(row))
                return False
            if refusal.reason == "underpriced" and self._bump(row, newest):
                return True
            # Too low a nonce: spent by one of ours, or by others. The receipts will tell.
        with self._writing() as sql:
            queue.offered(sql, newest, now)
        return True

    def _bump(self, row: Row, old: SignedTx) -> bool:
        """A dearer transaction with the same nonce and data, kept; False where that is no use."""
        asked = self._chain.fees()
        price = max(asked.price, old.fees.price + old.fees.price // 8 + 1)
        if asked.price == 0 or price > self._fee_cap:
            return False
        tip = None
        if old.fees.tip is not None:
            tip = min(price, max(asked.tip or 0, old.fees.tip + old.fees.tip // 8 + 1))
        bumped = self._signed(row, old.nonce, old.data, old.gas, Fees(price, tip))
        with self._writing() as sql:
            queue.keep(sql, replace(bumped, sender=old.sender))
        return True

    # -- 5: from sent to final --------------------------------------------------------------------

    def _look(self, row: Row) -> bool:
        with reading(self._engine) as sql:
            under_way = queue.signed(sql, row.id)
        newest, now = under_way[-1], self._clock()
        spent = self._chain.nonce(newest.sender) > newest.nonce  # asked before the receipts
        for made in under_way:
            if (receipt := self._chain.receipt(made.tx)) is not None:
                return self._conclude(row, made, receipt)
        if spent:
            # Somebody else used the nonce: none of ours can be mined any more.
            self._retry(row, Refused(
                "nonce-spent", "transaction lost", "the account was used elsewhere",
                "let this registry alone use its account",
            ))  # fmt: skip
            return True
        if now - newest.made >= self._bump_after and self._bump(row, newest):
            return True
        if newest.offered is None or now - newest.offered >= RESEND:
            return self._offer(row)
        return False

    def _conclude(self, row: Row, made: SignedTx, receipt: Receipt) -> bool:
        self._follow()
        if receipt.block > self._catalogue.final_height():
            return False
        if receipt.succeeded:
            with self._writing() as sql:
                queue.settle(
                    sql, row, tx=receipt.tx, block=receipt.block, gas_used=receipt.gas_used
                )
            return True
        if receipt.gas_used >= made.gas:
            why: FirmledgerError = LedgerRefused(
                "out-of-gas", "transaction reverted", "its gas did not suffice",
                "it is estimated anew", error="",
            )  # fmt: skip
            self._retry(row, why)
            return True
        self._refuse(row, self._chain.why_reverted(made.sender, made.data, made.gas, receipt))
        return True

    # -- refusals ---------------------------------------------------------------------------------

    def _refuse(self, row: Row, refusal: FirmledgerError) -> None:
        """Fails the row, unless its records were only stale: then it is made anew."""
        if refusal.data.get("error") in (*STALE, ""):
            self._retry(row, refusal)
            return
        with self._writing() as sql:
            queue.fail(sql, row, refusal)

    def _retry(self, row: Row, why: FirmledgerError) -> None:
        with self._writing() as sql:
            if row.attempts + 1 >= MAX_ATTEMPTS:
                queue.fail(sql, row, why)
            else:
                rest = self._pause(row) if row.attempts else 0.0
                queue.again(sql, row, why, self._clock() + rest)

    def _pause(self, row: Row) -> float:
        return float(min(MAX_REST, REST * 2**row.attempts))

    # -- inside -----------------------------------------------------------------------------------

    def _capped(self, fees: Fees) -> Fees:
        price = min(fees.price, self._fee_cap)
        return Fees(price, None if fees.tip is None else min(fees.tip, price))

    def _all(self, *status: Status) -> list[Row]:
        with reading(self._engine) as sql:
            return queue.rows(sql, status=status)

    @contextmanager
    def _writing(self) -> Iterator[Connection]:
        with writing(self._engine) as sql:
            self._lease.check(sql)
            yield sql


def stored_error(kept: dict[str, Any]) -> FirmledgerError:
    """The error that was kept with `FirmledgerError.as_dict`."""
    families = {
        kind.family: kind
        for kind in (
            errors.Misuse, errors.Malformed, errors.Untrusted, errors.Unreachable,
            errors.LedgerRefused, errors.Refused, errors.LocalFault,
        )
    }  # fmt: skip
    kind = families.get(kept["family"], FirmledgerError)
    return kind(kept["reason"], kept["what"], kept["why"], kept["fix"], **kept.get("data", {}))


def _with_margin(gas: int) -> int:
    return gas + gas // 5 + 5_000


def _check_identity(sql: Connection, ledger: Ledger) -> None:
    row = sql.execute(select(IDENTITY)).first()
    if row is None:
        sql.execute(
            insert(IDENTITY).values(chain_id=ledger.chain_id, contract=bytes(ledger.contract))
        )
    elif (row.chain_id, row.contract) != (ledger.chain_id, ledger.contract):
        raise Misuse(
            "another-ledger",
            "outbox not opened",
            f"it belongs to contract 0x{row.contract.hex()} on chain {row.chain_id}",
            "use a directory of its own for each ledger",
        )
