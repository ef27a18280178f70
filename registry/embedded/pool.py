"""Transactions that were accepted and are not in a block yet.

Guarantees: what is in the pool is a well-formed, replay-protected transaction for this chain, with
a valid signature and a gas limit that fits a block; its size and the pool's are bounded.

Rules:

* A known transaction is refused as already known, whether it waits here or is in a block.
* A gap in the nonces waits for what is missing, up to `MAX_GAP` ahead.
* The same nonce again replaces only for a fee at least a tenth (and one wei) higher.
* Accounts without funds have a part of the pool, and cannot fill it.
* Higher fees go first. Gas may be free here, so this is what lets a funded account pass a flood.

Not kept: the pool lives in memory. Whoever sent a transaction sends the same bytes again after a
restart, as with any node.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from protocol.errors import Refused
from protocol.ids import Address, Hash

MAX_POOL = 4096
MAX_STRANGERS = 1024
MAX_GAP = 256

NonceOf = Callable[[Address], int]


@dataclass(frozen=True, slots=True)
class Pending:
    """A decoded transaction beside its raw bytes; ``fee`` is the most it pays per gas, in wei.

    ``stranger``: its sender has no funds.
    """

    raw: bytes
    hash: Hash
    sender: Address
    nonce: int
    gas: int
    fee: int
    value: int
    decoded: Any
    stranger: bool = False

    def check_funds(self, balance: int) -> None:
        """`Refused` unless ``balance`` (wei) covers the value and the most the gas may cost."""
        needed = self.value + self.gas * self.fee
        if balance < needed:
            raise Refused(
                "insufficient-funds",
                "transaction refused",
                f"address {self.sender} have {balance} want {needed}",
                "offer a gas price of 0, which is enough here, or fund the account",
            )


class Pool:
    """Pending transactions by sender and nonce; safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_hash: dict[Hash, Pending] = {}  # in order of arrival
        self._by_nonce: dict[tuple[Address, int], Pending] = {}

    def __len__(self) -> int:
        return len(self._by_hash)

    def get(self, transaction: bytes) -> Pending | None:
        """The pending transaction with this hash."""
        return self._by_hash.get(Hash(transaction))

    def add(self, pending: Pending, next_nonce: int) -> None:
        """Accepts or refuses ``pending``; ``next_nonce`` is its sender's in the latest state."""
        with self._lock:
            if pending.hash in self._by_hash:
                raise known(pending.hash)
            self._check_nonce(pending, next_nonce)
            rival = self._by_nonce.get((pending.sender, pending.nonce))
            if rival is not None:
                _check_replacement(pending, rival)
                self._remove(rival)
            elif pending.stranger and self._strangers() >= MAX_STRANGERS:
                raise _full(MAX_STRANGERS, "wait for the next block, or fund the account")
            elif len(self._by_hash) >= MAX_POOL:
                self._make_room(pending)
            self._by_hash[pending.hash] = pending
            self._by_nonce[pending.sender, pending.nonce] = pending

    def next_nonce(self, sender: Address, confirmed: int) -> int:
        """The first nonce from ``confirmed`` on that neither state nor pool has used."""
        while (sender, confirmed) in self._by_nonce:
            confirmed += 1
        return confirmed

    def executable(self, nonce_of: NonceOf) -> list[Pending]:
        """What can be applied now: per sender without a gap, best fee first, then by arrival."""
        with self._lock:
            senders = dict.fromkeys(sender for sender, _nonce in self._by_nonce)
            runs = [run for sender in senders if (run := self._run(sender, nonce_of(sender)))]
            runs.sort(key=lambda run: -run[0].fee)  # stable: equal fees stay in order of arrival
            return [pending for run in runs for pending in run]

    def settle(self, nonce_of: NonceOf, gone: Collection[Hash]) -> None:
        """After a block: forgets what was mined or overtaken, and the transactions ``gone``."""
        with self._lock:
            for pending in list(self._by_hash.values()):
                if pending.hash in gone or pending.nonce < nonce_of(pending.sender):
                    self._remove(pending)

    def _run(self, sender: Address, nonce: int) -> list[Pending]:
        run = []
        while (pending := self._by_nonce.get((sender, nonce))) is not None:
            run.append(pending)
            nonce += 1
        return run

    def _remove(self, pending: Pending) -> None:
        del self._by_hash[pending.hash]
        del self._by_nonce[pending.sender, pending.nonce]

    def _check_nonce(self, pending: Pending, next_nonce: int) -> None:
        if pending.nonce < next_nonce:
            raise Refused(
                "nonce-too-low",
                "transaction refused",
                f"next nonce {next_nonce}, tx nonce {pending.nonce}",
                "sign it with the next nonce",
            )
        free = self.next_nonce(pending.sender, next_nonce)
        if pending.nonce > free + MAX_GAP:
            raise Refused(
                "nonce-too-high",
                "transaction refused",
                f"next nonce {free}, tx nonce {pending.nonce}",
                "send the missing ones first",
            )

    def _strangers(self) -> int:
        return sum(waiting.stranger for waiting in self._by_hash.values())

    def _make_room(self, pending: Pending) -> None:
        cheapest = min(reversed(self._by_hash.values()), key=lambda waiting: waiting.fee)
        if pending.fee <= cheapest.fee:
            raise _full(MAX_POOL, "wait for the next block, or offer a higher fee")
        self._remove(cheapest)


def known(transaction: Hash) -> Refused:
    """The answer to a transaction that is already here: for its sender as good as acceptance."""
    return Refused(
        "already-known",
        "transaction refused",
        f"{transaction} is already here",
        "ask for its receipt",
    )


def _full(many: int, fix: str) -> Refused:
    return Refused("pool-full", "transaction refused", f"{many} like it are waiting already", fix)


def _check_replacement(pending: Pending, rival: Pending) -> None:
    wanted = max(rival.fee + rival.fee // 10, rival.fee + 1)
    if pending.fee < wanted:
        raise Refused(
            "replacement-underpriced",
            "transaction refused",
            f"nonce {pending.nonce} is taken by {rival.hash} at {rival.fee} wei per gas",
            f"offer at least {wanted} wei per gas, or use the next nonce",
        )
