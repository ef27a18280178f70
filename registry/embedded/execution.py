"""Runs blocks of transactions on py-evm.

Guarantees: nothing is written but to the `Nodes` it was given, so whoever holds them decides what
becomes durable; roots, receipts, logs and gas are py-evm's own.

Rules: Paris semantics (what the contract is compiled for), base fee 0, so that an account without
funds can send its own transactions. py-evm is used below its chain and block classes: it executes
states, and never makes, stores or hashes a header. BLOCKHASH therefore yields the real (QBFT)
hashes of the ancestors.

Not done here: order of transactions, time, durability (see `ledger`); calls (see `calls`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, cast

from eth.abc import ComputationAPI, SignedTransactionAPI
from eth.constants import BLANK_ROOT_HASH, CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.backends.base import BaseDB
from eth.db.trie import make_trie_root_and_nodes
from eth.vm.execution_context import ExecutionContext
from eth.vm.forks.paris import ParisVM
from eth.vm.forks.paris.state import ParisState
from eth.vm.interrupt import EVMMissingData
from eth_bloom.bloom import BloomFilter
from eth_utils.exceptions import ValidationError

from protocol.errors import FirmledgerError
from protocol.ids import Address, Hash
from registry.depth import deeply
from registry.embedded.pool import Pending
from registry.embedded.sealing import (
    BASE_FEE,
    BLOCK_GAS,
    DIFFICULTY,
    MIX_HASH,
    STRANGERS_BLOCK_GAS,
)

EMPTY_ROOT = bytes(BLANK_ROOT_HASH)
SUCCESS, FAILURE = b"\x01", b""

log = logging.getLogger(__name__)


class Nodes(BaseDB):
    """Trie nodes and code by hash: read through to ``read``, written to ``written`` only."""

    def __init__(self, read: Callable[[bytes], bytes | None]) -> None:
        self._read = read
        self.written: dict[bytes, bytes] = {}

    def __getitem__(self, key: bytes) -> bytes:
        value = self.written.get(key)
        if value is None:
            value = self._read(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.written[key] = value

    def __delitem__(self, key: bytes) -> None:
        # Old roots stay provable: a node is never taken away, only not written.
        self.written.pop(key, None)

    def _exists(self, key: bytes) -> bool:
        return key in self.written or self._read(key) is not None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What code sees of the block it runs in. ``ancestors``: block hashes, nearest first."""

    chain_id: int
    number: int
    timestamp: int
    beneficiary: bytes
    ancestors: Iterable[bytes] = ()

    def context(self) -> ExecutionContext:
        """The same for py-evm."""
        return ExecutionContext(
            coinbase=cast(Any, self.beneficiary),
            timestamp=self.timestamp,
            block_number=cast(Any, self.number),
            difficulty=DIFFICULTY,
            mix_hash=cast(Any, MIX_HASH),
            gas_limit=BLOCK_GAS,
            prev_hashes=cast(Any, self.ancestors),
            chain_id=self.chain_id,
            base_fee_per_gas=BASE_FEE,
        )


@dataclass(frozen=True, slots=True)
class Log:
    """One event: emitter (20 bytes), up to four topics (32 bytes each), data."""

    address: bytes
    topics: tuple[bytes, ...]
    data: bytes


@dataclass(frozen=True, slots=True)
class Outcome:
    """One transaction in its block; ``contract`` is set where it created one."""

    pending: Pending
    succeeded: bool
    gas_used: int
    cumulative_gas: int
    bloom: bytes
    contract: bytes | None
    logs: tuple[Log, ...]


@dataclass(slots=True)
class BlockRun:
    """What a block's transactions came to. ``rejected`` cannot run any more and were left out."""

    outcomes: list[Outcome] = field(default_factory=list)
    rejected: list[tuple[Pending, str]] = field(default_factory=list)
    state_root: bytes = EMPTY_ROOT
    transactions_root: bytes = EMPTY_ROOT
    receipts_root: bytes = EMPTY_ROOT
    bloom: bytes = bytes(256)
    gas_used: int = 0


def decode_transaction(raw: bytes) -> SignedTransactionAPI:
    """A raw legacy, 2930 or 1559 transaction; whatever py-evm raises passes (see `admission`)."""
    return ParisVM.get_transaction_builder().decode(raw)


