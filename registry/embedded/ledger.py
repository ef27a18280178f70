"""The embedded ledger: takes transactions, seals blocks, and answers from the sealed chain.

Guarantees:

* What is served as head is durable: block, header and seals are committed before anyone sees them.
  After kill -9 anywhere the same block is served, never another one at its height.
* Heights rise by one and timestamps strictly, whatever the clock does.

Rules (design section 6):

* A block is stamped max(now, parent + 1) *before* its transactions run.
* At most one block a second. While the clock moves on, the rising stamp alone sees to that; while
  it stands, or was set back, `steady` does.
* An empty block when the head is older than the heartbeat, or is genesis, which carries no seals
  and so proves nothing. While the clock is behind the head, no empty block pushes it further ahead.
* One writer: blocks are made under one lock, by the thread of `start`, or by whoever drives `tick`
  and `seal_now`.

Not done here: judging who may send (the contract does), or keeping the pool over a restart.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

from protocol.header import Field, Header, block_hash
from protocol.ids import Address, Hash
from registry.embedded import execution, rpc, sealing
from registry.embedded.admission import admit, judge_sender
from registry.embedded.calls import Accounts, Meter
from registry.embedded.execution import Nodes, Surroundings
from registry.embedded.home import VALIDATORS, Entropy, Home, Lock, draw_chain_id, draw_key
from registry.embedded.pool import Pending, Pool, known
from registry.embedded.store import Store

FEE_FUNDS = 10**24  # wei; gas is free, this only lets the registry outbid a flood
STRANGERS_CALL_GAS = 3_000_000  # the contract's calls take less than a third of it
STRANGERS_REQUEST_GAS = 6_000_000
POLL = 0.1  # seconds between looks at the clock
RETRY = 2.0  # seconds of rest after a fault of the disk

log = logging.getLogger(__name__)


class Clock(Protocol):
    """The time of the world, shared by chain and devices in the demo."""

    def now(self) -> int:
        """Seconds since 1970; may stand still, jump, or go back."""
        ...


@dataclass(frozen=True, slots=True)
class Head:
    """The block being served: an immutable snapshot that any thread may read from."""

    header: Header
    hash: Hash

    @property
    def number(self) -> int:
        """Its height."""
        return self.header.number


class EmbeddedLedger:
    """One open ledger. Make it with `create`, open it with `open`, and `close` it.

    Reading, `submit` and `handle` are safe from any thread.
    """

    def __init__(
        self,
        home: Home,
        lock: Lock,
        store: Store,
        *,
        clock: Clock,
        heartbeat: int,
        steady: Callable[[], float],
    ) -> None:
        self.store = store
        self.pool = Pool()
        self._lock = lock
        self._clock, self._heartbeat, self._steady = clock, heartbeat, steady
        self.chain_id = store.chain_id()
        self._head = _head(store.head())
        self.validators = self._head.header.extra.validators
        self._keys = home.validator_keys(self.validators)
        self._sealed_at = steady()
        self._writing = threading.Lock()
        self._wake, self._stop = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    @classmethod
    def create(
        cls, directory: Path, *, clock: Clock, entropy: Entropy = secrets.token_bytes
    ) -> None:
        """Draws chain id, validator and fee keys under ``directory``; lays genesis, stamped now.

        `Misuse` if a ledger is there already. Killed half-way it leaves none.
        """
        home = Home(directory)
        fee = home.draw_fee_key(entropy)
        keys = [draw_key(entropy) for _ in range(VALIDATORS)]
        aside = home.stage(keys)
        store = Store.create(aside / home.chain_file.name, draw_chain_id(entropy))
        try:
            nodes = Nodes(store.node)
            root = execution.run_genesis(nodes, {fee: FEE_FUNDS})
            validators = [sealing.address_of(key.public_key) for key in keys]
            genesis = _draft(None, clock.now(), validators, execution.BlockRun(state_root=root))
            store.append(genesis, [], nodes.written)
        finally:
            store.close()
        home.put_in_place(aside)

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Clock,
        heartbeat: int = 10,
        steady: Callable[[], float] = time.monotonic,
    ) -> Self:
        """Takes the lock and loads the head. ``heartbeat`` in seconds; ``steady`` never goes back.

        `Misuse` where there is no ledger, `LocalFault` where it is open elsewhere or damaged.
        """
        home = Home(directory)
        lock = Lock(home)
        try:
            store = Store(home.chain_file)
            try:
                return cls(home, lock, store, clock=clock, heartbeat=heartbeat, steady=steady)
            except BaseException:
                store.close()
                raise
        except BaseException:
            lock.release()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def start(self) -> None:
        """Seals in a thread of its own from now on, until `close`."""
        self._thread = threading.Thread(
            target=self._seal_until_stopped, name="sealing", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Finishes the block in the making, then lets go of file and lock."""
        self._stop.set()
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        with self._writing:
            self.store.close()
            self._lock.release()

    @property
    def head(self) -> Head:
        """The latest block; durable before it shows here."""
        return self._head

    def accounts(self, header: Header | None = None) -> Accounts:
        """The accounts as this block left them (the head's by default)."""
        root = (header or self._head.header).state_root
        return Accounts(Nodes(self.store.node), root)

    def next_surroundings(self, parent: Header) -> Surroundings:
        """What code sees in a block made now on top of ``parent``: stamped max(now, parent + 1)."""
        number = parent.number + 1
        return Surroundings(
            chain_id=self.chain_id,
            number=number,
            timestamp=max(self._clock.now(), parent.timestamp + 1),
            beneficiary=self.validators[number % len(self.validators)],
            ancestors=self.store.hashes_down_from(parent.number),
        )

    def surroundings_of(self, header: Header) -> Surroundings:
        """What code saw in this block."""
        return Surroundings(
            chain_id=self.chain_id,
            number=header.number,
            timestamp=header.timestamp,
            beneficiary=sealing.raw_field(header, Field.COINBASE),
            ancestors=self.store.hashes_down_from(header.number - 1),
        )

    def submit(self, raw: bytes) -> Hash:
        """Takes a signed transaction into the pool and returns its hash.

        `Malformed` if it cannot be read, `Refused` ``already-known``, ``nonce-too-low``, … if it
        cannot run here.
        """
        pending = admit(raw, self.chain_id)
        accounts = self.accounts()
        # After the state was read: what that state knows as sent is in the store by now.
        if self.store.mined(pending.hash) is not None:
            raise known(pending.hash)
        pending = judge_sender(pending, accounts.balance(pending.sender))
        self.pool.add(pending, accounts.nonce(pending.sender))
        self._wake.set()
        return pending.hash

    def tick(self) -> Head | None:
        """Seals a block if one is due; what the sealing thread does over and over."""
        with self._writing:
            return self._make_block() if self._is_due() else None

    def seal_now(self) -> Head:
        """Seals a block whatever the pace; for tests and simulated time.

        Called more than once a second it puts the stamps ahead of the clock.
        """
        with self._writing:
            return self._make_block()

    def handle(self, request: object) -> Any:
        """A JSON-RPC 2.0 request, or batch, to its response; see `rpc`. It never raises."""
        return rpc.handle(self, request, Meter())

    def handle_strangers(self, request: object) -> Any:
        """The same for whoever may ask: with less gas for calls, and for the whole request."""
        return rpc.handle(self, request, Meter(STRANGERS_CALL_GAS, STRANGERS_REQUEST_GAS))

    def _is_due(self) -> bool:
        now, head = self._clock.now(), self._head.header
        if head.number == 0:
            return True
        if len(self.pool) and self.pool.executable(self.accounts().nonce):
            return now > head.timestamp or self._steady() - self._sealed_at >= 1
        return now - head.timestamp >= self._heartbeat

    def _make_block(self) -> Head:
        """1 stamp, 2 run, 3 seal, 4 commit, 5 serve: in this order, or devices see two truths."""
        durable = self.store.head()
        if durable.number > self._head.number:  # committed, and interrupted before it was served
            return self._serve(durable)
        parent, before = self._head, self.accounts()
        around = self.next_surroundings(parent.header)
        nodes = Nodes(self.store.node)
        candidates = self.pool.executable(before.nonce)
        run = execution.run_block(nodes, parent.header.state_root, around, candidates)
        draft = _draft(parent, around.timestamp, self.validators, run)
        sealed = sealing.seal(draft, self._keys)
        self.store.append(sealed, run.outcomes, nodes.written)
        return self._serve(sealed, run.rejected)

    def _serve(self, sealed: Header, rejected: Sequence[tuple[Pending, str]] = ()) -> Head:
        self._head = _head(sealed)
        self._sealed_at = self._steady()
        for pending, why in rejected:
            log.warning("transaction %s dropped: %s", pending.hash, why)
        self.pool.settle(self.accounts().nonce, {pending.hash for pending, _why in rejected})
        return self._head

    def _seal_until_stopped(self) -> None:
        while not self._stop.is_set():
            rest = POLL
            try:
                self.tick()
            except Exception:
                # Nothing was served that is not durable; the next try goes on from what is.
                log.exception("no block sealed, trying again in %s s", RETRY)
                rest = RETRY
            self._wake.wait(rest)
            self._wake.clear()


def _head(header: Header) -> Head:
    return Head(header, block_hash(header))


def _draft(
    parent: Head | None, timestamp: int, validators: Sequence[Address], run: execution.BlockRun
) -> Header:
    number = 0 if parent is None else parent.number + 1
    return sealing.compose(
        parent_hash=bytes(32) if parent is None else parent.hash,
        beneficiary=bytes(20) if parent is None else validators[number % len(validators)],
        state_root=run.state_root,
        transactions_root=run.transactions_root,
        receipts_root=run.receipts_root,
        logs_bloom=run.bloom,
        number=number,
        gas_used=run.gas_used,
        timestamp=timestamp,
        validators=validators,
    )