def run_genesis(nodes: Nodes, balances: dict[Address, int]) -> bytes:
    """State root of a world with these balances (wei) and nothing else."""
    state = new_state(nodes, EMPTY_ROOT, Surroundings(0, 0, 0, bytes(20)))
    for address, balance in balances.items():
        state.set_balance(cast(Any, address), balance)
    return _persisted(state)


def run_block(
    nodes: Nodes, root: bytes, around: Surroundings, candidates: Iterable[Pending]
) -> BlockRun:
    """Applies ``candidates`` in order on the state ``root``, as far as the block's gas reaches.

    After a transaction that does not fit or cannot run, its sender's later ones wait. Strangers
    share `STRANGERS_BLOCK_GAS`, so that nobody who pays nothing keeps others out.
    """
    return deeply(lambda: _run_block(nodes, root, around, candidates))


def _run_block(
    nodes: Nodes, root: bytes, around: Surroundings, candidates: Iterable[Pending]
) -> BlockRun:
    state, run = new_state(nodes, root, around), BlockRun()
    receipts: list[Any] = []
    held: set[Address] = set()
    free_gas = 0
    for pending in candidates:
        if pending.sender in held:
            continue
        if run.gas_used + pending.gas > BLOCK_GAS or (
            pending.stranger and free_gas + pending.gas > STRANGERS_BLOCK_GAS
        ):
            held.add(pending.sender)
            continue
        state.lock_changes()
        computation = _apply(state, pending, run)
        if computation is None:
            held.add(pending.sender)
            continue
        gas = ParisVM.finalize_gas_used(pending.decoded, computation)
        run.gas_used += gas
        free_gas += gas if pending.stranger else 0
        receipts.append(_receipt(pending.decoded, computation, run.gas_used))
        run.outcomes.append(_outcome(pending, computation, gas, run.gas_used, receipts[-1]))
    run.state_root = _persisted(state)
    run.transactions_root = bytes(_root_of([o.pending.decoded for o in run.outcomes]))
    run.receipts_root = bytes(_root_of(receipts))
    run.bloom = _bloom_bytes(receipts)
    return run


def new_state(nodes: Nodes, root: bytes, around: Surroundings) -> ParisState:
    """A py-evm state on the root ``root``."""
    return ParisState(AtomicDB(nodes), around.context(), cast(Any, root))


def _apply(state: ParisState, pending: Pending, run: BlockRun) -> ComputationAPI | None:
    """Applies one transaction, or notes in ``run`` why it cannot be."""
    before = state.snapshot()
    try:
        return state.apply_transaction(pending.decoded)
    except (FirmledgerError, EVMMissingData):  # the disk's fault, not the transaction's
        raise
    except ValidationError as refusal:
        reason = str(refusal)
    except Exception as fault:  # whatever else: nobody's transaction may stop the chain
        log.exception("py-evm failed on transaction %s", pending.hash)
        reason = f"{type(fault).__name__}: {fault}"
    state.revert(before)
    run.rejected.append((pending, reason))
    return None


def _persisted(state: ParisState) -> bytes:
    state.lock_changes()
    state.persist()
    return bytes(state.state_root)


def _receipt(transaction: SignedTransactionAPI, computation: ComputationAPI, total: int) -> Any:
    status = FAILURE if computation.is_error else SUCCESS
    return transaction.make_receipt(status, total, computation.get_log_entries())


def _outcome(
    pending: Pending, computation: ComputationAPI, gas: int, total: int, receipt: Any
) -> Outcome:
    creates = pending.decoded.to == CREATE_CONTRACT_ADDRESS
    return Outcome(
        pending=pending,
        succeeded=not computation.is_error,
        gas_used=gas,
        cumulative_gas=total,
        bloom=_bloom_bytes([receipt]),
        contract=bytes(computation.msg.storage_address) if creates else None,
        logs=tuple(_logs(receipt)),
    )


def _logs(receipt: Any) -> Iterator[Log]:
    for entry in receipt.logs:
        topics = tuple(topic.to_bytes(32, "big") for topic in entry.topics)
        yield Log(bytes(entry.address), topics, bytes(entry.data))


def _root_of(items: list[Any]) -> Hash:
    root, _nodes = make_trie_root_and_nodes(tuple(items))
    return Hash(root)


def _bloom_bytes(receipts: list[Any]) -> bytes:
    bloom = 0
    for receipt in receipts:
        bloom |= int(BloomFilter(receipt.bloom))
    return bloom.to_bytes(256, "big")
